/**
 * Decided blocks as rows of `events` and `refused_events`, in Native format, in a worker. Texts go from the
 * block to the column as the bytes they are; only numbers in `data` are written out.
 */
import type { Block } from '../contract/block.ts';
import { FIELD_NUMBER } from '../contract/fields.ts';
import { VERDICTS } from '../contract/verdicts.ts';
import { HOUR_MS } from '../contract/window.ts';
import {
  Bytes,
  collectedTexts,
  encodeNative,
  fixedColumn,
  lowCardinalityColumn,
  positionColumn,
  putIdentity,
  putPosition,
  putUuid,
  putWhole,
  textColumn,
  wholeColumn,
  type Column,
} from './native.ts';
import { positionInShard } from './position-in-shard.ts';
import { REFUSALS } from './prepare.ts';
import { CONFLICT, COUNTED, LATE, REJECTED } from './verdict.ts';

/** Ends each path and each value of an event's data (schema/0010-narrow-events.sql). In UTF-8 there is no such byte. */
const TERMINATOR = 0xff;
const PATH_MESSAGE = Uint8Array.from([...Buffer.from('message'), TERMINATOR]);

export interface DecidedBlock {
  readonly shard: number;
  readonly incarnation: number;
  readonly sequence: number;
  readonly block: Block;
  readonly verdicts: Uint8Array;
  readonly refused: Uint8Array;
}

export interface Encoded {
  readonly rows: number;
  /** Null when there are none. */
  readonly body: Uint8Array<ArrayBuffer> | null;
}

export interface RawRows {
  readonly events: Encoded;
  readonly refused: Encoded;
}

export function encodeRaw(blocks: readonly DecidedBlock[]): RawRows {
  const counted = countOf(blocks, (verdict) => verdict === COUNTED);
  const refused = countOf(blocks, isKept);
  return {
    events: encodeEvents(blocks, counted),
    refused: encodeRefused(blocks, refused),
  };
}

/** Duplicates say nothing new; what else did not count is kept. */
function isKept(verdict: number): boolean {
  return verdict === CONFLICT || verdict === LATE || verdict === REJECTED;
}

function countOf(blocks: readonly DecidedBlock[], wanted: (verdict: number) => boolean): number {
  let rows = 0;
  for (const { verdicts } of blocks) for (const verdict of verdicts) if (wanted(verdict)) rows += 1;
  return rows;
}

/** What both tables have of an event. Filled again and again in the same memory, which is copied into each block. */
class EventColumns {
  readonly #tenant = new Dictionary(TEXTS);
  readonly #type = new Dictionary(TEXTS);
  readonly #source = new Dictionary(TEXTS);
  readonly #subject = new Bytes();
  readonly #idText = new Bytes();
  readonly #shapes = new Dictionary(SHAPES);
  readonly #values = new Bytes();
  #idUuid = new Uint32Array(0);
  #time = new Uint32Array(0);
  #hour = new Uint32Array(0);
  #identity = new Uint32Array(0);
  #payload = new Uint32Array(0);
  #accepted = new Uint32Array(0);
  #shard = new Uint16Array(0);
  #position = new Uint32Array(0);
  #row = 0;

