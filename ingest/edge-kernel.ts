/**
 * The kernel of the edge (assembly/edge.ts) and its memory: where the batch of events, the open blocks and what the kernel
 * remembers stand. All of it is laid out once, for the largest that the limits allow, and never grows, so that no view on it
 * is ever detached. What is not used is no more than addresses: the system gives memory to a page when it is touched.
 *
 *   words │ tenant, messages to hash, key │ paths │ templates │ the batch │ identities, shards │ a finished block │ the
 *   open block of each shard
 */
import { layOutHome, type BatchHome, type EventBatch } from '../contract/event-batch.ts';
import { double } from '../contract/identity.ts';
import type { PathTable } from '../contract/path-table.ts';
import { loadKernel } from '../runtime/kernel.ts';

export interface EdgeKernelLimits {
  readonly shards: number;
  /** 16 bytes as 32 hexadecimal digits. */
  readonly identityKey: string;
  readonly blockEventsMax: number;
  readonly blockBytesMax: number;
  /** Of one body. Larger ones, and those with more of what has to be made, are read and packed without the kernel. */
  readonly batchEventsMax: number;
  readonly bodyBytesMax: number;
}

/** The functions of assembly/edge.ts. Addresses are bytes from the beginning of the memory. */
interface EdgeExports {
  base(): number;
  setUp(words: number): void;
  setTemplates(at: number, listAt: number): void;
  setTenantOf(bytes: number): void;
  begin(listed: number, fromMs: number, toMs: number, nowMs: number): void;
  scan(start: number, end: number, event: number, field: number, most: number, isLines: boolean): number;
  identify(from: number, to: number): void;
  addRun(from: number, to: number, body: number, mark: number): number;
  finishBlock(shard: number, acceptedAtMs: number): number;
  forgetPlaces(): void;
}

const MIB = 1_048_576;
/** More than the memory of any edge that is configured with sense; with more, nothing is gained and it runs without. */
const BYTES_MAX = 512 * MIB;
/** Behind a place for texts: what is read or overwritten beyond them. */
const SLACK = 64;

/** Of a tenant's name. */
export const TENANT_BYTES_MAX = 256;
const PREFIX_BYTES = 4_096;
const LANES_BYTES = 4 * 320 + SLACK;
/** Places whose paths are remembered; an event with others is packed without the kernel. */
const PLACES_MAX = 32_768;
const PATH_BYTES = 2 * MIB;
export const TEMPLATES_MAX = 1_024;
export const TEMPLATE_BYTES = 4_096;
/** Templates that are tried for one body. */
export const CANDIDATES_MAX = 8;
const HOME_BYTES_MAX = 32 * MIB;
const HOME_FIELDS_MAX = 262_144;
/** An event is at most 65,536 bytes; its paths, which stand twice in a small block, and its columns are less than again. */
const EVENT_ROOM = 131_072;
const EVENT_TEXTS = 320;
const EVENT_FIELDS = 128;
const TEXTS_FIRST = 128;
const SHAPES_FIRST = 16;
const STATE_BYTES = 192;
const STATE_COUNT = 0;
const STATE_TEXT_CAPACITY = 9;
const STATE_SHAPE_CAPACITY = 11;
const STATE_LAST_SHAPE = 12;
const STATE_BODY = 15;
const STATE_ADDRESSES = 16;
const WORDS = 64;

/** Why `addRun` came back. */
export const RUN_DONE = 0;
export const RUN_FULL = 1;
export const RUN_PLACE = 2;
export const RUN_UNUSUAL = 3;

const aligned = (bytes: number): number => Math.ceil(bytes / 64) * 64;

/** The entries for which a table that doubles from `first` on has room when it holds `most`. */
function capacityOf(first: number, most: number): number {
  let capacity = first;
  while (capacity <= most) capacity *= 2;
  return capacity;
}

