/**
 * The first half of counting a block, in a worker: everything that needs no knowledge of other blocks.
 *
 * The block is decoded and checked. Which meters an event counts for, and in which of its cells their values
 * and dimensions stand, depends only on tenant, type and shape, so it is worked out once for each of those
 * (a *plan*) and not once an event. What an event adds is a *contribution*: the number of a key in a dictionary of
 * this block, a value, as mantissa and scale. A key is a bucket (bucket.ts) and a meter; meters that group in the same
 * way share the bucket. Values and dimensions that are numbers never become text or bigint here unless they have to.
 *
 * A meter's filters are a part of the plan: what a shape lacks is decided with it, the rest once for each number or
 * text of the block. An event that a filter leaves out is nothing to that meter, whatever its value is. Which version
 * of a meter holds depends on the hour too, but only where a type has versions at all.
 *
 * How many groups an hour of a meter may have cannot be known here. So the groups of the block are told with it, each
 * once, and group-book.ts decides which of them have rows of their own.
 *
 * An event that any of its meters refuses contributes nothing at all: half an event is in no total.
 *
 * A correction (contract/corrections.ts) contributes what its own type, time and data say: a void nothing, since no meter
 * has its type. What it does to the event that it names is not worked out here; its target is read, and told with the
 * block. Whether a shape has one is found out once a block, so blocks without corrections pay for nothing.
 *
 * What was found is *packed*: columns in one memory (prepared-columns.ts), and beside them a few counts and names, which
 * is all that a thread has to post.
 */
import { isUtf8 } from 'node:buffer';
import { BlockError, decodeBlock, HEADER, HEADER_BYTES, textOf, type Block } from '../contract/block.ts';
import { PATH_TARGET } from '../contract/corrections.ts';
import { FIELD_LITERAL, FIELD_NUMBER, FIELD_TEXT } from '../contract/fields.ts';
import { parseIdentity } from '../contract/identity.ts';
import {
  countsEvents,
  groupsMaxOf,
  letsThrough,
  METER_LIMITS,
  OVERFLOW_GROUP,
  type Meter,
} from '../contract/meter.ts';
import { parseQuantity, unscaleDecimal } from '../contract/quantity.ts';
import type { RejectionCode } from '../contract/rejections.ts';
import { HOUR_MS } from '../contract/window.ts';
import {
  makePlan,
  type FilterPlan,
  type Grouping,
  type MeterPlan,
  type Plan,
  type ShapeField,
} from './meter-plan.ts';
import { epochOf, type MetersInForce, type MetersOfType } from './registry.ts';
import type { Buckets } from './bucket.ts';
import { Scratch } from './prepare-scratch.ts';
import {
  columnBytes,
  ColumnWriter,
  decidedColumns,
  tenantColumn,
  viewColumns,
  type ColumnCounts,
  type PreparedColumns,
} from './prepared-columns.ts';
import { dimensionOf } from './rollup-key.ts';

/** `refused` holds 1 + the number of a code in here. */
export const REFUSALS = [
  'meter_value_missing',
  'meter_value_not_a_number',
  'meter_value_out_of_range',
  'correction_target_unknown',
] as const satisfies readonly RejectionCode[];

const MISSING = 1;
const NOT_A_NUMBER = 2;
const OUT_OF_RANGE = 3;
/** Also of a correction whose target is no identity. */
export const TARGET_UNKNOWN = 4;

/** A scale that means: the mantissa is a number in `wide`, whose values are exact quantities. */
export const WIDE = 255;

/** As formatIdentity writes it. */
const IDENTITY = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** The last instant whose hour ClickHouse's DateTime can hold. An edge never lets one through beyond it. */
const TIME_MAX_MS = 2 ** 32 * 1_000 - 1;

