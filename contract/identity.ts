/**
 * The identity of an event: a keyed 128-bit hash over (tenant, source, id), each field preceded by its
 * length, so that ("ab", "c") and ("a", "bc") differ. Two events with one identity are one event.
 *
 * The hash is Chaskey-12 (N. Mouha et al., "Chaskey: An Efficient MAC Algorithm for 32-bit
 * Microcontrollers", SAC 2014; ISO/IEC 29192-6): a pseudo-random function with a 128-bit result that
 * needs only 32-bit additions, rotations and XORs, which is what a JavaScript engine does fast. It is
 * keyed so that nobody who chooses ids can make two of them collide, in his own tenant or in another's.
 * The key belongs to the deployment and never changes: another key would count every event again.
 *
 * A correction has an identity too, over (tenant, source, id of the original, id): one field more. No event can have
 * it. A reader of the message takes one field after the other by its length, so no message of three fields is one of
 * four; and two messages have one hash by chance alone. So a correction sent again is a duplicate, its id is its own
 * among the corrections of one original only, and it can be no correction's target: a target is always the hash of
 * three fields.
 */

import { copyWords, sameWords } from './byte-words.ts';

const ROUNDS = 12;
/** A multiple of 16, room for a name of a tenant and a source as they are. */
const PREFIX_BYTES_FIRST = 1_024;

/**
 * Hashes identities with one key.
 *
 * Neighbours mostly have one tenant and one source, which stand before the id: the state behind their whole
 * 16-byte blocks is kept, and each event pays for the blocks with bytes of its id.
 */
export class IdentityHasher {
  readonly #chaskey: Chaskey;
  /** The message: tenant and source of the last call with their lengths, the prefix, and behind it the id. */
  #bytes = new Uint8Array(PREFIX_BYTES_FIRST);
  #words = new Int32Array(this.#bytes.buffer);
  #view = new DataView(this.#bytes.buffer);
  #tenantEnd = 4; // the tenant "", until `turnTo`
  /** 0: no source was hashed since the tenant changed. */
  #prefixEnd = 0;
  /** The state behind the whole blocks of the prefix. */
  readonly #state = new Int32Array(4);

  /** @param key 16 bytes as 32 hexadecimal digits. */
  constructor(key: string) {
    if (!/^[0-9a-f]{32}$/.test(key))
      throw new Error('the identity key must be 32 lower-case hexadecimal digits');
    const bytes = Uint8Array.from({ length: 16 }, (_, at) =>
      Number.parseInt(key.slice(at * 2, at * 2 + 2), 16),
    );
    const view = new DataView(bytes.buffer);
    this.#chaskey = new Chaskey(Uint32Array.from([0, 4, 8, 12], (at) => view.getUint32(at, true)));
  }

