/**
 * The wire format of the log, version 1: a block of many events in columns.
 *
 * Columns instead of one message an event, because the broker costs per message and per byte, and because
 * a reader can then work on typed arrays without building an object an event. Little-endian throughout;
 * every section starts on a multiple of 8, so that a reader lays typed arrays over the message as it is.
 *
 * | section | type | length |
 * | --- | --- | --- |
 * | header | see `HEADER` | 64 bytes |
 * | identity | u32 × 4 | events |
 * | payload hash | u32 × 2 | events |
 * | time, epoch ms | f64 | events |
 * | tenant, source, type, subject: text numbers | u32 × 4 columns | events |
 * | shape number | u32 | events |
 * | cell start | u32 | events + 1 |
 * | id start | u32 | events + 1 |
 * | flags (1 = the sender gave the time) | u8 | events |
 * | cells | f64 | cells |
 * | text start | u32 | texts + 1 |
 * | shape start | u32 | shapes + 1 |
 * | shape fields: text number of the path, tag and scale (tag << 8 | scale) | u32 × 2 | shape fields |
 * | text bytes, id bytes | u8 | |
 *
 * A *text* is a string that stands once however many events use it; a writer may let it stand twice, so readers go by
 * the text and not by its number. A *shape* is the list of paths, tags
 * and scales of an event's data; events of one product have few. A *cell* is the value of one field: the
 * mantissa of a number, or the number of a text. A meter is resolved once a shape instead of once an event.
 *
 * The CRC covers everything behind the header's checksum field: a flipped bit is a block that is refused
 * whole and kept, never a wrong quantity.
 */
import { crc32 } from 'node:zlib';
import { FIELD_NUMBER } from './fields.ts';
import { BLOCK_EVENTS_MAX } from './position.ts';
import { MESSAGE_EVENTS } from './subjects.ts';

export const MAGIC = 0x314c5954; // "TYL1"
export const BLOCK_VERSION = 1;

export const HEADER_BYTES = 64;
export const HEADER = {
  magic: 0, // u32
  version: 4, // u16
  kind: 6, // u16
  crc: 8, // u32 over everything from byte 12
  events: 12, // u32
  cells: 16, // u32
  texts: 20, // u32
  shapes: 24, // u32
  shapeFields: 28, // u32
  textBytes: 32, // u32
  idBytes: 36, // u32
  acceptedAtMs: 40, // f64, the edge's clock: for lag, never for a verdict
} as const;

/** Reads the kind of a message without looking further; null when it is not ours. */
export function messageKind(message: Uint8Array): number | null {
  if (message.byteLength < 12) return null;
  const view = new DataView(message.buffer, message.byteOffset, message.byteLength);
  return view.getUint32(HEADER.magic, true) === MAGIC ? view.getUint16(HEADER.kind, true) : null;
}

export interface Counts {
  readonly events: number;
  readonly cells: number;
  readonly texts: number;
  readonly shapes: number;
  readonly shapeFields: number;
  readonly textBytes: number;
  readonly idBytes: number;
}

/** Where each section begins. */
export function layOut(counts: Counts) {
  let end = HEADER_BYTES;
  const section = (bytes: number): number => {
    const start = end;
    end = start + Math.ceil(bytes / 8) * 8;
    return start;
  };
  const { events } = counts;
  return {
    identity: section(events * 16),
    payload: section(events * 8),
    time: section(events * 8),
    tenant: section(events * 4),
    source: section(events * 4),
    type: section(events * 4),
    subject: section(events * 4),
    shape: section(events * 4),
    cellStart: section((events + 1) * 4),
    idStart: section((events + 1) * 4),
    flags: section(events),
    cells: section(counts.cells * 8),
    textStart: section((counts.texts + 1) * 4),
    shapeStart: section((counts.shapes + 1) * 4),
    shapeFields: section(counts.shapeFields * 8),
    textBytes: section(counts.textBytes),
    idBytes: section(counts.idBytes),
    end,
  };
}

/** A decoded block: typed arrays over the message's own memory, and its texts on demand. */
export interface Block {
  readonly count: number;
  readonly acceptedAtMs: number;
  readonly identity: Uint32Array;
  readonly payloadHash: Uint32Array;
  readonly time: Float64Array;
  readonly tenant: Uint32Array;
  readonly source: Uint32Array;
  readonly type: Uint32Array;
  readonly subject: Uint32Array;
  readonly shape: Uint32Array;
  readonly cellStart: Uint32Array;
  readonly idStart: Uint32Array;
  readonly flags: Uint8Array;
  readonly cells: Float64Array;
  readonly textCount: number;
  readonly textStart: Uint32Array;
  readonly textBytes: Uint8Array;
  readonly shapeCount: number;
  readonly shapeStart: Uint32Array;
  /** Pairs: text number of the path, tag << 8 | scale. */
  readonly shapeFields: Uint32Array;
  readonly idBytes: Uint8Array;
}

export class BlockError extends Error {
  override readonly name = 'BlockError';
}

/** The checksum alone is not trusted to mean that the numbers inside are in range: both are checked. */
export function decodeBlock(message: Uint8Array): Block {
  // Typed arrays need aligned memory; a message that came in the middle of a socket buffer is copied once.
  // (Not by slice(): of a Buffer, which a driver hands out, that is a view at the same place.)
  const bytes = message.byteOffset % 8 === 0 ? message : new Uint8Array(message);
  if (bytes.byteLength < HEADER_BYTES) throw new BlockError('shorter than its header');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(HEADER.magic, true) !== MAGIC) throw new BlockError('no block of ours');
  const version = view.getUint16(HEADER.version, true);
  if (version !== BLOCK_VERSION) throw new BlockError(`version ${version} is not known here`);
  if (view.getUint16(HEADER.kind, true) !== MESSAGE_EVENTS) throw new BlockError('not a block of events');
  if (view.getUint32(HEADER.crc, true) !== crc32(bytes.subarray(HEADER.events)))
    throw new BlockError('checksum');
  const counts = countsOf(view);
  if (counts.events > BLOCK_EVENTS_MAX) throw new BlockError('too many events');
  const layout = layOut(counts);
  if (layout.end !== bytes.byteLength) throw new BlockError('its length does not fit its counts');
  const block = columnsOf(bytes, view, counts, layout);
  checkReferences(block);
  return block;
}