  /** With room for so many rows. */
  begin(rows: number): void {
    this.#row = 0;
    for (const texts of [this.#subject, this.#idText, this.#values]) texts.clear();
    for (const dictionary of [this.#tenant, this.#type, this.#source, this.#shapes]) dictionary.begin(rows);
    if (rows <= this.#shard.length) return;
    this.#time = new Uint32Array(rows * 2);
    this.#hour = new Uint32Array(rows);
    this.#identity = new Uint32Array(rows * 4);
    this.#idUuid = new Uint32Array(rows * 4);
    this.#payload = new Uint32Array(rows * 2);
    this.#accepted = new Uint32Array(rows * 2);
    this.#shard = new Uint16Array(rows);
    this.#position = new Uint32Array(rows * 2);
  }

  add(decided: DecidedBlock, at: number): void {
    const { block } = decided;
    const row = this.#row++;
    this.#tenant.put(row, block, block.tenant[at]!);
    this.#type.put(row, block, block.type[at]!);
    this.#source.put(row, block, block.source[at]!);
    putText(this.#subject, block, block.subject[at]!);
    this.#putId(row, block, at);
    const time = block.time[at]!;
    putWhole(this.#time, row, time);
    this.#hour[row] = Math.floor(time / HOUR_MS) * (HOUR_MS / 1_000);
    putIdentity(this.#identity, row, block.identity, at * 4);
    this.#payload[row * 2] = block.payloadHash[at * 2]!;
    this.#payload[row * 2 + 1] = block.payloadHash[at * 2 + 1]!;
    putWhole(this.#accepted, row, soundTime(block.acceptedAtMs));
    this.#shard[row] = decided.shard;
    putPosition(this.#position, row, decided.incarnation, positionInShard(decided.sequence, at));
    this.#shapes.put(row, block, block.shape[at]!);
    this.#putValues(block, at);
  }

  /** Nearly all ids are UUIDs: as such they take 16 bytes instead of 37. */
  #putId(row: number, { idBytes, idStart }: Block, at: number): void {
    const start = idStart[at]!;
    let end = idStart[at + 1]!;
    if (putUuid(this.#idUuid, row, idBytes, start, end)) end = start;
    else this.#idUuid.fill(0, row * 4, row * 4 + 4);
    this.#idText.slice(idBytes, start, end);
  }

  #putValues(block: Block, at: number): void {
    const { shapeStart, shapeFields, cells, textBytes, textStart } = block;
    const shape = block.shape[at]!;
    const end = shapeStart[shape + 1]!;
    const values = this.#values;
    const start = values.begin();
    let cell = block.cellStart[at]!;
    for (let field = shapeStart[shape]!; field < end; field++, cell++) {
      const code = shapeFields[field * 2 + 1]!;
      const value = cells[cell]!;
      if (code >>> 8 === FIELD_NUMBER) values.decimal(value, code & 0xff, TERMINATOR);
      else values.piece(textBytes, textStart[value]!, textStart[value + 1]!, TERMINATOR);
    }
    values.end(start);
  }

  columns(): Column[] {
    const rows = this.#row;
    return [
      this.#tenant.column('tenant', rows),
      this.#type.column('type', rows),
      collectedTexts('subject', this.#subject),
      fixedColumn('time', "DateTime64(3, 'UTC')", this.#time.subarray(0, rows * 2)),
      fixedColumn('identity', 'UUID', this.#identity.subarray(0, rows * 4)),
      this.#source.column('source', rows),
      fixedColumn('id_uuid', 'UUID', this.#idUuid.subarray(0, rows * 4)),
      collectedTexts('id_text', this.#idText),
      this.#shapes.column('data_paths', rows),
      collectedTexts('data_values', this.#values),
      fixedColumn('payload_hash', 'UInt64', this.#payload.subarray(0, rows * 2)),
      fixedColumn('accepted_at', "DateTime64(3, 'UTC')", this.#accepted.subarray(0, rows * 2)),
      fixedColumn('shard', 'UInt16', this.#shard.subarray(0, rows)),
      fixedColumn('position', 'UInt64', this.#position.subarray(0, rows * 2)),
    ];
  }

  hours(): Column {
    return fixedColumn('hour', "DateTime('UTC')", this.#hour.subarray(0, this.#row));
  }
}

export const EVENT_COLUMNS = [
  'tenant',
  'type',
  'subject',
  'time',
  'identity',
  'source',
  'id_uuid',
  'id_text',
  'data_paths',
  'data_values',
  'payload_hash',
  'accepted_at',
  'shard',
  'position',
  'hour',
];

let kept: EventColumns | undefined;

function begun(rows: number): EventColumns {
  kept ??= new EventColumns();
  kept.begin(rows);
  return kept;
}

function encodeEvents(blocks: readonly DecidedBlock[], rows: number): Encoded {
  if (rows === 0) return { rows, body: null };
  const columns = begun(rows);
  for (const decided of blocks) {
    for (let at = 0; at < decided.verdicts.length; at++) {
      if (decided.verdicts[at] === COUNTED) columns.add(decided, at);
    }
  }
  return { rows, body: encodeNative(rows, [...columns.columns(), columns.hours()]) };
}

export const REFUSED_COLUMNS = [...EVENT_COLUMNS.filter((name) => name !== 'hour'), 'verdict', 'code'];

function encodeRefused(blocks: readonly DecidedBlock[], rows: number): Encoded {
  if (rows === 0) return { rows, body: null };
  const columns = begun(rows);
  const verdicts = new Uint32Array(rows);
  const codes = new Uint32Array(rows);
  let row = 0;
  for (const decided of blocks) {
    for (let at = 0; at < decided.verdicts.length; at++) {
      const verdict = decided.verdicts[at]!;
      if (!isKept(verdict)) continue;
      columns.add(decided, at);
      verdicts[row] = verdict;
      codes[row] = verdict === REJECTED ? decided.refused[at]! : 0;
      row += 1;
    }
  }
  return {
    rows,
    body: encodeNative(rows, [
      ...columns.columns(),
      lowCardinalityColumn('verdict', VERDICTS, verdicts),
      lowCardinalityColumn('code', ['', ...REFUSALS], codes),
    ]),
  };
}

export interface UnreadableMessage {
  readonly shard: number;
  readonly incarnation: number;
  readonly sequence: number;
  /** When the log stored it, epoch milliseconds. */
  readonly timeMs: number;
  readonly message: Uint8Array;
}

/** Messages that no decoder takes, each as one row of `refused_events` with its bytes in base64. */
export function encodeUnreadable(messages: readonly UnreadableMessage[]): Uint8Array<ArrayBuffer> {
  const rows = messages.length;
  const empty = messages.map(() => '');
  const values = new Bytes();
  for (const { message } of messages) {
    const base64 = Buffer.from(message.buffer, message.byteOffset, message.byteLength).toString('base64');
    const start = values.begin();
    const bytes = Buffer.from(base64, 'latin1');
    values.piece(bytes, 0, bytes.length, TERMINATOR);
    values.end(start);
  }
  const times = messages.map(({ timeMs }) => soundTime(timeMs));
  return encodeNative(rows, [
    textColumn('tenant', empty),
    textColumn('type', empty),
    textColumn('subject', empty),
    wholeColumn('time', "DateTime64(3, 'UTC')", times),
    fixedColumn('identity', 'UUID', new Uint32Array(rows * 4)),
    textColumn('source', empty),
    fixedColumn('id_uuid', 'UUID', new Uint32Array(rows * 4)),
    textColumn('id_text', empty),
    lowCardinalityColumn('data_paths', [PATH_MESSAGE], new Uint32Array(rows)),
    collectedTexts('data_values', values),
    fixedColumn('payload_hash', 'UInt64', new Uint32Array(rows * 2)),
    wholeColumn('accepted_at', "DateTime64(3, 'UTC')", times),
    fixedColumn(
      'shard',
      'UInt16',
      Uint16Array.from(messages, ({ shard }) => shard),
    ),
    positionColumn(
      'position',
      messages.map(({ incarnation }) => incarnation),
      messages.map(({ sequence }) => positionInShard(sequence, 0)),
    ),
    textColumn(
      'verdict',
      messages.map(() => 'rejected'),
    ),
    textColumn(
      'code',
      messages.map(() => 'block_unreadable'),
    ),
  ]);
}

function putText(target: Bytes, block: Block, number: number): void {
  target.slice(block.textBytes, block.textStart[number]!, block.textStart[number + 1]!);
}

/** The edge's clock is no part of what a block must get right: what is no instant is shown as the epoch. */
export function soundTime(timeMs: number): number {
  return Number.isSafeInteger(timeMs) && timeMs >= 0 && timeMs < 2 ** 32 * 1_000 ? timeMs : 0;
}

/** What a column has of one text, or one shape, of a block. A view: it holds until the next is asked for. */
interface Kind {
  /** How many the block has. */
  count(block: Block): number;
  bytes(block: Block, number: number): Uint8Array;
}

const TEXTS: Kind = {
  count: ({ textCount }) => textCount,
  bytes: ({ textBytes, textStart }, text) => textBytes.subarray(textStart[text], textStart[text + 1]),
};

const pathsOfShape = new Bytes();

/** A shape as its paths. */
const SHAPES: Kind = {
  count: ({ shapeCount }) => shapeCount,
  bytes({ shapeStart, shapeFields, textBytes, textStart }, shape) {
    pathsOfShape.clear();
    for (let field = shapeStart[shape]!; field < shapeStart[shape + 1]!; field++) {
      const path = shapeFields[field * 2]!;
      pathsOfShape.piece(textBytes, textStart[path]!, textStart[path + 1]!, TERMINATOR);
    }
    return pathsOfShape.written;
  },
};

/** The distinct texts or shapes of a column over many blocks; each is looked up once a block. */
class Dictionary {
  readonly #kind: Kind;
  #numbers = new Uint32Array(0);
  readonly #distinct: Uint8Array[] = [];
  readonly #known = new Map<string, number>();
  #block: Block | null = null;
  #local = new Int32Array(0);

  constructor(kind: Kind) {
    this.#kind = kind;
  }

  begin(rows: number): void {
    this.#distinct.length = 0;
    this.#known.clear();
    this.#block = null;
    if (rows > this.#numbers.length) this.#numbers = new Uint32Array(rows);
  }

  /** @param number of the text or shape in the block */
  put(row: number, block: Block, number: number): void {
    if (block !== this.#block) {
      this.#block = block;
      const count = this.#kind.count(block);
      if (count > this.#local.length) this.#local = new Int32Array(count * 2);
      this.#local.fill(-1, 0, count);
    }
    const known = this.#local[number]!;
    this.#numbers[row] = known >= 0 ? known : (this.#local[number] = this.#enter(block, number));
  }

  column(name: string, rows: number): Column {
    return lowCardinalityColumn(name, this.#distinct, this.#numbers.subarray(0, rows));
  }

  #enter(block: Block, number: number): number {
    const bytes = this.#kind.bytes(block, number);
    const key = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
    let entered = this.#known.get(key);
    if (entered === undefined) {
      entered = this.#distinct.length;
      this.#known.set(key, entered);
      this.#distinct.push(bytes.slice());
    }
    return entered;
  }
}
