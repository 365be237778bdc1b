// The identities of contract/identity.ts: four events at a time, one in each lane of a vector, where neighbours have one
// source and ids of one length, as they nearly always do; else one by one.
import { copy, same } from './bytes';
import * as m from './memory';

const ROUNDS = 12;
/** Of one message behind the whole blocks of its prefix: 15 bytes of it, a length, an id, and what fills the block. */
export const LANE_BYTES = 320;
/** What messages have room for; no reader takes longer ones. */
const ID_MAX: i32 = 256;
const SOURCE_MAX: i32 = 1_024;
/** No shard: the event is none for this writer. */
export const NO_SHARD: u32 = 0xffff_ffff;

let tenantEnd: i32 = 0;
/** 0: no source was hashed since the tenant changed. */
let prefixEnd: i32 = 0;
let p0: u32 = 0;
let p1: u32 = 0;
let p2: u32 = 0;
let p3: u32 = 0;
let isPowerOfTwo: bool = false;
let first: u64 = 0;
let second: u64 = 0;
let third: u64 = 0;

export function setShards(): void {
  const shards = <u64>m.shards;
  isPowerOfTwo = (shards & (shards - 1)) == 0;
  first = 0x1_0000_0000 % shards;
  second = (first * first) % shards;
  third = (second * first) % shards;
}

/** The tenant whose name, of so many bytes, stands at `tenant`. */
export function turnTo(length: i32): void {
  store<i32>(m.prefix, length);
  copy(m.prefix + 4, m.tenant, length);
  tenantEnd = 4 + length;
  prefixEnd = 0;
}

// @ts-ignore: decorator
@inline
function setPrefix(source: usize, length: i32): void {
  const begin = tenantEnd + 4;
  if (prefixEnd - begin == length && same(m.prefix + begin, source, length)) return;
  begin_(source, length);
}

function begin_(source: usize, length: i32): void {
  const begin = tenantEnd + 4;
  store<i32>(m.prefix + begin - 4, length);
  copy(m.prefix + begin, source, length);
  prefixEnd = begin + length;
  p0 = load<u32>(m.key);
  p1 = load<u32>(m.key, 4);
  p2 = load<u32>(m.key, 8);
  p3 = load<u32>(m.key, 12);
  const whole = prefixEnd & ~15;
  for (let at = 0; at < whole; at += 16) {
    const block = m.prefix + at;
    permute(load<u32>(block), load<u32>(block, 4), load<u32>(block, 8), load<u32>(block, 12));
  }
}

/** Takes one block into p0 to p3. */
function permute(m0: u32, m1: u32, m2: u32, m3: u32): void {
  let v0 = p0 ^ m0;
  let v1 = p1 ^ m1;
  let v2 = p2 ^ m2;
  let v3 = p3 ^ m3;
  for (let round = 0; round < ROUNDS; round++) {
    v0 += v1;
    v1 = rotl<u32>(v1, 5) ^ v0;
    v0 = rotl<u32>(v0, 16);
    v2 += v3;
    v3 = rotl<u32>(v3, 8) ^ v2;
    v0 += v3;
    v3 = rotl<u32>(v3, 13) ^ v0;
    v2 += v1;
    v1 = rotl<u32>(v1, 7) ^ v2;
    v2 = rotl<u32>(v2, 16);
  }
  p0 = v0;
  p1 = v1;
  p2 = v2;
  p3 = v3;
}

/** Writes the message of one event behind the whole blocks of its prefix, filled up to whole blocks. */
// @ts-ignore: decorator
@inline
function writeTail(lane: usize, id: usize, length: i32): void {
  const rest = prefixEnd & 15;
  v128.store(lane, v128.load(m.prefix + (prefixEnd & ~15)));
  store<i32>(lane + rest, length);
  copy(lane + rest + 4, id, length);
  const end = lane + rest + 4 + length;
  v128.store(end, i32x4.splat(0));
  if (((rest + 4 + length) & 15) != 0) store<u8>(end, 1);
}

export function identify(from: i32, to: i32): void {
  let event = from;
  while (event < to) {
    const attributes = <usize>event * 16;
    const source = load<u32>(m.start + attributes, 4);
    const sourceLength = load<u32>(m.end + attributes, 4) - source;
    const length = <i32>(load<u32>(m.end + attributes) - load<u32>(m.start + attributes));
    if (<i32>sourceLength > SOURCE_MAX || length > ID_MAX) {
      store<u32>(m.shardOf + <usize>event * 4, NO_SHARD);
      event += 1;
      continue;
    }
    setPrefix(m.bytes + source, sourceLength);
    if (event + 4 <= to && isAlike(event + 1, length) && isAlike(event + 2, length) && isAlike(event + 3, length)) {
      four(event, length);
      event += 4;
    } else {
      one(event, length);
      event += 1;
    }
  }
}

// @ts-ignore: decorator
@inline
function isAlike(event: i32, length: i32): bool {
  const attributes = <usize>event * 16;
  if (<i32>(load<u32>(m.end + attributes) - load<u32>(m.start + attributes)) != length) return false;
  const source = load<u32>(m.start + attributes, 4);
  const sourceLength = load<u32>(m.end + attributes, 4) - source;
  const begin = tenantEnd + 4;
  return prefixEnd - begin == sourceLength && same(m.prefix + begin, m.bytes + source, sourceLength);
}

