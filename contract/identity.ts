/**
 * The identity of an event: a keyed 128-bit hash over (tenant, source, id), each field preceded by its
 * length, so that ("ab", "c") and ("a", "bc") differ. Two events with one identity are one event.
 *
 * The hash is Chaskey-12 (N. Mouha et al., "Chaskey: An Efficient MAC Algorithm for 32-bit
 * Microcontrollers", SAC 2014; ISO/IEC 29192-6): a pseudo-random function with a 128-bit result that
 * needs only 32-bit additions, rotations and XORs, which is what a JavaScript engine does fast. It is
 * keyed so that nobody who chooses ids can make two of them collide, in his own tenant or in another's.
 * The key belongs to the deployment and never changes: another key would count every event again.
 */

const ROUNDS = 12;

/** Hashes identities with one key. The four words of the last result are in `words` until the next call. */
export class IdentityHasher {
  readonly words = new Uint32Array(4);
  readonly #key: Uint32Array;
  readonly #whole: Uint32Array;
  readonly #partial: Uint32Array;
  readonly #encoder = new TextEncoder();
  #buffer = new Uint8Array(4096);
  #length = 0;

  /** @param key 16 bytes as 32 hexadecimal digits. */
  constructor(key: string) {
    if (!/^[0-9a-f]{32}$/.test(key))
      throw new Error('the identity key must be 32 lower-case hexadecimal digits');
    const bytes = Uint8Array.from({ length: 16 }, (_, at) =>
      Number.parseInt(key.slice(at * 2, at * 2 + 2), 16),
    );
    const view = new DataView(bytes.buffer);
    this.#key = Uint32Array.from([0, 4, 8, 12], (at) => view.getUint32(at, true));
    this.#whole = double(this.#key);
    this.#partial = double(this.#whole);
  }

  /** Sets `words`; the fields are well-formed strings. */
  hash(tenant: string, source: string, id: string): void {
    this.#length = 0;
    this.#append(tenant);
    this.#append(source);
    this.#append(id);
    chaskey(this.#buffer, this.#length, this.#key, this.#whole, this.#partial, this.words);
  }

  #append(field: string): void {
    const start = this.#length + 4;
    if (start + field.length * 3 > this.#buffer.length) {
      const larger = new Uint8Array((start + field.length * 3) * 2);
      larger.set(this.#buffer);
      this.#buffer = larger;
    }
    const end = writeText(this.#buffer, start, field, this.#encoder);
    const length = end - start;
    this.#buffer[start - 4] = length;
    this.#buffer[start - 3] = length >>> 8;
    this.#buffer[start - 2] = length >>> 16;
    this.#buffer[start - 1] = length >>> 24;
    this.#length = end;
  }
}

/** Writes UTF-8 and returns the end. Short ASCII, which nearly every id is, does without the encoder's call. */
export function writeText(
  target: Uint8Array,
  start: number,
  text: string,
  encoder: InstanceType<typeof TextEncoder>,
): number {
  const length = text.length;
  if (length <= 64) {
    let at = 0;
    for (; at < length; at++) {
      const unit = text.charCodeAt(at);
      if (unit >= 0x80) break;
      target[start + at] = unit;
    }
    if (at === length) return start + length;
  }
  return start + encoder.encodeInto(text, target.subarray(start)).written;
}

/** The MAC of `bytes[0, length)` into `out`. Exported for its test against an independent model. */
export function chaskey(
  bytes: Uint8Array,
  length: number,
  key: Uint32Array,
  whole: Uint32Array,
  partial: Uint32Array,
  out: Uint32Array,
): void {
  let v0 = key[0]!;
  let v1 = key[1]!;
  let v2 = key[2]!;
  let v3 = key[3]!;
  const last = length === 0 ? 0 : (length - 1) & ~15;
  const complete = length !== 0 && (length & 15) === 0;
  const mask = complete ? whole : partial;
  for (let at = 0; at <= last; at += 16) {
    if (at < last || complete) {
      v0 ^= word(bytes, at);
      v1 ^= word(bytes, at + 4);
      v2 ^= word(bytes, at + 8);
      v3 ^= word(bytes, at + 12);
    } else {
      v0 ^= paddedWord(bytes, at, length);
      v1 ^= paddedWord(bytes, at + 4, length);
      v2 ^= paddedWord(bytes, at + 8, length);
      v3 ^= paddedWord(bytes, at + 12, length);
    }
    if (at === last) {
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
  out[0] = v0 ^ mask[0]!;
  out[1] = v1 ^ mask[1]!;
  out[2] = v2 ^ mask[2]!;
  out[3] = v3 ^ mask[3]!;
}

function word(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
}

/** A word of the last, short block: the message, one byte 0x01, zeros. */
function paddedWord(bytes: Uint8Array, at: number, length: number): number {
  let result = 0;
  for (let byte = 0; byte < 4; byte++) {
    const index = at + byte;
    const value = index < length ? bytes[index]! : index === length ? 1 : 0;
    result |= value << (8 * byte);
  }
  return result;
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

/** hash128 mod S, S being at most 2^16: any owner of the key puts an event on the same shard. */
export function shardOf(words: ArrayLike<number>, shards: number): number {
  let rest = 0;
  for (let at = 0; at < 4; at++) rest = (rest * 2 ** 32 + (words[at]! >>> 0)) % shards;
  return rest;
}

const hex = (value: number): string => (value >>> 0).toString(16).padStart(8, '0');

/** The identity in the form in which ClickHouse shows it (UUID notation; it is no RFC 9562 UUID). */
export function formatIdentity(words: ArrayLike<number>, at = 0): string {
  const [a, b, c, d] = [hex(words[at]!), hex(words[at + 1]!), hex(words[at + 2]!), hex(words[at + 3]!)];
  return `${a}-${b.slice(0, 4)}-${b.slice(4)}-${c.slice(0, 4)}-${c.slice(4)}${d}`;
}

export function parseIdentity(text: string): Uint32Array {
  const digits = text.replaceAll('-', '');
  return Uint32Array.from([0, 8, 16, 24], (at) => Number.parseInt(digits.slice(at, at + 8), 16));
}
