// The dictionaries of texts and shapes of one block, as contract/text-dictionary.ts and contract/shape-dictionary.ts
// have them, to the order in which texts get their numbers: blocks of both writers are the same bytes.
import { absorbHigh, absorbLow, copy, finish, hashText, same } from './bytes';
import * as m from './memory';
import {
  AT_LAST,
  AT_PATH_TEXT,
  AT_SHAPE_FIELDS,
  AT_SHAPE_HASH,
  AT_SHAPE_SEEDS,
  AT_SHAPE_SLOTS,
  AT_SHAPE_START,
  AT_TEXT_BYTES,
  AT_TEXT_HASH,
  AT_TEXT_SLOTS,
  AT_TEXT_START,
  AT_WANTED,
  LAST_FIELDS,
  LAST_SHAPE,
  SHAPES,
  SHAPE_BASE,
  SHAPE_CAPACITY,
  SHAPE_FIELDS,
  TEXTS,
  TEXT_BASE,
  TEXT_BYTES,
  TEXT_CAPACITY,
} from './state';

const PROBES_MAX = 32;
const START_FIELD_LOW: u32 = 0x13198a2e;
const START_FIELD_HIGH: u32 = 0x03707344;

// @ts-ignore: decorator
@inline
export function textOf(state: usize, from: usize, length: i32, guess: u32): u32 {
  if (guess < load<u32>(state, TEXTS)) {
    const bounds = load<usize>(state, AT_TEXT_START) + <usize>guess * 4;
    const begin = load<u32>(bounds);
    if (
      <i32>(load<u32>(bounds, 4) - begin) == length &&
      same(load<usize>(state, AT_TEXT_BYTES) + begin, from, length)
    )
      return guess;
  }
  return findText(state, from, length, hashText(from, length));
}

export function findText(state: usize, from: usize, length: i32, hash: u64): u32 {
  const slots = load<usize>(state, AT_TEXT_SLOTS);
  const hashes = load<usize>(state, AT_TEXT_HASH);
  const mask = load<u32>(state, TEXT_CAPACITY) * 4 - 1;
  const base = load<u32>(state, TEXT_BASE);
  const low = <u32>hash;
  let slot = low & mask;
  for (let probe = 0; probe < PROBES_MAX; probe++) {
    const serial = load<u32>(slots + <usize>slot * 4);
    if (serial <= base) {
      store<u32>(slots + <usize>slot * 4, base + load<u32>(state, TEXTS) + 1);
      return addText(state, from, length, hash);
    }
    const number = serial - base - 1;
    if (load<u32>(hashes + <usize>number * 8) == low) {
      const bounds = load<usize>(state, AT_TEXT_START) + <usize>number * 4;
      const begin = load<u32>(bounds);
      if (
        <i32>(load<u32>(bounds, 4) - begin) == length &&
        same(load<usize>(state, AT_TEXT_BYTES) + begin, from, length)
      )
        return number;
    }
    slot = (slot + 1) & mask;
  }
  return addText(state, from, length, hash);
}

// @ts-ignore: decorator
@inline
function addText(state: usize, from: usize, length: i32, hash: u64): u32 {
  const number = load<u32>(state, TEXTS);
  const begin = load<u32>(state, TEXT_BYTES);
  copy(load<usize>(state, AT_TEXT_BYTES) + begin, from, length);
  store<u64>(load<usize>(state, AT_TEXT_HASH) + <usize>number * 8, hash);
  store<u32>(load<usize>(state, AT_TEXT_START) + <usize>number * 4, begin + length, 4);
  store<u32>(state, begin + length, TEXT_BYTES);
  store<u32>(state, number + 1, TEXTS);
  if (number + 1 == load<u32>(state, TEXT_CAPACITY)) growTexts(state);
  return number;
}

function growTexts(state: usize): void {
  const texts = load<u32>(state, TEXTS);
  const capacity = texts * 2;
  store<u32>(state, capacity, TEXT_CAPACITY);
  const hashes = load<usize>(state, AT_TEXT_HASH);
  place(load<usize>(state, AT_TEXT_SLOTS), capacity, hashes, 8, texts, load<u32>(state, TEXT_BASE));
}