function one(event: i32, length: i32): void {
  const lane = m.lanes;
  writeTail(lane, m.bytes + load<u32>(m.start + <usize>event * 16), length);
  const s0 = p0;
  const s1 = p1;
  const s2 = p2;
  const s3 = p3;
  const tail = (prefixEnd & 15) + 4 + length;
  const mask = (tail & 15) == 0 ? m.key + 16 : m.key + 32;
  const k0 = load<u32>(mask);
  const k1 = load<u32>(mask, 4);
  const k2 = load<u32>(mask, 8);
  const k3 = load<u32>(mask, 12);
  const end = lane + ((tail + 15) & ~15);
  for (let at = lane; at < end; at += 16) {
    let m0 = load<u32>(at);
    let m1 = load<u32>(at, 4);
    let m2 = load<u32>(at, 8);
    let m3 = load<u32>(at, 12);
    if (at + 16 == end) {
      m0 ^= k0;
      m1 ^= k1;
      m2 ^= k2;
      m3 ^= k3;
    }
    permute(m0, m1, m2, m3);
  }
  const found = m.identity + <usize>event * 16;
  store<u32>(found, p0 ^ k0);
  store<u32>(found, p1 ^ k1, 4);
  store<u32>(found, p2 ^ k2, 8);
  store<u32>(found, p3 ^ k3, 12);
  p0 = s0;
  p1 = s1;
  p2 = s2;
  p3 = s3;
  setShard(event);
}

// @ts-ignore: decorator
@inline
function turned(v: v128, bits: i32): v128 {
  return v128.or(i32x4.shl(v, bits), i32x4.shr_u(v, 32 - bits));
}

// @ts-ignore: decorator
@inline
function turned16(v: v128): v128 {
  return i8x16.shuffle(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
}

// @ts-ignore: decorator
@inline
function turned8(v: v128): v128 {
  return i8x16.shuffle(v, v, 3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14);
}

function four(event: i32, length: i32): void {
  const lane = m.lanes;
  for (let which = 0; which < 4; which++) {
    const id = m.bytes + load<u32>(m.start + <usize>(event + which) * 16);
    writeTail(lane + which * LANE_BYTES, id, length);
  }
  const tail = (prefixEnd & 15) + 4 + length;
  const mask = (tail & 15) == 0 ? m.key + 16 : m.key + 32;
  const k0 = v128.load32_splat(mask);
  const k1 = v128.load32_splat(mask, 4);
  const k2 = v128.load32_splat(mask, 8);
  const k3 = v128.load32_splat(mask, 12);
  let v0 = i32x4.splat(p0);
  let v1 = i32x4.splat(p1);
  let v2 = i32x4.splat(p2);
  let v3 = i32x4.splat(p3);
  const end = lane + ((tail + 15) & ~15);
  for (let at = lane; at < end; at += 16) {
    // A block of each message, so that word n of all four stands in vector n.
    const a = v128.load(at);
    const b = v128.load(at, LANE_BYTES);
    const c = v128.load(at, LANE_BYTES * 2);
    const d = v128.load(at, LANE_BYTES * 3);
    const ab01 = i8x16.shuffle(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const ab23 = i8x16.shuffle(a, b, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    const cd01 = i8x16.shuffle(c, d, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const cd23 = i8x16.shuffle(c, d, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    v0 = v128.xor(v0, i8x16.shuffle(ab01, cd01, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23));
    v1 = v128.xor(v1, i8x16.shuffle(ab01, cd01, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31));
    v2 = v128.xor(v2, i8x16.shuffle(ab23, cd23, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23));
    v3 = v128.xor(v3, i8x16.shuffle(ab23, cd23, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31));
    if (at + 16 == end) {
      v0 = v128.xor(v0, k0);
      v1 = v128.xor(v1, k1);
      v2 = v128.xor(v2, k2);
      v3 = v128.xor(v3, k3);
    }
    for (let round = 0; round < ROUNDS; round++) {
      v0 = i32x4.add(v0, v1);
      v1 = v128.xor(turned(v1, 5), v0);
      v0 = turned16(v0);
      v2 = i32x4.add(v2, v3);
      v3 = v128.xor(turned8(v3), v2);
      v0 = i32x4.add(v0, v3);
      v3 = v128.xor(turned(v3, 13), v0);
      v2 = i32x4.add(v2, v1);
      v1 = v128.xor(turned(v1, 7), v2);
      v2 = turned16(v2);
    }
  }
  v0 = v128.xor(v0, k0);
  v1 = v128.xor(v1, k1);
  v2 = v128.xor(v2, k2);
  v3 = v128.xor(v3, k3);
  const low01 = i8x16.shuffle(v0, v1, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  const high01 = i8x16.shuffle(v0, v1, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
  const low23 = i8x16.shuffle(v2, v3, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  const high23 = i8x16.shuffle(v2, v3, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
  const found = m.identity + <usize>event * 16;
  v128.store(found, i8x16.shuffle(low01, low23, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23));
  v128.store(found, i8x16.shuffle(low01, low23, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31), 16);
  v128.store(found, i8x16.shuffle(high01, high23, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23), 32);
  v128.store(found, i8x16.shuffle(high01, high23, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31), 48);
  setShard(event);
  setShard(event + 1);
  setShard(event + 2);
  setShard(event + 3);
}

/** hash128 mod S. Each word times a power is less than 2^48. */
// @ts-ignore: decorator
@inline
function setShard(event: i32): void {
  const words = m.identity + <usize>event * 16;
  const last = load<u32>(words, 12);
  let shard: u32;
  if (isPowerOfTwo) shard = last & (m.shards - 1);
  else {
    const sum =
      <u64>load<u32>(words) * third + <u64>load<u32>(words, 4) * second + <u64>load<u32>(words, 8) * first + last;
    shard = <u32>(sum % <u64>m.shards);
  }
  store<u32>(m.shardOf + <usize>event * 4, shard);
}
