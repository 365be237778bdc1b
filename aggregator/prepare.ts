/**
 * The first half of counting a block, in a worker: everything that needs no knowledge of other blocks.
 *
 * The block is decoded and checked. Which meters an event counts for, and in which of its cells their values
 * and dimensions stand, depends only on tenant, type and shape, so it is worked out once for each of those
 * (a *plan*) and not once an event. What an event adds is a *contribution*: the number of a rollup key in a
 * dictionary of this block, a value, as mantissa and scale. Values and dimensions that are numbers never
 * become text or bigint here unless they have to.
 *
 * An event that any of its meters refuses contributes nothing at all: half an event is in no total.
 */
import { isUtf8 } from 'node:buffer';
import { BlockError, decodeBlock, textOf, type Block } from '../contract/block.ts';
import { FIELD_LITERAL, FIELD_NUMBER } from '../contract/fields.ts';
import type { Meter } from '../contract/meter.ts';
import { parseQuantity, unscaleDecimal } from '../contract/quantity.ts';
import type { RejectionCode } from '../contract/rejections.ts';
import { HOUR_MS } from '../contract/window.ts';
import type { MetersInForce } from './registry.ts';
import { dimensionOf } from './rollup-key.ts';

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

interface MeterPlan {
  readonly meter: Meter;
  /** Index of the value among the event's cells, -1 when the shape lacks it; unused for a count. */
  readonly value: number;
  readonly valueTag: number;
  readonly valueScale: number;
  readonly grouping: number;
}

/** Cells of the dimensions of one groupBy, with tag and scale; -1 where the shape lacks one. */
interface Grouping {
  readonly cells: readonly number[];
  readonly tags: readonly number[];
  readonly scales: readonly number[];
}

interface Plan {
  readonly meters: readonly MeterPlan[];
  readonly groupings: readonly Grouping[];
  /** Scratch: the group number of each grouping for the event at hand. */
  readonly groups: number[];
}

const NOTHING: Plan = { meters: [], groupings: [], groups: [] };

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
  readonly #plans = new Map<string, Plan>();
  readonly #tenantNumbers = new Map<number, number>();
  readonly #tenants: string[] = [];

  // Numbers of pairs: (subject, hour) → group, (group, dimension) → group, (group, meter) → key.
  readonly #pairs = new Map<number, number>();
  #pairCount = 0;
  readonly #hours = new Map<number, number>();
  readonly #numberTexts = new Map<string, number>();
  readonly #meterNumbers = new Map<Meter, number>();

  readonly #keys: string[] = [];
  readonly #keyNumbers = new Map<number, number>();
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
    let plan = NOTHING;
    let [tenant, type, shape] = [-1, -1, -1];
    for (let at = 0; at < block.count; at++) {
      if (block.time[at]! > TIME_MAX_MS) throw new BlockError('a time');
      tenantOf[at] = this.#tenant(block.tenant[at]!);
      if (block.tenant[at] !== tenant || block.type[at] !== type || block.shape[at] !== shape) {
        [tenant, type, shape] = [block.tenant[at]!, block.type[at]!, block.shape[at]!];
        plan = this.#plan(tenant, type, shape);
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
      const fault = this.#value(one, first);
      if (fault !== 0) return fault;
      const group = plan.groups[one.grouping]!;
      const pair = this.#pair(group, this.#meterNumber(one.meter));
      let key = this.#keyNumbers.get(pair);
      if (key === undefined) {
        key = this.#keys.length;
        this.#keyNumbers.set(pair, key);
        this.#keys.push(this.#keyText(plan, one, at, hour));
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
    if (one.meter.valueProperty === null) {
      this.#mantissa[next] = 1;
      this.#scale[next] = 0;
      return 0;
    }
    if (one.value < 0) return MISSING;
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

  #keyText(plan: Plan, one: MeterPlan, at: number, hour: number): string {
    const block = this.#block;
    const grouping = plan.groupings[one.grouping]!;
    const first = block.cellStart[at]!;
    const dimensions = grouping.cells.map((cell, number) => {
      if (cell < 0) return '';
      const raw = block.cells[first + cell]!;
      return grouping.tags[number] === FIELD_NUMBER
        ? unscaleDecimal(BigInt(raw), grouping.scales[number]!)
        : dimensionOf(this.#text(raw));
    });
    return JSON.stringify([
      this.#text(block.tenant[at]!),
      one.meter.key,
      this.#text(block.subject[at]!),
      hour * (HOUR_MS / 1_000),
      ...dimensions,
    ]);
  }

  #plan(tenant: number, type: number, shape: number): Plan {
    const id = `${tenant} ${type} ${shape}`;
    let plan = this.#plans.get(id);
    if (plan === undefined) this.#plans.set(id, (plan = this.#makePlan(tenant, type, shape)));
    return plan;
  }

  #makePlan(tenant: number, type: number, shape: number): Plan {
    const meters = this.#meters.get(this.#text(tenant))?.get(this.#text(type));
    if (meters === undefined) return NOTHING;
    const { shapeStart, shapeFields } = this.#block;
    const fields = new Map<string, { cell: number; tag: number; scale: number }>();
    for (let field = shapeStart[shape]!; field < shapeStart[shape + 1]!; field++) {
      const code = shapeFields[field * 2 + 1]!;
      const path = this.#text(shapeFields[field * 2]!);
      fields.set(path, { cell: field - shapeStart[shape]!, tag: code >>> 8, scale: code & 0xff });
    }
    const groupings: Grouping[] = [];
    const numbers = new Map<string, number>();
    const plans = meters.map((meter): MeterPlan => {
      const by = JSON.stringify(meter.groupBy);
      let grouping = numbers.get(by);
      if (grouping === undefined) {
        grouping = groupings.length;
        numbers.set(by, grouping);
        const found = meter.groupBy.map((path) => fields.get(path));
        groupings.push({
          cells: found.map((field) => field?.cell ?? -1),
          tags: found.map((field) => field?.tag ?? 0),
          scales: found.map((field) => field?.scale ?? 0),
        });
      }
      const value = meter.valueProperty === null ? undefined : fields.get(meter.valueProperty);
      return {
        meter,
        value: value?.cell ?? -1,
        valueTag: value?.tag ?? 0,
        valueScale: value?.scale ?? 0,
        grouping,
      };
    });
    return { meters: plans, groupings, groups: groupings.map(() => 0) };
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