export interface Contributions {
  /** What the keys of this block are made of. The tenants of buckets are numbers in `tenants`. */
  readonly buckets: Buckets;
  /** The keys of meters. */
  readonly meters: readonly string[];
  /** Of each key, the numbers of its bucket and of its meter. */
  readonly keyBucket: Uint32Array;
  readonly keyMeter: Uint32Array;
  /** Event `at` has the contributions `start[at]` up to, not including, `start[at + 1]`. */
  readonly start: Uint32Array;
  readonly key: Uint32Array;
  readonly mantissa: Float64Array;
  readonly scale: Uint8Array;
  readonly wide: readonly bigint[];
  readonly groups: BlockGroups;
}

/** An hour of a meter, which has a bounded number of groups. */
export interface MeterHour {
  /** JSON of tenant, meter and hour in epoch seconds. */
  readonly text: string;
  readonly hourSeconds: number;
  readonly groupsMax: number;
}

/** The groups of a block: what its keys have besides a subject. */
export interface BlockGroups {
  readonly meterHours: readonly MeterHour[];
  /** JSON of the dimensions of each group. The same may stand more than once: '7' as a number and as text. */
  readonly dimensions: readonly string[];
  /** The number of each group's hour in `meterHours`. */
  readonly hourOf: readonly number[];
  /** Of each key: 1 + the number of its group; 0 when it is in no bounded one. */
  readonly ofKey: Uint32Array;
}

/** The corrections of a block, in order. */
export interface Corrections {
  /** The numbers of the events. */
  readonly events: readonly number[];
  /** The identity that each names, four words each. */
  readonly targets: Uint32Array;
}

/** What is read of a block where it is counted. The rest is for whoever encodes it, who sees the message. */
export type BlockHead = Pick<Block, 'count' | 'acceptedAtMs' | 'identity' | 'payloadHash' | 'time'>;

export interface Prepared<B extends BlockHead = BlockHead> {
  /** Lies in the message's slot, and may not be read when that was let go. */
  readonly block: B;
  /** The block's own, to be read at any time. */
  readonly acceptedAtMs: number;
  readonly tenants: readonly string[];
  /** The number of each event's tenant in `tenants`. */
  readonly tenantOf: Uint32Array;
  /** 0, or 1 + the number of the code in {@link REFUSALS}. */
  readonly refused: Uint8Array;
  /** Room for the verdicts, which are zero here. */
  readonly verdicts: Uint8Array;
  readonly contributions: Contributions;
  /** Those of its groups, without the rest of what it contributes. */
  readonly meterHours: readonly MeterHour[];
  /** Null when there are none. */
  readonly corrections: Corrections | null;
}

/** What is told of a prepared block beside its columns. */
export interface Packed {
  readonly counts: ColumnCounts;
  /** The columns, if the room that was given does not hold them. */
  readonly memory: ArrayBuffer | null;
  readonly tenants: readonly string[];
  readonly meters: readonly string[];
  readonly wide: readonly bigint[];
  readonly meterHours: readonly MeterHour[];
  readonly dimensions: readonly string[];
  readonly hourOf: readonly number[];
  readonly corrections: Corrections | null;
}

/** Of a message that was decoded before. */
function viewHead({ buffer, byteOffset, byteLength }: Uint8Array): BlockHead {
  const view = new DataView(buffer, byteOffset, byteLength);
  const count = view.getUint32(HEADER.events, true);
  const identity = byteOffset + HEADER_BYTES;
  const payload = identity + count * 16;
  return {
    count,
    acceptedAtMs: view.getFloat64(HEADER.acceptedAtMs, true),
    identity: new Uint32Array(buffer, identity, count * 4),
    payloadHash: new Uint32Array(buffer, payload, count * 2),
    time: new Float64Array(buffer, payload + count * 8, count),
  };
}

/** The views that were made last (see below). */
let asked: { readonly of: Unpacked; readonly contributions: Contributions } | null = null;

/**
 * What was found in a message, in the memory where it lies.
 *
 * Most of it is read once or twice, a flush later, and views are objects of a hundred bytes: eighteen for each message
 * of a backlog were more than a small message itself, and collecting them cost as much as adding its events up. So they
 * are made whenever they are asked for, and not kept, but for those of the message that was asked last: finding a
 * message's rows and adding it to them follow one another.
 */
