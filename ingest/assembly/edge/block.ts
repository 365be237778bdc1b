// The writer of blocks of contract/block-builder.ts: events from the columns of the batch into the open block of their
// shard, and a block from its columns into one piece of memory. Both writers make the same bytes of the same events.
import { absorbHigh, absorbLow, copy, finish, hashText } from './bytes';
import { clearDictionaries, isLastShape, shapeOf, textOf, unknownPlace } from './dictionaries';
import { NO_SHARD } from './identity';
import * as m from './memory';
import * as s from './state';

const FIELD_NUMBER: u32 = 1;
const MAGIC: u32 = 0x314c5954;
const VERSION_AND_KIND: u32 = 0x0001_0001;
const HEADER_BYTES: u32 = 64;
const EMPTY_BYTES: u32 = 137;
const EVENT_BYTES: u32 = 61;
const GUESSES: i32 = 64;
/** Fields of an event for which there is room; no reader takes so many. */
const FIELDS_MAX: i32 = 128;

const START_EVENT_LOW: u32 = 0x243f6a88;
const START_EVENT_HIGH: u32 = 0x05a308d3;

/** Why `addRun` came back, in the first word of the result. */
const DONE: i32 = 0;
/** A block is full; the second word is its shard. */
const FULL: i32 = 1;
/** The place in the second word is not known here. */
const PLACE: i32 = 2;
/** An event that is none for this writer. */
const UNUSUAL: i32 = 3;

let tenantLength: i32 = 0;
let tenantHash: u64 = 0;

export function setTenant(length: i32): void {
  tenantLength = length;
  tenantHash = hashText(m.tenant, length);
}

/**
 * Copies events in from `from` on, until `to` or until the caller has something to do, and returns the first event that is
 * not in a block. Shards whose block has an event of the request for the first time are listed in `touched`; the third word
 * of the result says how many.
 */
export function addRun(from: i32, to: i32, body: i32, mark: i32): i32 {
  let touched = 0;
  let event = from;
  let reason = DONE;
  while (event < to) {
    const field = load<i32>(m.fieldStart + <usize>event * 4);
    const fields = load<i32>(m.fieldStart + <usize>event * 4, 4) - field;
    const shard = load<u32>(m.shardOf + <usize>event * 4);
    if (shard == NO_SHARD) {
      reason = UNUSUAL;
      break;
    }
    const state = m.states + <usize>shard * m.stateBytes;
    const isLast = isLastShape(state, field, fields);
    if (!isLast) {
      if (fields > FIELDS_MAX) {
        reason = UNUSUAL;
        break;
      }
      const place = unknownPlace(field, fields);
      if (place >= 0) {
        reason = place < m.pathsMax ? PLACE : UNUSUAL;
        store<i32>(m.result, place, 4);
        break;
      }
    }
    if (load<i32>(state, s.MARK) != mark) {
      store<i32>(state, mark, s.MARK);
      store<u32>(m.touched + <usize>touched * 4, shard);
      touched += 1;
    }
    add(state, event, field, fields, body, isLast);
    event += 1;
    if (load<i32>(state, s.COUNT) >= m.blockEventsMax || estimatedBytes(state) >= <u32>m.blockBytesMax) {
      reason = FULL;
      store<i32>(m.result, shard, 4);
      break;
    }
  }
  store<i32>(m.result, reason);
  store<i32>(m.result, touched, 8);
  return event;
}

// @ts-ignore: decorator
@inline
function estimatedBytes(state: usize): u32 {
  return (
    EMPTY_BYTES +
    load<u32>(state, s.COUNT) * EVENT_BYTES +
    load<u32>(state, s.IDS) +
    load<u32>(state, s.CELLS) * 8 +
    load<u32>(state, s.TEXTS) * 4 +
    load<u32>(state, s.TEXT_BYTES) +
    load<u32>(state, s.SHAPES) * 4 +
    load<u32>(state, s.SHAPE_FIELDS) * 8
  );
}

