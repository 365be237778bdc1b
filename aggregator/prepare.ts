/**
 * The first half of counting a block, in a worker: everything that needs no knowledge of other blocks.
 *
 * The block is decoded and checked. Which meters an event counts for, and in which of its cells their values
 * and dimensions stand, depends only on tenant, type and shape, so it is worked out once for each of those
 * (a *plan*) and not once an event. What an event adds is a *contribution*: the number of a rollup key in a
 * dictionary of this block, a value, as mantissa and scale. Values and dimensions that are numbers never
 * become text or bigint here unless they have to.
 *
 * A meter's filters are a part of the plan: what a shape lacks is decided with it, the rest once for each number or
 * text of the block. An event that a filter leaves out is nothing to that meter, whatever its value is. Which version
 * of a meter holds depends on the hour too, but only where a type has versions at all.
 *
 * How many groups an hour of a meter may have cannot be known here. So the groups of the block are told with it, each
 * once, and group-book.ts decides which of them have rows of their own.
 *
 * An event that any of its meters refuses contributes nothing at all: half an event is in no total.
 */
import { isUtf8 } from 'node:buffer';
import { BlockError, decodeBlock, textOf, type Block } from '../contract/block.ts';
import { FIELD_LITERAL, FIELD_NUMBER } from '../contract/fields.ts';
import { countsEvents, groupsMaxOf, letsThrough, OVERFLOW_GROUP, type Meter } from '../contract/meter.ts';
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
import { dimensionOf, isOverflow } from './rollup-key.ts';

/** `refused` holds 1 + the number of a code in here. */
export const REFUSALS = [
  'meter_value_missing',
  'meter_value_not_a_number',
  'meter_value_out_of_range',
] as const satisfies readonly RejectionCode[];

const MISSING = 1;
const NOT_A_NUMBER = 2;
const OUT_OF_RANGE = 3;

/** A scale that means: the mantissa is a number in `wide`, whose values are exact quantities. */
export const WIDE = 255;

/** The last instant whose hour ClickHouse's DateTime can hold. An edge never lets one through beyond it. */
const TIME_MAX_MS = 2 ** 32 * 1_000 - 1;

export interface Contributions {
  /** Rollup keys as {@link formatKey} writes them; the dictionary of this block. */
  readonly keys: readonly string[];
  /** Event `at` has the contributions `start[at]` up to, not including, `start[at + 1]`. */
  readonly start: Uint32Array<ArrayBuffer>;
  readonly key: Uint32Array<ArrayBuffer>;
  readonly mantissa: Float64Array<ArrayBuffer>;
  readonly scale: Uint8Array<ArrayBuffer>;
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
  readonly ofKey: Uint32Array<ArrayBuffer>;
}

export interface Prepared {
  readonly block: Block;
  readonly tenants: readonly string[];
  /** The number of each event's tenant in `tenants`. */
  readonly tenantOf: Uint32Array<ArrayBuffer>;
  /** 0, or 1 + the number of the code in {@link REFUSALS}. */
  readonly refused: Uint8Array<ArrayBuffer>;
  readonly contributions: Contributions;
}

/** The plans of one tenant, type and shape: one for each epoch of the type's meters. */
interface ShapePlans {
  readonly of: MetersOfType;
  readonly byEpoch: (Plan | undefined)[];
}

const NOTHING: Plan = { meters: [], groupings: [], groups: [] };
const NO_METERS: ShapePlans = { of: { fromHours: [], epochs: [[]] }, byEpoch: [NOTHING] };