  /** From now on the events are this tenant's, UTF-8. */
  turnTo(tenant: Uint8Array): void {
    const { length } = tenant;
    if (this.#tenantEnd === 4 + length && isAt(this.#bytes, 4, tenant)) return;
    this.#reserve(4 + length);
    this.#view.setInt32(0, length, true);
    this.#bytes.set(tenant, 4);
    this.#tenantEnd = 4 + length;
    this.#prefixEnd = 0;
  }

  /**
   * Sets the four words of `out` from `outAt` on: the identity of the event whose source is
   * `view[sourceStart, sourceEnd)` and whose id is `view[idStart, idEnd)`, UTF-8, with slack behind them
   * (byte-words.ts).
   */
  hash(
    view: DataView,
    sourceStart: number,
    sourceEnd: number,
    idStart: number,
    idEnd: number,
    out: Uint32Array,
    outAt = 0,
  ): void {
    if (!this.#isSource(view, sourceStart, sourceEnd)) this.#begin(view, sourceStart, sourceEnd);
    const start = this.#prefixEnd + 4;
    const end = start + idEnd - idStart;
    this.#reserve(end);
    this.#view.setInt32(start - 4, idEnd - idStart, true);
    copyWords(view, idStart, idEnd, this.#view, start);
    this.#chaskey.finish(this.#words, this.#bytes, this.#prefixEnd & ~15, end, this.#state, out, outAt);
  }

  /**
   * The same for the correction whose original has that source and the id `view[originalStart, originalEnd)`, and whose
   * own id is `view[idStart, idEnd)`.
   */
  hashCorrection(
    view: DataView,
    sourceStart: number,
    sourceEnd: number,
    originalStart: number,
    originalEnd: number,
    idStart: number,
    idEnd: number,
    out: Uint32Array,
    outAt = 0,
  ): void {
    if (!this.#isSource(view, sourceStart, sourceEnd)) this.#begin(view, sourceStart, sourceEnd);
    const original = this.#prefixEnd + 4;
    const start = original + originalEnd - originalStart + 4;
    const end = start + idEnd - idStart;
    this.#reserve(end);
    // In this order: a copy writes up to 3 bytes behind the text.
    this.#view.setInt32(original - 4, originalEnd - originalStart, true);
    copyWords(view, originalStart, originalEnd, this.#view, original);
    this.#view.setInt32(start - 4, idEnd - idStart, true);
    copyWords(view, idStart, idEnd, this.#view, start);
    this.#chaskey.finish(this.#words, this.#bytes, this.#prefixEnd & ~15, end, this.#state, out, outAt);
  }

  #isSource(view: DataView, start: number, end: number): boolean {
    const begin = this.#tenantEnd + 4;
    const length = end - start;
    return this.#prefixEnd - begin === length && sameWords(this.#view, begin, view, start, length);
  }

  #begin(view: DataView, start: number, end: number): void {
    const begin = this.#tenantEnd + 4;
    const prefixEnd = begin + end - start;
    this.#reserve(prefixEnd);
    this.#view.setInt32(begin - 4, end - start, true);
    copyWords(view, start, end, this.#view, begin);
    this.#prefixEnd = prefixEnd;
    this.#chaskey.begin(this.#words, prefixEnd & ~15, this.#state);
  }

  /** Room for a message of `length` bytes and what the last block is filled up with. */
  #reserve(length: number): void {
    if (length + 16 > this.#bytes.length) this.#grow(length + 16);
  }

  #grow(least: number): void {
    const larger = new Uint8Array((least * 2 + 15) & ~15);
    larger.set(this.#bytes);
    this.#bytes = larger;
    this.#words = new Int32Array(larger.buffer);
    this.#view = new DataView(larger.buffer);
  }
}

function isAt(bytes: Uint8Array, start: number, text: Uint8Array): boolean {
  for (let at = 0; at < text.length; at++) if (bytes[start + at] !== text[at]) return false;
  return true;
}

/** The MAC with one key. Messages stand at the beginning of aligned memory, seen as bytes and as words. */
export class Chaskey {
  readonly #key: Int32Array;
  readonly #whole: Int32Array;
  readonly #partial: Int32Array;

  constructor(key: Uint32Array) {
    const whole = double(key);
    this.#key = new Int32Array(key);
    this.#whole = new Int32Array(whole);
    this.#partial = new Int32Array(double(whole));
  }

  /** Sets `state` to what it is behind `length` bytes, which are whole blocks and not the end of the message. */
  begin(words: Int32Array, length: number, state: Int32Array): void {
    state.set(this.#key);
    if (length > 0) permute(words, 0, length / 4, state, NO_MASK, state, 0);
  }

  /**
   * The MAC of the message of `length` bytes, whose `state` behind its first `from` bytes is known. Writes up to 15
   * bytes behind its end.
   */
  finish(
    words: Int32Array,
    bytes: Uint8Array,
    from: number,
    length: number,
    state: Int32Array,
    out: Uint32Array,
    outAt: number,
  ): void {
    let mask = this.#whole;
    let end = length;
    if ((length & 15) !== 0 || length === 0) {
      mask = this.#partial;
      bytes[end++] = 1;
      while ((end & 15) !== 0) bytes[end++] = 0;
    }
    permute(words, from / 4, end / 4, state, mask, out, outAt);
  }
}

const NO_MASK = new Int32Array(4);

/** Takes in the words `[from, end)`, four at a time, the last four with the mask, and writes the state with it. */
function permute(
  words: Int32Array,
  from: number,
  end: number,
  state: Int32Array,
  mask: Int32Array,
  out: Uint32Array | Int32Array,
  outAt: number,
): void {
  let v0 = state[0]!;
  let v1 = state[1]!;
  let v2 = state[2]!;
  let v3 = state[3]!;
  for (let at = from; at < end; at += 4) {
    v0 ^= words[at]!;
    v1 ^= words[at + 1]!;
    v2 ^= words[at + 2]!;
    v3 ^= words[at + 3]!;
    if (at + 4 === end) {
      v0 ^= mask[0]!;
      v1 ^= mask[1]!;
      v2 ^= mask[2]!;
      v3 ^= mask[3]!;
    }
    for (let round = 0; round < ROUNDS; round++) {
      v0 = (v0 + v1) | 0;
      v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
      v0 = (v0 << 16) | (v0 >>> 16);
      v2 = (v2 + v3) | 0;
      v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
      v0 = (v0 + v3) | 0;
      v3 = ((v3 << 13) | (v3 >>> 19)) ^ v0;
      v2 = (v2 + v1) | 0;
      v1 = ((v1 << 7) | (v1 >>> 25)) ^ v2;
      v2 = (v2 << 16) | (v2 >>> 16);
    }
  }
  out[outAt] = v0 ^ mask[0]!;
  out[outAt + 1] = v1 ^ mask[1]!;
  out[outAt + 2] = v2 ^ mask[2]!;
  out[outAt + 3] = v3 ^ mask[3]!;
}

/** Multiplication by x in GF(2^128), as the algorithm derives its two masks from the key. */
export function double(key: Uint32Array): Uint32Array {
  const carry = key[3]! >>> 31 === 1 ? 0x87 : 0;
  return Uint32Array.from([
    (key[0]! << 1) ^ carry,
    (key[1]! << 1) | (key[0]! >>> 31),
    (key[2]! << 1) | (key[1]! >>> 31),
    (key[3]! << 1) | (key[2]! >>> 31),
  ]);
}

/**
 * The shard of an event: hash128 mod S, the first word highest, so that any owner of the key puts an event on the
 * same shard.
 */
export class ShardRule {
  /** S, at most 2^16. */
  readonly shards: number;
  readonly #inverse: number;
  // Powers of 2^32 modulo S.
  readonly #first: number;
  readonly #second: number;
  readonly #third: number;

  constructor(shards: number) {
    this.shards = shards;
    this.#inverse = 1 / shards;
    this.#first = 2 ** 32 % shards;
    this.#second = (this.#first * this.#first) % shards;
    this.#third = (this.#second * this.#first) % shards;
  }

  /**
   * The shard of the identity in `words[at, at + 4)`. All in doubles, which is exact: each word times a power is less
   * than 2^48, their sum less than 2^50, and the quotient at most 1 off, which is put right.
   */
  of(words: Uint32Array, at = 0): number {
    const sum =
      words[at]! * this.#third +
      words[at + 1]! * this.#second +
      words[at + 2]! * this.#first +
      words[at + 3]!;
    const rest = sum - Math.floor(sum * this.#inverse) * this.shards;
    if (rest < 0) return rest + this.shards;
    return rest >= this.shards ? rest - this.shards : rest;
  }
}

const hex = (value: number): string => (value >>> 0).toString(16).padStart(8, '0');

/** The identity in the form in which ClickHouse shows it (UUID notation; it is no RFC 9562 UUID). */
export function formatIdentity(words: ArrayLike<number>, at = 0): string {
  const [a, b, c, d] = [hex(words[at]!), hex(words[at + 1]!), hex(words[at + 2]!), hex(words[at + 3]!)];
  return `${a}-${b.slice(0, 4)}-${b.slice(4)}-${c.slice(0, 4)}-${c.slice(4)}${d}`;
}

/** Bytes of the written form, which is ASCII. */
export const IDENTITY_TEXT_BYTES = 36;

export function parseIdentity(text: string): Uint32Array {
  const digits = text.replaceAll('-', '');
  return Uint32Array.from([0, 8, 16, 24], (at) => Number.parseInt(digits.slice(at, at + 8), 16));
}
