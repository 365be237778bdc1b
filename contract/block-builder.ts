/**
 * The writer of blocks. An event is copied in from the columns of its batch: no object and no string is made an
 * event. What makes it cheap is that neighbours are alike, so every text is first compared with the one in the
 * event before, and only what differs is hashed and looked up.
 *
 * A builder is reused from block to block and keeps its memory.
 */
import { crc32 } from 'node:zlib';
import { BLOCK_VERSION, HEADER, HEADER_BYTES, layOut, MAGIC } from './block.ts';
import { BlockColumns } from './block-columns.ts';
import { BlockMemory } from './block-memory.ts';
import { copyWords, SLACK_BYTES } from './byte-words.ts';
import { ATTRIBUTES_KEPT, ID, SOURCE, SUBJECT, TYPE, type EventBatch } from './event-batch.ts';
import { FIELD_NUMBER } from './fields.ts';
import { hashPayloads } from './payload.ts';
import { BLOCK_EVENTS_MAX } from './position.ts';
import { ShapeDictionary } from './shape-dictionary.ts';
import { MESSAGE_EVENTS } from './subjects.ts';
import { TextDictionary } from './text-dictionary.ts';

/**
 * Of a block without events: the header, the four bounds that stand behind the last entry of a section, and what
 * fills sections up to multiples of 8: at most 4 bytes for nine sections of u32, 7 for three of u8.
 */
const EMPTY_BYTES = HEADER_BYTES + 4 * 4 + 9 * 4 + 3 * 7;
/** Identity, payload hash, time, seven columns of u32, flags. */
const EVENT_BYTES = 16 + 8 + 8 + 7 * 4 + 1;
/** Up to here a loop is faster than the view that `set` needs. */
const LOOP_MAX = 128;

const GUESSES = 64; // a power of 2

/** Collects events into one block. */
export class BlockBuilder {
  count = 0;

  readonly #columns = new BlockColumns();
  readonly #texts = new TextDictionary();
  readonly #shapes = new ShapeDictionary(this.#texts);
  readonly #memory: BlockMemory;

  /** The last text by the place of its field: probably that of the next. */
  readonly #guesses = new Uint32Array(GUESSES);

  // The body whose tenant is known.
  #batch: EventBatch | null = null;
  #body = 0;
  #tenant = 0;

  /** @param memory where its blocks are written; builders may share it. */
  constructor(memory = new BlockMemory()) {
    this.#memory = memory;
  }

  /** An upper bound of the block's size, less than 60 bytes above it. */
  get estimatedBytes(): number {
    const events = this.count;
    return (
      EMPTY_BYTES +
      events * EVENT_BYTES +
      this.#columns.idStart[events]! +
      this.#columns.cellStart[events]! * 8 +
      this.#texts.size * 4 +
      this.#texts.length +
      this.#shapes.size * 4 +
      this.#shapes.fieldCount * 8
    );
  }

  /** Copies the event in. `identity` has its 4 words from `identityAt` on. */
  add(batch: EventBatch, event: number, identity: Uint32Array, identityAt = 0): void {
    const at = this.count;
    const columns = this.#columns;
    if (at === columns.capacity) this.#grow();
    columns.identity[at * 4] = identity[identityAt]!;
    columns.identity[at * 4 + 1] = identity[identityAt + 1]!;
    columns.identity[at * 4 + 2] = identity[identityAt + 2]!;
    columns.identity[at * 4 + 3] = identity[identityAt + 3]!;
    columns.time[at] = batch.timeMs[event]!;
    columns.flags[at] = batch.timeGiven[event]!;
    this.#addAttributes(batch, event, at);
    this.#addFields(batch, event, at);
    this.count = at + 1;
  }

  /** Encodes the block and empties the builder. */
  finish(acceptedAtMs: number): Uint8Array<ArrayBuffer> {
    const columns = this.#columns;
    const texts = this.#texts;
    const shapes = this.#shapes;
    const events = this.count;
    const cells = columns.cellStart[events]!;
    const idBytes = columns.idStart[events]!;
    const textBytes = texts.length;
    const shapeFields = shapes.fieldCount;
    const counts = { events, cells, texts: texts.size, shapes: shapes.size, shapeFields, textBytes, idBytes };
    const layout = layOut(counts);
    const memory = this.#memory;
    const begin = memory.take(layout.end);
    const { u8, u32, f64 } = memory;
    const word = begin / 4;
    u32.fill(0, word, word + HEADER_BYTES / 4);
    u32[word + HEADER.magic / 4] = MAGIC;
    u32[word + HEADER.version / 4] = BLOCK_VERSION | (MESSAGE_EVENTS << 16);
    u32[word + HEADER.events / 4] = events;
    u32[word + HEADER.cells / 4] = cells;
    u32[word + HEADER.texts / 4] = texts.size;
    u32[word + HEADER.shapes / 4] = shapes.size;
    u32[word + HEADER.shapeFields / 4] = shapeFields;
    u32[word + HEADER.textBytes / 4] = textBytes;
    u32[word + HEADER.idBytes / 4] = idBytes;
    f64[(begin + HEADER.acceptedAtMs) / 8] = acceptedAtMs;
    copyHalves(u32, word + layout.identity / 4, columns.identity, events * 4);
    hashPayloads(columns, events, texts, shapes, u32, word + layout.payload / 4);
    copyFloats(f64, (begin + layout.time) / 8, columns.time, events);
    copyHalves(u32, word + layout.tenant / 4, columns.tenant, events);
    copyHalves(u32, word + layout.source / 4, columns.source, events);
    copyHalves(u32, word + layout.type / 4, columns.type, events);
    copyHalves(u32, word + layout.subject / 4, columns.subject, events);
    copyHalves(u32, word + layout.shape / 4, columns.shape, events);
    copyHalves(u32, word + layout.cellStart / 4, columns.cellStart, events + 1);
    copyHalves(u32, word + layout.idStart / 4, columns.idStart, events + 1);
    copyBytes(u8, begin + layout.flags, columns.flags, events);
    copyFloats(f64, (begin + layout.cells) / 8, columns.cells, cells);
    copyHalves(u32, word + layout.textStart / 4, texts.start, texts.size + 1);
    copyHalves(u32, word + layout.shapeStart / 4, shapes.start, shapes.size + 1);
    copyHalves(u32, word + layout.shapeFields / 4, shapes.fields, shapeFields * 2);
    copyBytes(u8, begin + layout.textBytes, texts.bytes, textBytes);
    copyBytes(u8, begin + layout.idBytes, columns.ids, idBytes);
    const block = new Uint8Array(u8.buffer, begin, layout.end);
    u32[word + HEADER.crc / 4] = crc32(block.subarray(HEADER.events));
    this.count = 0;
    texts.clear();
    shapes.clear();
    return block;
  }