/** The pieces of one shard's open block, in the order of assembly/edge/state.ts. */
function blockPieces({ blockEventsMax, blockBytesMax }: EdgeKernelLimits): number[] {
  // A block is sent as soon as it may be as large as the limit, so that its parts have bounds.
  const events = Math.min(blockEventsMax, Math.ceil(blockBytesMax / 61)) + 2;
  const cells = Math.ceil(blockBytesMax / 8) + EVENT_FIELDS;
  const texts = capacityOf(TEXTS_FIRST, Math.ceil(blockBytesMax / 12) + EVENT_TEXTS);
  const fields = cells;
  const shapes = capacityOf(SHAPES_FIRST, events);
  return [
    events * 16, // identity
    events * 8, // time
    events, // flags
    events * 4, // tenant
    events * 4, // source
    events * 4, // type
    events * 4, // subject
    events * 4, // shape
    events * 4 + 4, // cell start
    events * 4 + 4, // id start
    cells * 8,
    blockBytesMax + 1_024, // ids
    texts * 4 + 4,
    texts * 8, // hashes of texts
    blockBytesMax + EVENT_ROOM, // texts
    texts * 16, // slots of texts
    shapes * 4 + 4,
    fields * 8,
    fields * 8, // what a payload hash begins with
    shapes * 4, // hashes of shapes
    shapes * 16, // slots of shapes
    PLACES_MAX * 4, // texts of paths
    EVENT_FIELDS * 8, // the last shape
    EVENT_FIELDS * 8, // the shape that is looked for
    64 * 4, // guesses
  ];
}

export class EdgeKernel {
  readonly exports: EdgeExports;
  readonly home: BatchHome;
  readonly u8: Uint8Array;
  readonly u32: Uint32Array;
  readonly f64: Float64Array;
  /** Addresses of the words of a result, of the list of shards, of templates and of those to be tried. */
  readonly result: number;
  readonly touched: number;
  readonly templates: number;
  readonly candidates: number;
  /** Address of a finished block. */
  readonly out: number;

  readonly #states: number;
  readonly #tenantAt: number;
  readonly #pathsAt: number;
  readonly #pathBytes: number;
  #pathUsed = 0;
  #tenant: Uint8Array | null = null;
  #table: PathTable | null = null;
  #generation = 0;