/** Begins a table of four slots an entry anew. `hashes` has a hash of 32 bits every `step` bytes. */
function place(slots: usize, capacity: u32, hashes: usize, step: usize, count: u32, base: u32): void {
  memory.fill(slots, 0, <usize>capacity * 16);
  const mask = capacity * 4 - 1;
  for (let number: u32 = 0; number < count; number++) {
    let slot = load<u32>(hashes + <usize>number * step) & mask;
    for (let probe = 0; probe < PROBES_MAX; probe++) {
      if (load<u32>(slots + <usize>slot * 4) == 0) {
        store<u32>(slots + <usize>slot * 4, base + number + 1);
        break;
      }
      slot = (slot + 1) & mask;
    }
  }
}

/** Whether the fields are of the shape of the last event. */
// @ts-ignore: decorator
@inline
export function isLastShape(state: usize, field: i32, count: i32): bool {
  if (load<i32>(state, LAST_SHAPE) < 0 || load<i32>(state, LAST_FIELDS) != count) return false;
  const last = load<usize>(state, AT_LAST);
  for (let at = 0; at < count; at++) {
    const pair = last + <usize>at * 8;
    if (load<u32>(pair) != load<u32>(m.path + <usize>(field + at) * 4)) return false;
    if (load<u32>(pair, 4) != load<u16>(m.code + <usize>(field + at) * 2)) return false;
  }
  return true;
}

/** A place among the fields whose path is not known here; -1 for none. */
export function unknownPlace(field: i32, count: i32): i32 {
  for (let at = 0; at < count; at++) {
    const place = load<u32>(m.path + <usize>(field + at) * 4);
    if (place >= <u32>m.pathsMax || load<u32>(m.paths + <usize>place * 16) == 0) return place;
  }
  return -1;
}

/** The number of the shape of the fields, whose paths are known. */
export function shapeOf(state: usize, field: i32, count: i32): i32 {
  const wanted = load<usize>(state, AT_WANTED);
  const last = load<usize>(state, AT_LAST);
  let hash: u32 = count;
  for (let at = 0; at < count; at++) {
    const place = load<u32>(m.path + <usize>(field + at) * 4);
    const code = <u32>load<u16>(m.code + <usize>(field + at) * 2);
    const text = pathText(state, place);
    store<u32>(wanted + <usize>at * 8, text);
    store<u32>(wanted + <usize>at * 8, code, 4);
    hash = absorbLow(hash, (text << 12) ^ code);
    store<u32>(last + <usize>at * 8, place);
    store<u32>(last + <usize>at * 8, code, 4);
  }
  const shape = findShape(state, field, count, finish(hash));
  store<i32>(state, shape, LAST_SHAPE);
  store<i32>(state, count, LAST_FIELDS);
  return shape;
}

function pathText(state: usize, place: u32): u32 {
  const known = load<usize>(state, AT_PATH_TEXT) + <usize>place * 4;
  const base = load<u32>(state, TEXT_BASE);
  const serial = load<u32>(known);
  if (serial > base) return serial - base - 1;
  const entry = m.paths + <usize>place * 16;
  const number = findText(state, load<u32>(entry), load<i32>(entry, 4), load<u64>(entry, 8));
  store<u32>(known, base + number + 1);
  return number;
}

function findShape(state: usize, field: i32, count: i32, hash: u32): u32 {
  const slots = load<usize>(state, AT_SHAPE_SLOTS);
  const hashes = load<usize>(state, AT_SHAPE_HASH);
  const mask = load<u32>(state, SHAPE_CAPACITY) * 4 - 1;
  const base = load<u32>(state, SHAPE_BASE);
  let slot = hash & mask;
  for (let probe = 0; probe < PROBES_MAX; probe++) {
    const serial = load<u32>(slots + <usize>slot * 4);
    if (serial <= base) {
      store<u32>(slots + <usize>slot * 4, base + load<u32>(state, SHAPES) + 1);
      return addShape(state, field, count, hash);
    }
    const number = serial - base - 1;
    if (load<u32>(hashes + <usize>number * 4) == hash && isShape(state, number, count)) return number;
    slot = (slot + 1) & mask;
  }
  return addShape(state, field, count, hash);
}