// @ts-ignore: decorator
@inline
function add(state: usize, event: i32, field: i32, fields: i32, body: i32, isLast: bool): void {
  const at: usize = load<u32>(state, s.COUNT);
  v128.store(load<usize>(state, s.AT_IDENTITY) + at * 16, v128.load(m.identity + <usize>event * 16));
  store<f64>(load<usize>(state, s.AT_TIME) + at * 8, load<f64>(m.timeMs + <usize>event * 8));
  store<u8>(load<usize>(state, s.AT_FLAGS) + at, load<u8>(m.timeGiven + event));
  // 1. The attributes. The number of a text in the event before is the guess for this one.
  if (at == 0 || load<i32>(state, s.BODY) != body) {
    store<u32>(state, textOf(state, m.tenant, tenantLength, load<u32>(state, s.TENANT_TEXT)), s.TENANT_TEXT);
    store<i32>(state, body, s.BODY);
  }
  store<u32>(load<usize>(state, s.AT_TENANT) + at * 4, load<u32>(state, s.TENANT_TEXT));
  const starts = m.start + <usize>event * 16;
  const ends = m.end + <usize>event * 16;
  const before: usize = at == 0 ? 0 : at - 1;
  const source = load<usize>(state, s.AT_SOURCE);
  const sourceFrom = load<u32>(starts, 4);
  const sourceLength = load<u32>(ends, 4) - sourceFrom;
  store<u32>(source + at * 4, textOf(state, m.bytes + sourceFrom, sourceLength, load<u32>(source + before * 4)));
  const type = load<usize>(state, s.AT_TYPE);
  const typeFrom = load<u32>(starts, 8);
  const typeLength = load<u32>(ends, 8) - typeFrom;
  store<u32>(type + at * 4, textOf(state, m.bytes + typeFrom, typeLength, load<u32>(type + before * 4)));
  const subject = load<usize>(state, s.AT_SUBJECT);
  const subjectFrom = load<u32>(starts, 12);
  const subjectLength = load<u32>(ends, 12) - subjectFrom;
  store<u32>(subject + at * 4, textOf(state, m.bytes + subjectFrom, subjectLength, load<u32>(subject + before * 4)));
  // 2. The id.
  const id = load<u32>(starts);
  const idLength = load<u32>(ends) - id;
  const idAt = load<u32>(state, s.IDS);
  copy(load<usize>(state, s.AT_IDS) + idAt, m.bytes + id, idLength);
  store<u32>(state, idAt + idLength, s.IDS);
  store<u32>(load<usize>(state, s.AT_ID_START) + at * 4, idAt + idLength, 4);
  // 3. The data.
  const shape = isLast ? load<i32>(state, s.LAST_SHAPE) : shapeOf(state, field, fields);
  store<i32>(load<usize>(state, s.AT_SHAPE) + at * 4, shape);
  const firstCell = load<u32>(state, s.CELLS);
  const cells = load<usize>(state, s.AT_CELLS) + <usize>firstCell * 8;
  const guesses = load<usize>(state, s.AT_GUESSES);
  for (let which = 0; which < fields; which++) {
    const one = <usize>(field + which);
    if (<u32>load<u16>(m.code + one * 2) >> 8 == FIELD_NUMBER) {
      store<f64>(cells + <usize>which * 8, load<f64>(m.mantissa + one * 8));
    } else {
      const guess = guesses + <usize>(which & (GUESSES - 1)) * 4;
      const from = load<u32>(m.textStart + one * 4);
      const text = textOf(state, m.bytes + from, load<u32>(m.textEnd + one * 4) - from, load<u32>(guess));
      store<u32>(guess, text);
      store<f64>(cells + <usize>which * 8, <f64>text);
    }
  }
  store<u32>(state, firstCell + fields, s.CELLS);
  store<u32>(load<usize>(state, s.AT_CELL_START) + at * 4, firstCell + fields, 4);
  store<u32>(state, <u32>at + 1, s.COUNT);
}

// A section begins at a multiple of 8, and zeros fill it up.
// @ts-ignore: decorator
@inline
function section(to: usize, from: usize, bytes: u32): usize {
  copy(to, from, bytes);
  store<u64>(to + bytes, 0);
  return to + ((bytes + 7) & ~7);
}