  #addAttributes(batch: EventBatch, event: number, at: number): void {
    const { view, start, end } = batch;
    const columns = this.#columns;
    const { source, type, subject, idStart } = columns;
    const texts = this.#texts;
    if (at === 0 || batch !== this.#batch || batch.bodies !== this.#body) this.#turnTo(batch);
    columns.tenant[at] = this.#tenant;
    const first = event * ATTRIBUTES_KEPT;
    const before = at === 0 ? 0 : at - 1;
    source[at] = texts.of(view, start[first + SOURCE]!, end[first + SOURCE]!, source[before]!);
    type[at] = texts.of(view, start[first + TYPE]!, end[first + TYPE]!, type[before]!);
    subject[at] = texts.of(view, start[first + SUBJECT]!, end[first + SUBJECT]!, subject[before]!);
    const id = start[first + ID]!;
    const idEnd = end[first + ID]!;
    const target = idStart[at]!;
    const targetEnd = target + idEnd - id;
    if (targetEnd + SLACK_BYTES > columns.ids.length) columns.growIds(targetEnd);
    copyWords(view, id, idEnd, columns.idsView, target);
    idStart[at + 1] = targetEnd;
  }

  #addFields(batch: EventBatch, event: number, at: number): void {
    const columns = this.#columns;
    const texts = this.#texts;
    columns.shape[at] = this.#shapes.of(batch, event);
    const first = batch.fieldStart[event]!;
    const count = batch.fieldStart[event + 1]! - first;
    const cell = columns.cellStart[at]!;
    if (cell + count > columns.cells.length) columns.growCells(cell + count);
    const { cells } = columns;
    const { view, code, mantissa, textStart, textEnd } = batch;
    const guesses = this.#guesses;
    for (let field = 0; field < count; field++) {
      const from = first + field;
      if (code[from]! >>> 8 === FIELD_NUMBER) cells[cell + field] = mantissa[from]!;
      else {
        const guess = field & (GUESSES - 1);
        const text = texts.of(view, textStart[from]!, textEnd[from]!, guesses[guess]!);
        guesses[guess] = text;
        cells[cell + field] = text;
      }
    }
    columns.cellStart[at + 1] = cell + count;
  }

  #turnTo(batch: EventBatch): void {
    const { tenant } = batch;
    const padded = new Uint8Array(tenant.length + SLACK_BYTES);
    padded.set(tenant);
    this.#tenant = this.#texts.of(new DataView(padded.buffer), 0, tenant.length, this.#tenant);
    this.#batch = batch;
    this.#body = batch.bodies;
  }

  #grow(): void {
    if (this.#columns.capacity === BLOCK_EVENTS_MAX) throw new Error('the block is full');
    this.#columns.growEvents();
  }
}

// One function a kind of array: one for all kinds took the engine three times as long.

function copyFloats(target: Float64Array, at: number, from: Float64Array, length: number): void {
  if (length > LOOP_MAX) return target.set(from.subarray(0, length), at);
  for (let index = 0; index < length; index++) target[at + index] = from[index]!;
}

/** And a zero behind an odd number of words. */
function copyHalves(target: Uint32Array, at: number, from: Uint32Array, length: number): void {
  if (length % 2 === 1) target[at + length] = 0;
  if (length > LOOP_MAX) return target.set(from.subarray(0, length), at);
  for (let index = 0; index < length; index++) target[at + index] = from[index]!;
}

/** And zeros up to a multiple of 8. */
function copyBytes(target: Uint8Array, at: number, from: Uint8Array, length: number): void {
  for (let index = length; index % 8 !== 0; index++) target[at + index] = 0;
  if (length > LOOP_MAX) return target.set(from.subarray(0, length), at);
  for (let index = 0; index < length; index++) target[at + index] = from[index]!;
}
