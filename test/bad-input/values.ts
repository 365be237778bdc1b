/**
 * Events as they are sent, before anybody wrote them down: values with every digit of a number and every key of an
 * object, twice if need be, and their spellings in JSON and msgpack. With them stands what must be stored, said
 * from the value that was sent and not from its bytes. Nothing here comes from the code under test.
 */
/** A number by its digits. */
export class Num {
  readonly digits: string;
  constructor(digits: string) {
    this.digits = digits;
  }
}

/** An object with its keys in order. A key is a text, but for what only msgpack can say or what is no JSON. */
export class Dict {
  readonly entries: readonly Entry[];
  constructor(entries: readonly Entry[]) {
    this.entries = entries;
  }

  get(key: string): Value | undefined {
    return this.entries.find(([name]) => name === key)?.[1];
  }

  /** The same with the value in its place, or behind all others. */
  with(key: string, value: Value): Dict {
    if (this.get(key) === undefined) return new Dict([...this.entries, [key, value]]);
    return new Dict(this.entries.map(([name, old]) => [name, name === key ? value : old]));
  }

  without(key: string): Dict {
    return new Dict(this.entries.filter(([name]) => name !== key));
  }

  /** The same with one more, whether its key is there or not. */
  and(key: Key, value: Value): Dict {
    return new Dict([...this.entries, [key, value]]);
  }
}

/** Bytes of msgpack that stand for something JSON lacks, or is written in a way that was chosen. */
export class Packed {
  readonly bytes: Uint8Array;
  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }
}

/** Bytes that stand where a value of JSON should, and are none. */
export class Junk {
  readonly bytes: Uint8Array;
  constructor(bytes: Uint8Array | string) {
    this.bytes = typeof bytes === 'string' ? Buffer.from(bytes) : bytes;
  }
}

export type Key = string | Num | boolean | null | Packed | Junk;
export type Entry = readonly [Key, Value];
export type Value = string | boolean | null | Num | Dict | Packed | Junk | readonly Value[];

export const num = (digits: string | number): Num => new Num(String(digits));
export const dict = (...entries: Entry[]): Dict => new Dict(entries);
export const isList = (value: Value | Key | undefined): value is readonly Value[] => Array.isArray(value);

/** Every value in a value, itself included, keys too. */
export function within(value: Value): (Value | Key)[] {
  const found: (Value | Key)[] = [];
  const left: (Value | Key)[] = [value];
  for (let one = left.pop(); one !== undefined; one = left.pop()) {
    found.push(one);
    if (isList(one)) left.push(...one);
    if (one instanceof Dict) for (const entry of one.entries) left.push(...entry);
  }
  return found;
}

/** Chance by a seed: the same seed, the same throws. */
export class Dice {
  #state = 1;

  constructor(seed: number) {
    this.begin(seed);
  }

  begin(seed: number): void {
    this.#state = (seed ^ 0x5eed_0bad) | 0 || 1;
    for (let warm = 0; warm < 8; warm++) this.below(2);
  }

  /** A whole number of 0 and up. */
  below(bound: number): number {
    let state = this.#state;
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    this.#state = state;
    return (state >>> 0) % bound;
  }

  oneIn(chances: number): boolean {
    return this.below(chances) === 0;
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)]!;
  }
}

/** A number as it is kept: `mantissa`e-`scale` in the shortest form; null when it cannot be. */
export function keptNumber(digits: string): string | null {
  const [, minus, whole, fraction = '', exponent = '0'] =
    /^(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([-+]?[0-9]+))?$/.exec(digits)!;
  let figures = (whole! + fraction).replace(/^0+/, '');
  if (figures === '') return '0e-0';
  const zeros = /0*$/.exec(figures)![0].length;
  figures = figures.slice(0, figures.length - zeros);
  let scale = BigInt(fraction.length) - BigInt(exponent) - BigInt(zeros);
  if (scale > 9n || scale < -20n) return null;
  for (; scale < 0n; scale++) figures += '0';
  return BigInt(figures) > 9_007_199_254_740_991n ? null : `${minus}${figures}e-${scale}`;
}