/** Writes the block of a shard to `out` without its checksum, empties it, and returns its length. */
export function finishBlock(shard: i32, acceptedAtMs: f64): i32 {
  const state = m.states + <usize>shard * m.stateBytes;
  const events = load<u32>(state, s.COUNT);
  const cells = load<u32>(state, s.CELLS);
  const texts = load<u32>(state, s.TEXTS);
  const shapes = load<u32>(state, s.SHAPES);
  const shapeFields = load<u32>(state, s.SHAPE_FIELDS);
  const out = m.out;
  memory.fill(out, 0, HEADER_BYTES);
  store<u32>(out, MAGIC);
  store<u32>(out, VERSION_AND_KIND, 4);
  store<u32>(out, events, 12);
  store<u32>(out, cells, 16);
  store<u32>(out, texts, 20);
  store<u32>(out, shapes, 24);
  store<u32>(out, shapeFields, 28);
  store<u32>(out, load<u32>(state, s.TEXT_BYTES), 32);
  store<u32>(out, load<u32>(state, s.IDS), 36);
  store<f64>(out, acceptedAtMs, 40);
  let at = section(out + HEADER_BYTES, load<usize>(state, s.AT_IDENTITY), events * 16);
  hashPayloads(state, events, at);
  at += <usize>events * 8;
  at = section(at, load<usize>(state, s.AT_TIME), events * 8);
  at = section(at, load<usize>(state, s.AT_TENANT), events * 4);
  at = section(at, load<usize>(state, s.AT_SOURCE), events * 4);
  at = section(at, load<usize>(state, s.AT_TYPE), events * 4);
  at = section(at, load<usize>(state, s.AT_SUBJECT), events * 4);
  at = section(at, load<usize>(state, s.AT_SHAPE), events * 4);
  at = section(at, load<usize>(state, s.AT_CELL_START), events * 4 + 4);
  at = section(at, load<usize>(state, s.AT_ID_START), events * 4 + 4);
  at = section(at, load<usize>(state, s.AT_FLAGS), events);
  at = section(at, load<usize>(state, s.AT_CELLS), cells * 8);
  at = section(at, load<usize>(state, s.AT_TEXT_START), texts * 4 + 4);
  at = section(at, load<usize>(state, s.AT_SHAPE_START), shapes * 4 + 4);
  at = section(at, load<usize>(state, s.AT_SHAPE_FIELDS), shapeFields * 8);
  at = section(at, load<usize>(state, s.AT_TEXT_BYTES), load<u32>(state, s.TEXT_BYTES));
  at = section(at, load<usize>(state, s.AT_IDS), load<u32>(state, s.IDS));
  store<u32>(state, 0, s.COUNT);
  store<u32>(state, 0, s.CELLS);
  store<u32>(state, 0, s.IDS);
  store<u32>(state, 0, s.MARK);
  clearDictionaries(state);
  return <i32>(at - out);
}

/** contract/payload.ts. */
function hashPayloads(state: usize, events: u32, out: usize): void {
  const hashes = load<usize>(state, s.AT_TEXT_HASH);
  const types = load<usize>(state, s.AT_TYPE);
  const subjects = load<usize>(state, s.AT_SUBJECT);
  const times = load<usize>(state, s.AT_TIME);
  const flags = load<usize>(state, s.AT_FLAGS);
  const shapeOfEvent = load<usize>(state, s.AT_SHAPE);
  const shapeStart = load<usize>(state, s.AT_SHAPE_START);
  const shapeFields = load<usize>(state, s.AT_SHAPE_FIELDS);
  const seeds = load<usize>(state, s.AT_SHAPE_SEEDS);
  const cellStart = load<usize>(state, s.AT_CELL_START);
  const cells = load<usize>(state, s.AT_CELLS);
  for (let at: usize = 0; at < events; at++) {
    const type = hashes + <usize>load<u32>(types + at * 4) * 8;
    const subject = hashes + <usize>load<u32>(subjects + at * 4) * 8;
    let low = absorbLow(absorbLow(START_EVENT_LOW, load<u32>(type)), load<u32>(subject));
    let high = absorbHigh(absorbHigh(START_EVENT_HIGH, load<u32>(type, 4)), load<u32>(subject, 4));
    if (load<u8>(flags + at) == 1) {
      const time = <i64>load<f64>(times + at * 8);
      low = absorbLow(absorbLow(low, <u32>time), <u32>(time >> 32));
      high = absorbHigh(absorbHigh(high, <u32>time), <u32>(time >> 32));
    }
    let field = <usize>load<u32>(shapeStart + <usize>load<u32>(shapeOfEvent + at * 4) * 4);
    const end = <usize>load<u32>(cellStart + at * 4, 4);
    for (let cell = <usize>load<u32>(cellStart + at * 4); cell < end; cell++) {
      const value = <i64>load<f64>(cells + cell * 8);
      let fieldLow = load<u32>(seeds + field * 8);
      let fieldHigh = load<u32>(seeds + field * 8, 4);
      if (load<u32>(shapeFields + field * 8, 4) >> 8 == FIELD_NUMBER) {
        fieldLow = absorbLow(absorbLow(fieldLow, <u32>value), <u32>(value >> 32));
        fieldHigh = absorbHigh(absorbHigh(fieldHigh, <u32>value), <u32>(value >> 32));
      } else {
        const text = hashes + <usize>value * 8;
        fieldLow = absorbLow(fieldLow, load<u32>(text));
        fieldHigh = absorbHigh(fieldHigh, load<u32>(text, 4));
      }
      low += finish(fieldLow);
      high += finish(fieldHigh);
      field += 1;
    }
    store<u32>(out + at * 8, finish(low));
    store<u32>(out + at * 8, finish(high), 4);
  }
}