/** The columns of a message that was decoded before and has not changed since: nothing is checked again. */
export function viewBlock(message: Uint8Array): Block {
  const view = new DataView(message.buffer, message.byteOffset, message.byteLength);
  const counts = countsOf(view);
  return columnsOf(message, view, counts, layOut(counts));
}

function countsOf(view: DataView): Counts {
  const u = (offset: number): number => view.getUint32(offset, true);
  return {
    events: u(HEADER.events),
    cells: u(HEADER.cells),
    texts: u(HEADER.texts),
    shapes: u(HEADER.shapes),
    shapeFields: u(HEADER.shapeFields),
    textBytes: u(HEADER.textBytes),
    idBytes: u(HEADER.idBytes),
  };
}

/** Typed arrays over aligned memory whose length fits the counts. */
function columnsOf(
  bytes: Uint8Array,
  view: DataView,
  counts: Counts,
  layout: ReturnType<typeof layOut>,
): Block {
  const u32 = (offset: number, length: number): Uint32Array =>
    new Uint32Array(bytes.buffer, bytes.byteOffset + offset, length);
  const f64 = (offset: number, length: number): Float64Array =>
    new Float64Array(bytes.buffer, bytes.byteOffset + offset, length);
  const { events } = counts;
  return {
    count: events,
    acceptedAtMs: view.getFloat64(HEADER.acceptedAtMs, true),
    identity: u32(layout.identity, events * 4),
    payloadHash: u32(layout.payload, events * 2),
    time: f64(layout.time, events),
    tenant: u32(layout.tenant, events),
    source: u32(layout.source, events),
    type: u32(layout.type, events),
    subject: u32(layout.subject, events),
    shape: u32(layout.shape, events),
    cellStart: u32(layout.cellStart, events + 1),
    idStart: u32(layout.idStart, events + 1),
    flags: bytes.subarray(layout.flags, layout.flags + events),
    cells: f64(layout.cells, counts.cells),
    textCount: counts.texts,
    textStart: u32(layout.textStart, counts.texts + 1),
    textBytes: bytes.subarray(layout.textBytes, layout.textBytes + counts.textBytes),
    shapeCount: counts.shapes,
    shapeStart: u32(layout.shapeStart, counts.shapes + 1),
    shapeFields: u32(layout.shapeFields, counts.shapeFields * 2),
    idBytes: bytes.subarray(layout.idBytes, layout.idBytes + counts.idBytes),
  };
}

function checkReferences(block: Block): void {
  const { count, textCount, shapeCount, shapeFields, shapeStart, cellStart, cells } = block;
  checkStarts(block.textStart, block.textBytes.length, 'texts');
  checkStarts(block.idStart, block.idBytes.length, 'ids');
  checkStarts(cellStart, cells.length, 'cells');
  checkStarts(shapeStart, shapeFields.length / 2, 'shapes');
  for (let field = 0; field < shapeFields.length; field += 2) {
    const code = shapeFields[field + 1]!;
    if (shapeFields[field]! >= textCount || code >>> 8 > 2 || (code & 0xff) > 9)
      throw new BlockError('a field');
  }
  for (let at = 0; at < count; at++) {
    if (block.tenant[at]! >= textCount || block.source[at]! >= textCount)
      throw new BlockError('a text number');
    if (block.type[at]! >= textCount || block.subject[at]! >= textCount)
      throw new BlockError('a text number');
    const time = block.time[at]!;
    if (!Number.isSafeInteger(time) || time < 0) throw new BlockError('a time');
    const shape = block.shape[at]!;
    if (shape >= shapeCount) throw new BlockError('a shape number');
    const first = shapeStart[shape]!;
    const start = cellStart[at]!;
    const length = shapeStart[shape + 1]! - first;
    if (cellStart[at + 1]! - start !== length) throw new BlockError('the cells of an event');
    for (let cell = 0; cell < length; cell++) {
      const value = cells[start + cell]!;
      const number = shapeFields[(first + cell) * 2 + 1]! >>> 8 === FIELD_NUMBER;
      if (!Number.isSafeInteger(value) || (!number && (value < 0 || value >= textCount)))
        throw new BlockError('a cell');
    }
  }
}

function checkStarts(starts: Uint32Array, end: number, what: string): void {
  if (starts[0] !== 0 || starts[starts.length - 1] !== end) throw new BlockError(`the bounds of its ${what}`);
  for (let at = 1; at < starts.length; at++) {
    if (starts[at]! < starts[at - 1]!) throw new BlockError(`the order of its ${what}`);
  }
}

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Throws a BlockError for bytes that are no UTF-8: they were not checked with the rest, since few are read. */
export function textOf(block: Block, number: number): string {
  return decode(block.textBytes.subarray(block.textStart[number], block.textStart[number + 1]));
}

export function idOf(block: Block, event: number): string {
  return decode(block.idBytes.subarray(block.idStart[event], block.idStart[event + 1]));
}

function decode(bytes: Uint8Array): string {
  try {
    return decoder.decode(bytes);
  } catch (error) {
    throw new BlockError('a text that is no UTF-8', { cause: error });
  }
}