/** Whether a double carries the number to the other side: msgpack has no digits. */
export function fitsDouble(digits: string): boolean {
  const kept = keptNumber(digits);
  if (kept === null) return false;
  const [mantissa, scale] = kept.split('e-') as [string, string];
  return scale === '0' || mantissa.replace('-', '').length <= 15;
}

export type Field = readonly [path: string, kind: 'text' | 'number' | 'literal', value: string];

/** What must be stored of an event. */
export interface Stored {
  readonly id: string;
  readonly source: string;
  readonly type: string;
  readonly subject: string;
  /** Null: the time of acceptance. */
  readonly timeMs: number | null;
  /** By path. */
  readonly fields: readonly Field[];
}

/** One line that is the same for the same event, whoever read it. */
export function lineOf(stored: Stored): string {
  const { id, source, type, subject, timeMs, fields } = stored;
  const sorted = [...fields].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  return JSON.stringify([id, source, type, subject, timeMs, sorted]);
}

/** One way to write values down. */
export interface Writer {
  write(value: Value): Buffer;
  /** The text that is kept of an array that it wrote. */
  literal(list: readonly Value[]): string;
}

/** For the identity of the original of a correction, whose hash is not said here a second time. */
export const TARGET = '\0'.repeat(36);

/** What must be stored of an admitted event that the writer wrote. */
export function storedOf(event: Dict, writer: Writer, timeMs?: number): Stored {
  const text = (name: string): string => {
    const value = event.get(name);
    return typeof value === 'string' ? value : '';
  };
  const time = event.get('time');
  const given = typeof time === 'string' ? (timeMs ?? Date.parse(time)) : null;
  if (Number.isNaN(given)) throw new Error(`what instant is ${String(time)}?`);
  const fields: Field[] = [];
  const data = event.get('data');
  if (data instanceof Dict) flatten(data, null, writer, fields);
  const [voids, amends] = [text('voids'), text('amends')];
  if (voids !== '') fields.push(['tallyline.voids', 'text', voids]);
  if (amends !== '') fields.push(['tallyline.amends', 'text', amends]);
  if (voids + amends !== '') fields.push(['tallyline.target', 'text', TARGET]);
  return {
    id: text('id'),
    source: text('source'),
    type: voids === '' ? text('type') : 'tallyline.void',
    subject: text('subject'),
    timeMs: given,
    fields,
  };
}

function flatten(object: Dict, prefix: string | null, writer: Writer, fields: Field[]): void {
  for (const [key, value] of object.entries) {
    const path = prefix === null ? String(key) : `${prefix}.${String(key)}`;
    if (value instanceof Dict) {
      if (value.entries.length > 0) flatten(value, path, writer, fields);
      else fields.push([path, 'literal', '{}']);
    } else if (typeof value === 'string') fields.push([path, 'text', value]);
    else if (value instanceof Num) fields.push([path, 'number', String(keptNumber(value.digits))]);
    else if (isList(value)) fields.push([path, 'literal', writer.literal(value)]);
    else if (value === null || typeof value === 'boolean') fields.push([path, 'literal', String(value)]);
    else if (value instanceof Packed)
      fields.push([path, 'number', keptNumber(String(unpacked(value.bytes)))!]);
    else throw new Error(`nothing is stored of ${path}`);
  }
}

/** A number that was written in a form of its own: 64 bits of an integer or a double that is one. */
export function unpacked(bytes: Uint8Array): number | bigint {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const read: Readonly<Record<number, () => number | bigint>> = {
    0xca: () => view.getFloat32(1),
    0xcb: () => view.getFloat64(1),
    0xcf: () => view.getBigUint64(1),
    0xd3: () => view.getBigInt64(1),
  };
  return read[bytes[0]!]!();
}