function isShape(state: usize, number: u32, count: i32): bool {
  const bounds = load<usize>(state, AT_SHAPE_START) + <usize>number * 4;
  const begin = load<u32>(bounds);
  if (<i32>(load<u32>(bounds, 4) - begin) != count) return false;
  return same(load<usize>(state, AT_SHAPE_FIELDS) + <usize>begin * 8, load<usize>(state, AT_WANTED), count * 8);
}

function addShape(state: usize, field: i32, count: i32, hash: u32): u32 {
  const number = load<u32>(state, SHAPES);
  const begin = load<u32>(state, SHAPE_FIELDS);
  const wanted = load<usize>(state, AT_WANTED);
  const fields = load<usize>(state, AT_SHAPE_FIELDS) + <usize>begin * 8;
  const seeds = load<usize>(state, AT_SHAPE_SEEDS) + <usize>begin * 8;
  for (let at = 0; at < count; at++) {
    const offset = <usize>at * 8;
    const entry = m.paths + <usize>load<u32>(m.path + <usize>(field + at) * 4) * 16;
    const code = load<u32>(wanted + offset, 4);
    store<u64>(fields + offset, load<u64>(wanted + offset));
    store<u32>(seeds + offset, absorbLow(absorbLow(START_FIELD_LOW, load<u32>(entry, 8)), code));
    store<u32>(seeds + offset, absorbHigh(absorbHigh(START_FIELD_HIGH, load<u32>(entry, 12)), code), 4);
  }
  store<u32>(load<usize>(state, AT_SHAPE_HASH) + <usize>number * 4, hash);
  store<u32>(load<usize>(state, AT_SHAPE_START) + <usize>number * 4, begin + count, 4);
  store<u32>(state, begin + count, SHAPE_FIELDS);
  store<u32>(state, number + 1, SHAPES);
  if (number + 1 == load<u32>(state, SHAPE_CAPACITY)) {
    const capacity = (number + 1) * 2;
    store<u32>(state, capacity, SHAPE_CAPACITY);
    const hashes = load<usize>(state, AT_SHAPE_HASH);
    place(load<usize>(state, AT_SHAPE_SLOTS), capacity, hashes, 4, number + 1, load<u32>(state, SHAPE_BASE));
  }
  return number;
}

/** After a block: everything is forgotten, and nothing is wiped until serial numbers run out. */
export function clearDictionaries(state: usize): void {
  const textBase = load<u32>(state, TEXT_BASE) + load<u32>(state, TEXTS);
  const shapeBase = load<u32>(state, SHAPE_BASE) + load<u32>(state, SHAPES);
  store<u32>(state, textBase, TEXT_BASE);
  store<u32>(state, 0, TEXTS);
  store<u32>(state, 0, TEXT_BYTES);
  store<u32>(state, shapeBase, SHAPE_BASE);
  store<u32>(state, 0, SHAPES);
  store<u32>(state, 0, SHAPE_FIELDS);
  store<i32>(state, -1, LAST_SHAPE);
  if (textBase >= 0xf000_0000) {
    store<u32>(state, 0, TEXT_BASE);
    memory.fill(load<usize>(state, AT_TEXT_SLOTS), 0, <usize>load<u32>(state, TEXT_CAPACITY) * 16);
    memory.fill(load<usize>(state, AT_PATH_TEXT), 0, <usize>m.pathsMax * 4);
  }
  if (shapeBase >= 0x8000_0000) {
    store<u32>(state, 0, SHAPE_BASE);
    memory.fill(load<usize>(state, AT_SHAPE_SLOTS), 0, <usize>load<u32>(state, SHAPE_CAPACITY) * 16);
  }
}

/** Numbers of places mean something else from now on. */
export function forgetPlaces(): void {
  memory.fill(m.paths, 0, <usize>m.pathsMax * 16);
  for (let shard = 0; shard < m.shards; shard++) {
    const state = m.states + <usize>shard * m.stateBytes;
    store<i32>(state, -1, LAST_SHAPE);
    memory.fill(load<usize>(state, AT_PATH_TEXT), 0, <usize>m.pathsMax * 4);
  }
}