  private constructor(limits: EdgeKernelLimits, bytes: number, pieces: readonly number[]) {
    const { exports, memory } = loadKernel<EdgeExports>('ingest', 'edge', {
      bytesFirst: bytes,
      bytesMax: bytes,
    });
    const { buffer } = memory;
    this.exports = exports;
    this.u8 = new Uint8Array(buffer);
    this.u32 = new Uint32Array(buffer);
    this.f64 = new Float64Array(buffer);
    let end = aligned(exports.base());
    const take = (length: number): number => {
      const at = end;
      end = aligned(end + length + SLACK);
      return at;
    };
    const words = take(WORDS * 4);
    this.result = take(64);
    this.#tenantAt = take(TENANT_BYTES_MAX);
    const prefix = take(PREFIX_BYTES);
    const lanes = take(LANES_BYTES);
    const key = take(48);
    this.touched = take(limits.shards * 4);
    this.#pathsAt = take(PLACES_MAX * 16);
    this.#pathBytes = take(PATH_BYTES);
    this.candidates = take(CANDIDATES_MAX * 4);
    this.templates = take(TEMPLATES_MAX * TEMPLATE_BYTES);
    const size = homeSize(limits);
    const at = layOutHome(size);
    const begin = take(at.all);
    this.home = { buffer, begin, ...size };
    const identity = take(size.events * 16);
    const shardOf = take(size.events * 4);
    this.out = take(limits.blockBytesMax + EVENT_ROOM);
    this.#states = take(limits.shards * STATE_BYTES);
    for (let shard = 0; shard < limits.shards; shard++) {
      const state = this.#states / 4 + (shard * STATE_BYTES) / 4;
      this.u32[state + STATE_TEXT_CAPACITY] = TEXTS_FIRST;
      this.u32[state + STATE_SHAPE_CAPACITY] = SHAPES_FIRST;
      this.u32[state + STATE_LAST_SHAPE] = 2 ** 32 - 1;
      this.u32[state + STATE_BODY] = 2 ** 32 - 1;
      for (const [number, piece] of pieces.entries())
        this.u32[state + STATE_ADDRESSES + number] = take(piece);
    }
    if (end > bytes) throw new Error('the memory of the kernel was laid out too small');
    this.u32.set(keyWords(limits.identityKey), key / 4);
    const columns = [
      ...[at.bytes, at.start, at.end, at.timeMs, at.timeGiven, at.fieldStart, at.path, at.code, at.mantissa],
      ...[at.textStart, at.textEnd],
    ];
    this.u32.set(
      [
        ...columns.map((column) => begin + column),
        ...[size.events, size.fields, identity, shardOf, prefix, lanes, key, this.#pathsAt, PLACES_MAX],
        ...[this.#states, STATE_BYTES, limits.shards, limits.blockEventsMax, limits.blockBytesMax],
        ...[this.out, this.touched, this.result, this.#tenantAt],
      ],
      words / 4,
    );
    exports.setUp(words);
    exports.setTemplates(this.templates, this.candidates);
  }

  /** Null when the limits would take more memory than is sensible: the edge runs without it then. */
  static load(limits: EdgeKernelLimits): EdgeKernel | null {
    const pieces = blockPieces(limits);
    const ofShard = pieces.reduce((sum, piece) => sum + piece + SLACK + 64, STATE_BYTES);
    const size = homeSize(limits);
    const fixed =
      layOutHome(size).all +
      size.events * 20 +
      limits.blockBytesMax +
      EVENT_ROOM +
      PLACES_MAX * 16 +
      PATH_BYTES +
      TEMPLATES_MAX * TEMPLATE_BYTES +
      limits.shards * 8 +
      MIB;
    const bytes = fixed + ofShard * limits.shards;
    return bytes > BYTES_MAX ? null : new EdgeKernel(limits, bytes, pieces);
  }

  /** A word of the result of the last call. */
  resultWord(number: number): number {
    return this.u32[this.result / 4 + number]!;
  }

  /** Events in the open block of a shard. */
  count(shard: number): number {
    return this.u32[(this.#states + shard * STATE_BYTES) / 4 + STATE_COUNT]!;
  }

  /** Whether the events of the batch can be packed here; if so, they are the next to be. */
  turnTo(batch: EventBatch): boolean {
    const { tenant, paths } = batch;
    if (!batch.isHome || batch.home !== this.home || tenant.length > TENANT_BYTES_MAX) return false;
    if (tenant !== this.#tenant) {
      this.#tenant = tenant;
      this.u8.set(tenant, this.#tenantAt);
      this.exports.setTenantOf(tenant.length);
    }
    if (paths !== this.#table || paths.generation !== this.#generation) {
      this.#table = paths;
      this.#generation = paths.generation;
      this.#forgetPlaces();
    }
    return true;
  }

  /** Puts the dotted path of a place where the kernel can read it. */
  learnPlace(paths: PathTable, place: number): void {
    const length = paths.length[place]!;
    if (this.#pathUsed + length + SLACK > PATH_BYTES) this.#forgetPlaces();
    const at = this.#pathBytes + this.#pathUsed;
    paths.write(place, this.u8, at);
    this.#pathUsed += length;
    this.u32.set([at, length, paths.hashLow[place]!, paths.hashHigh[place]!], this.#pathsAt / 4 + place * 4);
  }

  #forgetPlaces(): void {
    this.exports.forgetPlaces();
    this.#pathUsed = 0;
  }
}

function homeSize(limits: EdgeKernelLimits): Pick<BatchHome, 'bytes' | 'events' | 'fields'> {
  // The next event is always a place of its own, and a batch grows when it would be the last.
  const events = limits.batchEventsMax + 4;
  return {
    bytes: Math.min(limits.bodyBytesMax + MIB, HOME_BYTES_MAX),
    events,
    fields: Math.min(events * 64, HOME_FIELDS_MAX),
  };
}

/** The key of the identity and its two masks, as contract/identity.ts derives them. */
function keyWords(text: string): number[] {
  const bytes = Uint8Array.from({ length: 16 }, (_, at) =>
    Number.parseInt(text.slice(at * 2, at * 2 + 2), 16),
  );
  const view = new DataView(bytes.buffer);
  const key = Uint32Array.from([0, 4, 8, 12], (at) => view.getUint32(at, true));
  const whole = double(key);
  return [...key, ...whole, ...double(whole)];
}
