/**
 * Decided blocks as rows of `events` and `refused_events`, in Native format, in a worker. Texts go from the
 * block to the column as the bytes they are; only numbers in `data` are written out.
 */
import type { Block } from '../contract/block.ts';
import { FIELD_NUMBER } from '../contract/fields.ts';
import { unscaleDecimal } from '../contract/quantity.ts';
import { VERDICTS } from '../contract/verdicts.ts';
import { HOUR_MS } from '../contract/window.ts';
import {
  Bytes,
  collectedTexts,
  encodeNative,
  fixedColumn,
  lowCardinalityColumn,
  mapColumn,
  positionColumn,
  putIdentity,
  textColumn,
  wholeColumn,
  type Column,
} from './native.ts';
import { positionInShard } from './position-in-shard.ts';
import { REFUSALS } from './prepare.ts';
import { CONFLICT, COUNTED, LATE, REJECTED } from './verdict.ts';

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

/** What both tables have of an event. */
class EventColumns {
  readonly #tenant: Dictionary;
  readonly #type: Dictionary;
  readonly #source: Dictionary;
  readonly #subject: Bytes;
  readonly #id: Bytes;
  readonly #time: Float64Array;
  readonly #identity: Uint32Array;
  readonly #payload: Uint32Array;
  readonly #accepted: Float64Array;
  readonly #shard: Uint16Array;
  readonly #incarnation: Uint8Array;
  readonly #position: Float64Array;
  readonly #fields: Uint32Array;
  readonly #paths: Bytes;
  readonly #values: Bytes;
  #row = 0;

  constructor(rows: number) {
    this.#tenant = new Dictionary(rows);
    this.#type = new Dictionary(rows);
    this.#source = new Dictionary(rows);
    this.#subject = new Bytes(rows * 16);
    this.#id = new Bytes(rows * 24);
    this.#time = new Float64Array(rows);
    this.#identity = new Uint32Array(rows * 4);
    this.#payload = new Uint32Array(rows * 2);
    this.#accepted = new Float64Array(rows);
    this.#shard = new Uint16Array(rows);
    this.#incarnation = new Uint8Array(rows);
    this.#position = new Float64Array(rows);
    this.#fields = new Uint32Array(rows);
    this.#paths = new Bytes(rows * 24);
    this.#values = new Bytes(rows * 16);
  }

  add(decided: DecidedBlock, at: number): void {
    const { block } = decided;
    const row = this.#row++;
    this.#tenant.put(row, block, block.tenant[at]!);
    this.#type.put(row, block, block.type[at]!);
    this.#source.put(row, block, block.source[at]!);
    putText(this.#subject, block, block.subject[at]!);
    this.#id.slice(block.idBytes, block.idStart[at]!, block.idStart[at + 1]!);
    this.#time[row] = block.time[at]!;
    putIdentity(this.#identity, row, block.identity, at * 4);
    this.#payload[row * 2] = block.payloadHash[at * 2]!;
    this.#payload[row * 2 + 1] = block.payloadHash[at * 2 + 1]!;
    this.#accepted[row] = soundTime(block.acceptedAtMs);
    this.#shard[row] = decided.shard;
    this.#incarnation[row] = decided.incarnation;
    this.#position[row] = positionInShard(decided.sequence, at);
    this.#fields[row] = this.#data(block, at);
  }

  #data(block: Block, at: number): number {
    const { shapeStart, shapeFields, cells } = block;
    const first = shapeStart[block.shape[at]!]!;
    const end = shapeStart[block.shape[at]! + 1]!;
    let cell = block.cellStart[at]!;
    for (let field = first; field < end; field++, cell++) {
      putText(this.#paths, block, shapeFields[field * 2]!);
      const code = shapeFields[field * 2 + 1]!;
      const value = cells[cell]!;
      if (code >>> 8 !== FIELD_NUMBER) putText(this.#values, block, value);
      else if ((code & 0xff) === 0) this.#values.text(String(value));
      else this.#values.text(unscaleDecimal(BigInt(value), code & 0xff));
    }
    return end - first;
  }

  columns(): Column[] {
    return [
      this.#tenant.column('tenant'),
      this.#type.column('type'),
      collectedTexts('subject', this.#subject),
      wholeColumn('time', "DateTime64(3, 'UTC')", this.#time),
      fixedColumn('identity', 'UUID', this.#identity),
      this.#source.column('source'),
      collectedTexts('id', this.#id),
      mapColumn('data', this.#fields, this.#paths, this.#values),
      fixedColumn('payload_hash', 'UInt64', this.#payload),
      wholeColumn('accepted_at', "DateTime64(3, 'UTC')", this.#accepted),
      fixedColumn('shard', 'UInt16', this.#shard),
      positionColumn('position', this.#incarnation, this.#position),
    ];
  }

  hours(): Column {
    const hours = Uint32Array.from(this.#time, (time) => Math.floor(time / HOUR_MS) * (HOUR_MS / 1_000));
    return fixedColumn('hour', "DateTime('UTC')", hours);
  }
}

export const EVENT_COLUMNS = [
  'tenant',
  'type',
  'subject',
  'time',
  'identity',
  'source',
  'id',
  'data',
  'payload_hash',
  'accepted_at',
  'shard',
  'position',
  'hour',
];

function encodeEvents(blocks: readonly DecidedBlock[], rows: number): Encoded {
  if (rows === 0) return { rows, body: null };
  const columns = new EventColumns(rows);
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
  const columns = new EventColumns(rows);
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
  const paths = new Bytes();
  const values = new Bytes();
  for (const { message } of messages) {
    paths.text('message');
    values.text(Buffer.from(message.buffer, message.byteOffset, message.byteLength).toString('base64'));
  }
  const times = messages.map(({ timeMs }) => soundTime(timeMs));
  return encodeNative(rows, [
    textColumn('tenant', empty),
    textColumn('type', empty),
    textColumn('subject', empty),
    wholeColumn('time', "DateTime64(3, 'UTC')", times),
    fixedColumn('identity', 'UUID', new Uint32Array(rows * 4)),
    textColumn('source', empty),
    textColumn('id', empty),
    mapColumn('data', new Uint8Array(rows).fill(1), paths, values),
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

/** The distinct texts of a column over many blocks; a text is looked up once a block. */
class Dictionary {
  readonly #numbers: Uint32Array;
  readonly #texts: string[] = [];
  readonly #known = new Map<string, number>();
  #block: Block | null = null;
  #local = new Int32Array(0);

  constructor(rows: number) {
    this.#numbers = new Uint32Array(rows);
  }

  put(row: number, block: Block, text: number): void {
    if (block !== this.#block) {
      this.#block = block;
      this.#local = new Int32Array(block.textCount).fill(-1);
    }
    const known = this.#local[text]!;
    this.#numbers[row] = known >= 0 ? known : (this.#local[text] = this.#number(block, text));
  }

  column(name: string): Column {
    return lowCardinalityColumn(name, this.#texts, this.#numbers);
  }

  #number(block: Block, at: number): number {
    const text = Buffer.from(
      block.textBytes.buffer,
      block.textBytes.byteOffset + block.textStart[at]!,
      block.textStart[at + 1]! - block.textStart[at]!,
    ).toString('utf8');
    let number = this.#known.get(text);
    if (number === undefined) {
      number = this.#texts.length;
      this.#known.set(text, number);
      this.#texts.push(text);
    }
    return number;
  }
}