/** @throws BlockError when the message is no sound block. */
export function prepare(message: Uint8Array<ArrayBuffer>, meters: MetersInForce): Prepared {
  const block = decodeBlock(message);
  checkTexts(block);
  return new Preparation(block, meters).run();
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
  readonly #plans = new Map<string, ShapePlans>();
  readonly #tenantNumbers = new Map<number, number>();
  readonly #tenants: string[] = [];

  // Numbers of pairs: (subject, hour) → group, (group, dimension) → group, (group, meter) → key. A subject that no
  // event has stands for all of them.
  readonly #pairs = new Map<number, number>();
  readonly #anySubject: number;
  #pairCount = 1;
  readonly #hours = new Map<number, number>();
  readonly #numberTexts = new Map<string, number>();
  readonly #meterNumbers = new Map<Meter, number>();

  readonly #keys: string[] = [];
  readonly #keyNumbers = new Map<number, number>();
  readonly #ofKey: number[] = [];
  readonly #meterHours: MeterHour[] = [];
  readonly #meterHourNumbers = new Map<number, number>();
  readonly #groupNumbers = new Map<number, number>();
  readonly #groupDimensions: string[] = [];
  readonly #hourOfGroup: number[] = [];
  readonly #start: Uint32Array<ArrayBuffer>;
  #key: Uint32Array<ArrayBuffer>;
  #mantissa: Float64Array<ArrayBuffer>;
  #scale: Uint8Array<ArrayBuffer>;
  #contributions = 0;
  readonly #wide: bigint[] = [];

  constructor(block: Block, meters: MetersInForce) {
    this.#block = block;
    this.#meters = meters;
    this.#texts = new Array<string | undefined>(block.textCount);
    this.#anySubject = block.textCount;
    this.#start = new Uint32Array(block.count + 1);
    this.#key = new Uint32Array(block.count * 2);
    this.#mantissa = new Float64Array(block.count * 2);
    this.#scale = new Uint8Array(block.count * 2);
  }

  run(): Prepared {
    const block = this.#block;
    const tenantOf = new Uint32Array(block.count);
    const refused = new Uint8Array(block.count);
    // Neighbours are mostly alike: the plan of the last event is tried first.
    let plans = NO_METERS;
    let plan = NOTHING;
    let [tenant, type, shape, epoch] = [-1, -1, -1, 0];
    for (let at = 0; at < block.count; at++) {
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
      if (plan !== NOTHING) {
        const before = this.#contributions;
        refused[at] = this.#contribute(plan, at);
        if (refused[at] !== 0) this.#contributions = before;
      }
      this.#start[at + 1] = this.#contributions;
    }
    const used = this.#contributions;
    return {
      block,
      tenants: this.#tenants,
      tenantOf,
      refused,
      contributions: {
        keys: this.#keys,
        start: this.#start,
        key: this.#key.slice(0, used),
        mantissa: this.#mantissa.slice(0, used),
        scale: this.#scale.slice(0, used),
        wide: this.#wide,
        groups: {
          meterHours: this.#meterHours,
          dimensions: this.#groupDimensions,
          hourOf: this.#hourOfGroup,
          ofKey: Uint32Array.from(this.#ofKey),
        },
      },
    };
  }

  /** Adds the event's contributions; returns what refuses it, or 0. */
  #contribute(plan: Plan, at: number): number {
    const block = this.#block;
    const first = block.cellStart[at]!;
    const hour = Math.floor(block.time[at]! / HOUR_MS);
    const subjectHour = this.#pair(block.subject[at]!, this.#hourNumber(hour));
    for (let number = 0; number < plan.groupings.length; number++) {
      plan.groups[number] = this.#group(plan.groupings[number]!, first, subjectHour);
    }
    for (const one of plan.meters) {
      if (one.filters !== null && !this.#passes(one.filters, first)) continue;
      const fault = this.#value(one, first);
      if (fault !== 0) return fault;
      const group = plan.groups[one.grouping]!;
      const pair = this.#pair(group, this.#meterNumber(one.meter));
      let key = this.#keyNumbers.get(pair);
      if (key === undefined) {
        key = this.#newKey(plan, one, at, hour);
        this.#keyNumbers.set(pair, key);
      }
      this.#key[this.#contributions] = key;
      this.#contributions += 1;
    }
    return 0;
  }

  /** Writes mantissa and scale of the next contribution. */
  #value(one: MeterPlan, first: number): number {
    const next = this.#contributions;
    if (next === this.#key.length) this.#grow();
    const { valueProperty, aggregation } = one.meter;
    if (valueProperty !== null && one.value < 0) return MISSING;
    if (countsEvents(aggregation)) {
      this.#mantissa[next] = 1;
      this.#scale[next] = 0;
      if (valueProperty === null || one.valueTag !== FIELD_LITERAL) return 0;
      return this.#text(this.#block.cells[first + one.value]!) === 'null' ? MISSING : 0;
    }
    const cell = this.#block.cells[first + one.value]!;
    if (one.valueTag === FIELD_NUMBER) {
      this.#mantissa[next] = cell;
      this.#scale[next] = one.valueScale;
      return 0;
    }
    if (one.valueTag === FIELD_LITERAL) return this.#text(cell) === 'null' ? MISSING : NOT_A_NUMBER;
    const parsed = parseQuantity(this.#text(cell));
    if (!parsed.ok) return parsed.fault === 'not_a_decimal' ? NOT_A_NUMBER : OUT_OF_RANGE;
    this.#mantissa[next] = this.#wide.length;
    this.#scale[next] = WIDE;
    this.#wide.push(parsed.value);
    return 0;
  }

  #group(grouping: Grouping, first: number, subjectHour: number): number {
    let group = subjectHour;
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

  #newKey(plan: Plan, one: MeterPlan, at: number, hour: number): number {
    const block = this.#block;
    const grouping = plan.groupings[one.grouping]!;
    const first = block.cellStart[at]!;
    let dimensions = grouping.cells.map((cell, number) => {
      if (cell < 0) return '';
      const raw = block.cells[first + cell]!;
      return grouping.tags[number] === FIELD_NUMBER
        ? unscaleDecimal(BigInt(raw), grouping.scales[number]!)
        : dimensionOf(this.#text(raw));
    });
    const isBounded = dimensions.length > 0 && !isOverflow(dimensions);
    if (!isBounded) dimensions = dimensions.map(() => OVERFLOW_GROUP);
    const tenant = this.#text(block.tenant[at]!);
    const hourSeconds = hour * (HOUR_MS / 1_000);
    this.#ofKey.push(
      isBounded ? 1 + this.#groupNumber(grouping, one.meter, first, hour, tenant, dimensions) : 0,
    );
    return (
      this.#keys.push(
        JSON.stringify([tenant, one.meter.key, this.#text(block.subject[at]!), hourSeconds, ...dimensions]),
      ) - 1
    );
  }

  /** The number of a key's group: its meter, hour and dimensions, of whatever subject. */
  #groupNumber(
    grouping: Grouping,
    meter: Meter,
    first: number,
    hour: number,
    tenant: string,
    dimensions: readonly string[],
  ): number {
    const hourOfAll = this.#pair(this.#anySubject, this.#hourNumber(hour));
    const meterNumber = this.#meterNumber(meter);
    const pair = this.#pair(this.#group(grouping, first, hourOfAll), meterNumber);
    let group = this.#groupNumbers.get(pair);
    if (group === undefined) {
      const meterHourPair = this.#pair(hourOfAll, meterNumber);
      let meterHour = this.#meterHourNumbers.get(meterHourPair);
      if (meterHour === undefined) {
        const hourSeconds = hour * (HOUR_MS / 1_000);
        const text = JSON.stringify([tenant, meter.key, hourSeconds]);
        meterHour = this.#meterHours.push({ text, hourSeconds, groupsMax: groupsMaxOf(meter) }) - 1;
        this.#meterHourNumbers.set(meterHourPair, meterHour);
      }
      group = this.#groupDimensions.push(JSON.stringify(dimensions)) - 1;
      this.#hourOfGroup.push(meterHour);
      this.#groupNumbers.set(pair, group);
    }
    return group;
  }

  #shapePlans(tenant: number, type: number, shape: number): ShapePlans {
    const id = `${tenant} ${type} ${shape}`;
    let plans = this.#plans.get(id);
    if (plans === undefined) {
      const of = this.#meters.get(this.#text(tenant))?.get(this.#text(type));
      plans = of === undefined ? NO_METERS : { of, byEpoch: of.epochs.map(() => undefined) };
      this.#plans.set(id, plans);
    }
    return plans;
  }

  #makePlan(meters: readonly Meter[], shape: number): Plan {
    const { shapeStart, shapeFields } = this.#block;
    const fields = new Map<string, ShapeField>();
    for (let field = shapeStart[shape]!; field < shapeStart[shape + 1]!; field++) {
      const code = shapeFields[field * 2 + 1]!;
      const path = this.#text(shapeFields[field * 2]!);
      fields.set(path, { cell: field - shapeStart[shape]!, tag: code >>> 8, scale: code & 0xff });
    }
    return makePlan(meters, fields);
  }

  /** A dense number for a pair of numbers below 2^26, which all numbers of one block are. */
  #pair(a: number, b: number): number {
    const id = a * 2 ** 26 + b;
    let number = this.#pairs.get(id);
    if (number === undefined) this.#pairs.set(id, (number = this.#block.textCount + this.#pairCount++));
    return number;
  }

  #hourNumber(hour: number): number {
    let number = this.#hours.get(hour);
    if (number === undefined) this.#hours.set(hour, (number = this.#hours.size));
    return number;
  }

  #meterNumber(meter: Meter): number {
    let number = this.#meterNumbers.get(meter);
    if (number === undefined) this.#meterNumbers.set(meter, (number = this.#meterNumbers.size));
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
    let number = this.#tenantNumbers.get(text);
    if (number === undefined) {
      number = this.#tenants.length;
      this.#tenantNumbers.set(text, number);
      this.#tenants.push(this.#text(text));
    }
    return number;
  }

  #text(number: number): string {
    return (this.#texts[number] ??= textOf(this.#block, number));
  }

  #grow(): void {
    const length = Math.max(64, this.#key.length * 2);
    const { length: used } = this.#key;
    const key = new Uint32Array(length);
    key.set(this.#key.subarray(0, used));
    const mantissa = new Float64Array(length);
    mantissa.set(this.#mantissa);
    const scale = new Uint8Array(length);
    scale.set(this.#scale);
    [this.#key, this.#mantissa, this.#scale] = [key, mantissa, scale];
  }
}