class Unpacked implements Prepared {
  readonly acceptedAtMs: number;
  readonly refused: Uint8Array;
  readonly verdicts: Uint8Array;
  readonly #message: Uint8Array;
  readonly #memory: Uint8Array;
  readonly #start: number;
  readonly #packed: Packed;

  constructor(message: Uint8Array, memory: Uint8Array, start: number, packed: Packed) {
    const { buffer, byteOffset, byteLength } = message;
    this.acceptedAtMs = new DataView(buffer, byteOffset, byteLength).getFloat64(HEADER.acceptedAtMs, true);
    const { verdicts, refused } = decidedColumns(memory, start, packed.counts.events);
    this.verdicts = verdicts;
    this.refused = refused;
    this.#message = message;
    this.#memory = memory;
    this.#start = start;
    this.#packed = packed;
  }

  get block(): BlockHead {
    return viewHead(this.#message);
  }

  get tenants(): readonly string[] {
    return this.#packed.tenants;
  }

  get tenantOf(): Uint32Array {
    return tenantColumn(this.#memory, this.#start, this.#packed.counts.events);
  }

  get contributions(): Contributions {
    if (asked?.of !== this) {
      const columns = viewColumns(this.#memory, this.#start, this.#packed.counts);
      asked = { of: this, contributions: contributionsOf(columns, this.#packed) };
    }
    return asked.contributions;
  }

  get meterHours(): readonly MeterHour[] {
    return this.#packed.meterHours;
  }

  get corrections(): Corrections | null {
    return this.#packed.corrections;
  }
}

/** @param room that `pack` was given; @param start where in it, too. */
export function unpack(
  message: Uint8Array,
  room: Uint8Array | null,
  start: number,
  packed: Packed,
): Prepared {
  const { memory } = packed;
  return memory === null
    ? new Unpacked(message, room!, start, packed)
    : new Unpacked(message, new Uint8Array(memory), 0, packed);
}

function contributionsOf(columns: PreparedColumns, packed: Packed): Contributions {
  const { counts, meters, wide, meterHours, dimensions, hourOf } = packed;
  const { start, key, mantissa, scale, keyBucket, keyMeter, ofKey } = columns;
  const buckets = {
    count: counts.buckets,
    tenant: columns.bucketTenant,
    start: columns.bucketStart,
    hash: columns.bucketHash,
    bytes: columns.bucketBytes,
  };
  const groups = { meterHours, dimensions, hourOf, ofKey };
  return { buckets, meters, keyBucket, keyMeter, start, key, mantissa, scale, wide, groups };
}

/** The plans of one tenant, type and shape: one for each epoch of the type's meters. */
interface ShapePlans {
  readonly of: MetersOfType;
  readonly byEpoch: (Plan | undefined)[];
}

const NOTHING: Plan = { meters: [], groupings: [] };
const NO_METERS: ShapePlans = { of: { fromHours: [], epochs: [[]] }, byEpoch: [NOTHING] };

/** Prepares blocks, one after the other, in memory that it keeps. */
export class Preparer {
  readonly #scratch: Scratch;
  /** Of the memory in which rooms were last. */
  #writer: ColumnWriter | null = null;

  /** @param bucketKey with which buckets are hashed: 16 bytes as 32 hexadecimal digits. */
  constructor(bucketKey: string) {
    this.#scratch = new Scratch(bucketKey);
  }

  /**
   * Packs one message after the other; the columns stand in the room in their order. Of a message that is no sound
   * block: why. Names that are those of the message before are told as the same array, which is posted once.
   */
  packAll(
    messages: readonly Uint8Array[],
    meters: MetersInForce,
    room: Uint8Array | null,
  ): (Packed | string)[] {
    let start = 0;
    let before: Packed | null = null;
    return messages.map((message) => {
      try {
        const packed: Packed = sharing(this.pack(message, meters, room, start), before);
        if (packed.memory === null) start += columnBytes(packed.counts);
        before = packed;
        return packed;
      } catch (error) {
        // Anything but a block that is not sound is a mistake of ours, and no verdict may hide it.
        if (!(error instanceof BlockError)) throw error;
        return error.message;
      }
    });
  }

  /**
   * Writes the columns into `room` from `start` on, which is a multiple of 8 in its buffer, or into memory of their own
   * if it is too small.
   * @throws BlockError when the message is no sound block.
   */
  pack(message: Uint8Array, meters: MetersInForce, room: Uint8Array | null, start = 0): Packed {
    return this.#pack(decoded(message), meters, room, start);
  }

  /** Into memory of its own. @throws BlockError */
  prepare(message: Uint8Array, meters: MetersInForce): Prepared<Block> {
    const block = decoded(message);
    const packed = this.#pack(block, meters, null, 0);
    const { counts, memory, tenants, corrections } = packed;
    const columns = viewColumns(new Uint8Array(memory!), 0, counts);
    const { verdicts, refused, tenantOf } = columns;
    const { acceptedAtMs } = block;
    const contributions = contributionsOf(columns, packed);
    const { meterHours } = packed;
    return {
      block,
      acceptedAtMs,
      tenants,
      tenantOf,
      refused,
      verdicts,
      contributions,
      meterHours,
      corrections,
    };
  }

  #pack(block: Block, meters: MetersInForce, room: Uint8Array | null, start: number): Packed {
    const { counts, ...told } = new Preparation(block, meters, this.#scratch).run();
    const bytes = columnBytes(counts);
    if (room !== null && start + bytes <= room.length) {
      if (this.#writer?.buffer !== room.buffer) this.#writer = new ColumnWriter(room.buffer);
      this.#scratch.copyTo(this.#writer, room.byteOffset + start, counts);
      return { counts, memory: null, ...told };
    }
    const memory = new ArrayBuffer(bytes);
    this.#scratch.copyTo(new ColumnWriter(memory), 0, counts);
    return { counts, memory, ...told };
  }
}

function sharing(packed: Packed, before: Packed | null): Packed {
  const { tenants, meters, wide, meterHours, dimensions, hourOf } = packed;
  return {
    ...packed,
    tenants: same(tenants, before?.tenants),
    meters: same(meters, before?.meters),
    wide: wide.length === 0 ? NONE : wide,
    meterHours: same(meterHours, before?.meterHours, isSameHour),
    dimensions: same(dimensions, before?.dimensions),
    hourOf: same(hourOf, before?.hourOf),
  };
}

const NONE: readonly never[] = [];

function same<T>(
  all: readonly T[],
  before: readonly T[] | undefined,
  isSame: (a: T, b: T) => boolean = Object.is,
): readonly T[] {
  if (all.length === 0) return NONE;
  return before?.length === all.length && all.every((one, at) => isSame(one, before[at]!)) ? before : all;
}

function isSameHour(a: MeterHour, b: MeterHour): boolean {
  return a.text === b.text && a.groupsMax === b.groupsMax;
}

function decoded(message: Uint8Array): Block {
  const block = decodeBlock(message);
  checkTexts(block);
  return block;
}

/** A slice of valid UTF-8 that starts and ends between characters is valid: two scans instead of a decoding each. */
function checkTexts(block: Block): void {
  for (const [bytes, starts, what] of [
    [block.textBytes, block.textStart, 'texts'],
    [block.idBytes, block.idStart, 'ids'],
  ] as const) {
    if (!isUtf8(bytes)) throw new BlockError(`its ${what} are not UTF-8`);
    for (const start of starts) {
      if (start < bytes.length && (bytes[start]! & 0xc0) === 0x80)
        throw new BlockError(`the bounds of its ${what}`);
    }
  }
}

class Preparation {
  readonly #block: Block;
  readonly #meters: MetersInForce;
  readonly #texts: (string | undefined)[];
  /** By the numbers of `Scratch.shapes`. */
  readonly #plans: ShapePlans[] = [];
  readonly #tenantNumbers = new Map<number, number>();
  readonly #tenants: string[] = [];

  readonly #scratch: Scratch;
  /** Numbers of texts are below, those of groups above it: both stand in pairs. */
  readonly #groupsFrom: number;
  readonly #hours = new Map<number, number>();
  #lastHour = -1;
  #lastHourNumber = -1;
  #lastTenant = -1;
  #lastTenantNumber = -1;
  readonly #numberTexts = new Map<string, number>();
  readonly #meterNumbers = new Map<Meter, number>();

  readonly #meterKeys: string[] = [];
  readonly #meterHours: MeterHour[] = [];
  readonly #groupDimensions: string[] = [];
  readonly #hourOfGroup: number[] = [];
  #buckets = 0;
  #keys = 0;
  #contributions = 0;
  readonly #wide: bigint[] = [];

  constructor(block: Block, meters: MetersInForce, scratch: Scratch) {
    this.#block = block;
    this.#scratch = scratch;
    scratch.begin(block.count);
    this.#meters = meters;
    this.#texts = new Array<string | undefined>(block.textCount);
    this.#groupsFrom = block.textCount;
  }

  run(): Omit<Packed, 'memory'> {
    const block = this.#block;
    const { count } = block;
    const { tenantOf, refused, start } = this.#scratch;
    // Neighbours are mostly alike: the plan of the last event is tried first.
    let plans = NO_METERS;
    let plan = NOTHING;
    let [tenant, type, shape, epoch] = [-1, -1, -1, 0];
    start[0] = 0;
    for (let at = 0; at < count; at++) {
      if (block.time[at]! > TIME_MAX_MS) throw new BlockError('a time');
      tenantOf[at] = this.#tenant(block.tenant[at]!);
      if (block.tenant[at] !== tenant || block.type[at] !== type || block.shape[at] !== shape) {
        [tenant, type, shape, epoch] = [block.tenant[at]!, block.type[at]!, block.shape[at]!, -1];
        plans = this.#shapePlans(tenant, type, shape);
      }
      const now =
        plans.of.fromHours.length === 0 ? 0 : epochOf(plans.of, Math.floor(block.time[at]! / HOUR_MS));
      if (now !== epoch) {
        epoch = now;
        plan = plans.byEpoch[epoch] ??= this.#makePlan(plans.of.epochs[epoch]!, shape);
      }
      refused[at] = 0;
      if (plan !== NOTHING) {
        const before = this.#contributions;
        refused[at] = this.#contribute(plan, tenantOf[at]!, at);
        if (refused[at] !== 0) this.#contributions = before;
      }
      start[at + 1] = this.#contributions;
    }
    const corrections = this.#corrections(refused);
    return {
      counts: {
        events: count,
        contributions: this.#contributions,
        keys: this.#keys,
        buckets: this.#buckets,
        bucketBytes: this.#scratch.writer.written.bytes.length,
      },
      tenants: this.#tenants,
      meters: this.#meterKeys,
      wide: this.#wide,
      meterHours: this.#meterHours,
      dimensions: this.#groupDimensions,
      hourOf: this.#hourOfGroup,
      corrections,
    };
  }

  /** The targets of corrections; refuses those of which it is no identity. */
  #corrections(refused: Uint8Array): Corrections | null {
    const cells = this.#targetCells();
    if (cells === null) return null;
    const block = this.#block;
    const events: number[] = [];
    const targets: number[] = [];
    for (let at = 0; at < block.count; at++) {
      const cell = cells[block.shape[at]!]!;
      if (cell < 0 || refused[at] !== 0) continue;
      const isText = (cell & 0xff) === FIELD_TEXT;
      const text = isText ? this.#text(block.cells[block.cellStart[at]! + (cell >>> 8)]!) : '';
      if (!IDENTITY.test(text)) {
        refused[at] = TARGET_UNKNOWN;
        continue;
      }
      events.push(at);
      targets.push(...parseIdentity(text));
    }
    return events.length === 0 ? null : { events, targets: Uint32Array.from(targets) };
  }

  /** Of each shape, where the target of a correction stands (index of the cell << 8 | tag), or -1. Null for nowhere. */
  #targetCells(): Int32Array | null {
    const { shapeCount, shapeStart, shapeFields, textStart } = this.#block;
    let cells: Int32Array | null = null;
    for (let shape = 0; shape < shapeCount; shape++) {
      const first = shapeStart[shape]!;
      for (let field = first; field < shapeStart[shape + 1]!; field++) {
        const path = shapeFields[field * 2]!;
        if (textStart[path + 1]! - textStart[path]! !== PATH_TARGET.length) continue;
        if (this.#text(path) !== PATH_TARGET) continue;
        cells ??= new Int32Array(shapeCount).fill(-1);
        cells[shape] = ((field - first) << 8) | (shapeFields[field * 2 + 1]! >>> 8);
      }
    }
    return cells;
  }

  /** Adds the event's contributions; returns what refuses it, or 0. */
  #contribute(plan: Plan, tenant: number, at: number): number {
    const block = this.#block;
    const scratch = this.#scratch;
    const first = block.cellStart[at]!;
    const hour = Math.floor(block.time[at]! / HOUR_MS);
    const tenantHour = this.#pair(tenant, this.#hourNumber(hour));
    // Meters that group in the same way stand behind one another mostly: their bucket is looked up once.
    let [grouping, group, bucket, nth] = [-1, -1, -1, 0];
    for (const one of plan.meters) {
      if (one.filters !== null && !this.#passes(one.filters, first)) continue;
      const fault = this.#value(one, first);
      if (fault !== 0) return fault;
      if (one.grouping !== grouping) {
        grouping = one.grouping;
        group = this.#group(plan.groupings[grouping]!, first, tenantHour);
        bucket = scratch.buckets.of(block.subject[at]!, group);
        if (bucket === this.#buckets) this.#newBucket(plan.groupings[grouping]!, at, hour);
        nth = scratch.firstKey[bucket]!;
      } else nth += 1;
      // A bucket's keys mostly were made in this order, one after the other.
      let key = nth;
      if (key >= this.#keys || scratch.keyBucket[key] !== bucket || scratch.keyMeter[key] !== one.number) {
        key = scratch.keys.of(bucket, one.number);
        if (key === this.#keys) this.#newKey(bucket, plan.groupings[grouping]!, one, at, group, tenantHour);
      }
      scratch.key[this.#contributions] = key;
      this.#contributions += 1;
    }
    return 0;
  }

  /** Writes mantissa and scale of the next contribution. */
  #value(one: MeterPlan, first: number): number {
    const next = this.#contributions;
    const scratch = this.#scratch;
    if (next === scratch.key.length) scratch.growContributions();
    const { valueProperty, aggregation } = one.meter;
    if (valueProperty !== null && one.value < 0) return MISSING;
    if (countsEvents(aggregation)) {
      scratch.mantissa[next] = 1;
      scratch.scale[next] = 0;
      if (valueProperty === null || one.valueTag !== FIELD_LITERAL) return 0;
      return this.#text(this.#block.cells[first + one.value]!) === 'null' ? MISSING : 0;
    }
    const cell = this.#block.cells[first + one.value]!;
    if (one.valueTag === FIELD_NUMBER) {
      scratch.mantissa[next] = cell;
      scratch.scale[next] = one.valueScale;
      return 0;
    }
    if (one.valueTag === FIELD_LITERAL) return this.#text(cell) === 'null' ? MISSING : NOT_A_NUMBER;
    const parsed = parseQuantity(this.#text(cell));
    if (!parsed.ok) return parsed.fault === 'not_a_decimal' ? NOT_A_NUMBER : OUT_OF_RANGE;
    scratch.mantissa[next] = this.#wide.length;
    scratch.scale[next] = WIDE;
    this.#wide.push(parsed.value);
    return 0;
  }

  /** The group of an event: tenant, hour and dimensions, of whatever subject. */
  #group(grouping: Grouping, first: number, tenantHour: number): number {
    let group = tenantHour;
    for (let number = 0; number < grouping.cells.length; number++) {
      const cell = grouping.cells[number]!;
      let value = 0; // absent
      if (cell >= 0) {
        const raw = this.#block.cells[first + cell]!;
        value =
          1 +
          (grouping.tags[number] === FIELD_NUMBER ? this.#numberText(raw, grouping.scales[number]!) : raw);
      }
      group = this.#pair(group, value);
    }
    return group;
  }

  #passes(filters: readonly FilterPlan[], first: number): boolean {
    for (const { filter, isIn, cell, numbers, texts } of filters) {
      const value = this.#block.cells[first + cell]!;
      if (numbers !== null) {
        if (numbers.has(value) !== isIn) return false;
        continue;
      }
      let passes = texts.get(value);
      if (passes === undefined) texts.set(value, (passes = letsThrough(filter, this.#text(value))));
      if (!passes) return false;
    }
    return true;
  }

  /** Writes the next bucket: that of the event, by this grouping. */
  #newBucket(grouping: Grouping, at: number, hour: number): void {
    const block = this.#block;
    const { writer } = this.#scratch;
    const { textBytes, textStart } = block;
    const { cells, tags, scales } = grouping;
    const first = block.cellStart[at]!;
    const subject = block.subject[at]!;
    const isOver = this.#namesOverflow(grouping, first);
    writer.begin(hour * (HOUR_MS / 1_000), cells.length);
    writer.slice(textBytes, textStart[subject]!, textStart[subject + 1]!);
    for (let number = 0; number < cells.length; number++) {
      const cell = cells[number]!;
      const raw = cell < 0 ? 0 : block.cells[first + cell]!;
      if (isOver) writer.text(OVERFLOW_GROUP);
      else if (cell < 0) writer.text('');
      else if (tags[number] === FIELD_NUMBER) writer.text(unscaleDecimal(BigInt(raw), scales[number]!));
      // Not longer in bytes than it may be in characters: it is whole, as it stands.
      else if (textStart[raw + 1]! - textStart[raw]! <= METER_LIMITS.dimensionLength)
        writer.slice(textBytes, textStart[raw]!, textStart[raw + 1]!);
      else writer.text(dimensionOf(this.#text(raw)));
    }
    writer.end(this.#tenant(block.tenant[at]!));
    if (this.#buckets === this.#scratch.isBounded.length) this.#scratch.growBuckets();
    this.#scratch.isBounded[this.#buckets] = cells.length > 0 && !isOver ? 1 : 0;
    this.#scratch.firstKey[this.#buckets] = this.#keys;
    this.#buckets += 1;
  }

  /** Whether one of the dimensions is the overflow group's name. Its event is in that group in all of them. */
  #namesOverflow({ cells, tags }: Grouping, first: number): boolean {
    const { cells: values, textStart } = this.#block;
    for (let number = 0; number < cells.length; number++) {
      const cell = cells[number]!;
      if (cell < 0 || tags[number] === FIELD_NUMBER) continue;
      const text = values[first + cell]!;
      if (textStart[text + 1]! - textStart[text]! !== OVERFLOW_GROUP.length) continue;
      if (this.#text(text) === OVERFLOW_GROUP) return true;
    }
    return false;
  }

  #newKey(
    bucket: number,
    grouping: Grouping,
    one: MeterPlan,
    at: number,
    group: number,
    tenantHour: number,
  ): void {
    const scratch = this.#scratch;
    if (this.#keys === scratch.keyBucket.length) scratch.growKeys();
    const key = this.#keys++;
    scratch.keyBucket[key] = bucket;
    scratch.keyMeter[key] = one.number;
    const isBounded = scratch.isBounded[bucket] === 1;
    scratch.ofKey[key] = isBounded ? 1 + this.#boundedGroup(grouping, one, at, group, tenantHour) : 0;
  }

  /** The number of a key's group: its meter, hour and dimensions, of whatever subject. */
  #boundedGroup(
    grouping: Grouping,
    { meter, number }: MeterPlan,
    at: number,
    group: number,
    tenantHour: number,
  ): number {
    const { bounded, meterHours } = this.#scratch;
    const found = bounded.of(group, number);
    if (found < this.#groupDimensions.length) return found;
    const meterHour = meterHours.of(tenantHour, number);
    if (meterHour === this.#meterHours.length) {
      const block = this.#block;
      const hourSeconds = Math.floor(block.time[at]! / HOUR_MS) * (HOUR_MS / 1_000);
      const text = JSON.stringify([this.#text(block.tenant[at]!), meter.key, hourSeconds]);
      this.#meterHours.push({ text, hourSeconds, groupsMax: groupsMaxOf(meter) });
    }
    this.#groupDimensions.push(JSON.stringify(this.#dimensions(grouping, at)));
    this.#hourOfGroup.push(meterHour);
    return found;
  }

  #dimensions({ cells, tags, scales }: Grouping, at: number): string[] {
    const block = this.#block;
    return cells.map((cell, number) => {
      if (cell < 0) return '';
      const raw = block.cells[block.cellStart[at]! + cell]!;
      return tags[number] === FIELD_NUMBER
        ? unscaleDecimal(BigInt(raw), scales[number]!)
        : dimensionOf(this.#text(raw));
    });
  }

  #shapePlans(tenant: number, type: number, shape: number): ShapePlans {
    const { types, shapes } = this.#scratch;
    const number = shapes.of(types.of(tenant, type), shape);
    if (number === this.#plans.length) {
      const of = this.#meters.get(this.#text(tenant))?.get(this.#text(type));
      this.#plans.push(of === undefined ? NO_METERS : { of, byEpoch: of.epochs.map(() => undefined) });
    }
    return this.#plans[number]!;
  }

  #makePlan(meters: readonly Meter[], shape: number): Plan {
    const { shapeStart, shapeFields } = this.#block;
    const fields = new Map<string, ShapeField>();
    for (let field = shapeStart[shape]!; field < shapeStart[shape + 1]!; field++) {
      const code = shapeFields[field * 2 + 1]!;
      const path = this.#text(shapeFields[field * 2]!);
      fields.set(path, { cell: field - shapeStart[shape]!, tag: code >>> 8, scale: code & 0xff });
    }
    return makePlan(meters, fields, (meter) => this.#meterNumber(meter));
  }

  /** A number for a pair, apart from the numbers of texts, which stand in pairs themselves. */
  #pair(a: number, b: number): number {
    return this.#groupsFrom + this.#scratch.groups.of(a, b);
  }

  #hourNumber(hour: number): number {
    if (hour === this.#lastHour) return this.#lastHourNumber;
    let number = this.#hours.get(hour);
    if (number === undefined) this.#hours.set(hour, (number = this.#hours.size));
    [this.#lastHour, this.#lastHourNumber] = [hour, number];
    return number;
  }

  #meterNumber(meter: Meter): number {
    let number = this.#meterNumbers.get(meter);
    if (number === undefined) this.#meterNumbers.set(meter, (number = this.#meterKeys.push(meter.key) - 1));
    return number;
  }

  /** A number for a numeric dimension, apart from the numbers of texts. */
  #numberText(mantissa: number, scale: number): number {
    const id = `${mantissa} ${scale}`;
    let number = this.#numberTexts.get(id);
    if (number === undefined) {
      number = this.#block.textCount + this.#numberTexts.size;
      this.#numberTexts.set(id, number);
    }
    return number;
  }

  #tenant(text: number): number {
    if (text === this.#lastTenant) return this.#lastTenantNumber;
    let number = this.#tenantNumbers.get(text);
    if (number === undefined) {
      number = this.#tenants.push(this.#text(text)) - 1;
      this.#tenantNumbers.set(text, number);
    }
    [this.#lastTenant, this.#lastTenantNumber] = [text, number];
    return number;
  }

  #text(number: number): string {
    return (this.#texts[number] ??= textOf(this.#block, number));
  }
}
