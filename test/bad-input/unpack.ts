/**
 * msgpack decoded as slowly as it can be said (https://github.com/msgpack/msgpack/blob/master/spec.md), into the tokens
 * that test/json-model.ts judges: what the same event would be in JSON. Used where bytes were changed at random and
 * nobody knows what they say.
 */
import type { Node } from '../json-model.ts';
import { fitsDouble } from './values.ts';

export interface Unpacked {
  readonly node: Node;
  /** Something is in it that JSON cannot say: the event is refused, with one code or another. */
  readonly isOdd: boolean;
}

class Broken extends Error {}

/** The events of a body; null when it is no msgpack, or not only one value. */
export function unpackEvents(body: Uint8Array): Unpacked[] | null {
  const decoder = new Decoder(body);
  try {
    const events = decoder.events();
    return decoder.at === body.length ? events : null;
  } catch (error) {
    if (error instanceof Broken) return null;
    throw error;
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const WORDS: Readonly<Record<number, string>> = { 0xc0: 'null', 0xc2: 'false', 0xc3: 'true' };

class Decoder {
  at = 0;
  #isOdd = false;
  readonly #bytes: Buffer;

  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes);
  }

  events(): Unpacked[] {
    const head = this.#bytes[0] ?? 0xc1;
    const isList = (head & 0xf0) === 0x90 || head === 0xdc || head === 0xdd;
    let count = 1;
    if (isList) {
      this.at = 1;
      count = head < 0xc0 ? head & 0x0f : Number(this.#unsigned(head === 0xdc ? 2 : 4));
    }
    const events: Unpacked[] = [];
    for (let index = 0; index < count; index++) {
      this.#isOdd = false;
      const node = this.#value();
      events.push({ node, isOdd: this.#isOdd });
    }
    return events;
  }

  #take(length: number): Buffer {
    if (this.at + length > this.#bytes.length) throw new Broken();
    this.at += length;
    return this.#bytes.subarray(this.at - length, this.at);
  }

  #unsigned(bytes: number): bigint {
    return BigInt(`0x${this.#take(bytes).toString('hex')}`);
  }

  #value(): Node {
    const head = this.#take(1)[0]!;
    if (head < 0x80) return number(String(head));
    if (head < 0x90) return this.#map(head & 0x0f);
    if (head < 0xa0) return this.#list(head & 0x0f);
    if (head < 0xc0) return this.#text(head & 0x1f);
    if (head >= 0xe0) return number(String(head - 256));
    const word = WORDS[head];
    if (word !== undefined) return { kind: 'word', raw: word };
    const size = 1 << (head & 0x03);
    switch (head) {
      case 0xc4:
      case 0xc5:
      case 0xc6:
        return this.#odd(Number(this.#unsigned(1 << (head - 0xc4))));
      case 0xc7:
      case 0xc8:
      case 0xc9:
        return this.#odd(Number(this.#unsigned(1 << (head - 0xc7))) + 1);
      case 0xca:
        return this.#double(this.#take(4).readFloatBE());
      case 0xcb:
        return this.#double(this.#take(8).readDoubleBE());
      case 0xcc:
      case 0xcd:
      case 0xce:
      case 0xcf:
        return this.#integer(this.#unsigned(size));
      case 0xd0:
      case 0xd1:
      case 0xd2:
      case 0xd3:
        return this.#integer(BigInt.asIntN(size * 8, this.#unsigned(size)));
      case 0xd4:
      case 0xd5:
      case 0xd6:
      case 0xd7:
      case 0xd8:
        return this.#odd((1 << (head - 0xd4)) + 1);
      case 0xd9:
      case 0xda:
      case 0xdb:
        return this.#text(Number(this.#unsigned(1 << (head - 0xd9))));
      case 0xdc:
      case 0xdd:
        return this.#list(Number(this.#unsigned(head === 0xdc ? 2 : 4)));
      case 0xde:
      case 0xdf:
        return this.#map(Number(this.#unsigned(head === 0xde ? 2 : 4)));
      default:
        throw new Broken();
    }
  }

  /** Steps over what has no place in JSON. */
  #odd(length: number): Node {
    this.#take(length);
    this.#isOdd = true;
    return { kind: 'word', raw: 'null' };
  }

  #text(length: number): Node & { readonly kind: 'string' } {
    const bytes = this.#take(length);
    let value = '\ud800'; // what is no UTF-8 meets the fate of what is no Unicode
    try {
      value = utf8.decode(bytes);
    } catch {
      if (length > 256) this.#isOdd = true; // its length may be what is told
    }
    return { kind: 'string', raw: JSON.stringify(value), value };
  }

  #double(value: number): Node {
    const digits = Object.is(value, -0) ? '0' : String(value);
    if (Number.isFinite(value) && fitsDouble(digits)) return number(JSON.stringify(value));
    this.#isOdd = true;
    return number('0');
  }

  #integer(value: bigint): Node {
    if (value > 9_007_199_254_740_991n || value < -9_007_199_254_740_991n) this.#isOdd = true;
    return number(String(value));
  }

  #list(count: number): Node {
    if (count > this.#bytes.length) throw new Broken();
    return { kind: 'array', items: Array.from({ length: count }, () => this.#value()) };
  }

  #map(count: number): Node {
    if (count > this.#bytes.length) throw new Broken();
    const entries = Array.from({ length: count }, () => {
      const key = this.#value();
      if (key.kind !== 'string') this.#isOdd = true;
      const text = key.kind === 'string' ? key : ({ kind: 'string', raw: '""', value: '' } as const);
      return [text, this.#value()] as const;
    });
    return { kind: 'object', entries };
  }
}

const number = (raw: string): Node => ({ kind: 'number', raw });
