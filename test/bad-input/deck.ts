/**
 * One bad input: what is sent, in which way, and what must come of it, known by how it was made. Around an event
 * that is bad stand good ones, which must be taken.
 */
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';
import type { Meter } from '../../contract/meter.ts';
import type { EdgeRejectionCode } from '../../contract/rejections.ts';
import * as msgpack from '../msgpack-encoder.ts';
import {
  Dice,
  Dict,
  Junk,
  Num,
  Packed,
  dict,
  fitsDouble,
  lineOf,
  num,
  storedOf,
  within,
  type Value,
  type Writer,
} from './values.ts';
import { JsonWriter, MsgpackWriter } from './writers.ts';

interface Way {
  /** A frame of a stream carries what the body of a request is. */
  readonly door: 'http' | 'stream';
  readonly path: '/v1/events' | '/api/v1/events' | '/v1/stream';
  /** The content type, or the subprotocol. */
  readonly type: string;
  readonly format: 'json' | 'ndjson' | 'cloudevents' | 'cloudevents-batch' | 'msgpack';
  /** It has room for more than one event. */
  readonly many: boolean;
  /** Its events are CloudEvents, with what those require. */
  readonly cloud: boolean;
}

const http = (type: string, format: Way['format'], many: boolean, cloud: boolean): Way => ({
  door: 'http',
  path: '/v1/events',
  type,
  format,
  many,
  cloud,
});
const stream = (type: string, format: Way['format']): Way => ({
  door: 'stream',
  path: '/v1/stream',
  type,
  format,
  many: true,
  cloud: false,
});
const batchType = 'application/cloudevents-batch+json';

/** Every way in. */
export const WAYS = {
  json: http('application/json', 'json', true, false),
  'json one': http('application/json', 'json', false, false),
  ndjson: http('application/x-ndjson', 'ndjson', true, false),
  msgpack: http('application/msgpack', 'msgpack', true, false),
  'msgpack one': http('application/msgpack', 'msgpack', false, false),
  cloudevents: http('application/cloudevents+json', 'cloudevents', false, true),
  'cloudevents batch': http(batchType, 'cloudevents-batch', true, true),
  /** Attributes in header fields; the body is `data`. */
  binary: http('application/json', 'cloudevents', false, true),
  openmeter: { ...http(batchType, 'cloudevents-batch', true, true), path: '/api/v1/events' },
  'stream json': stream('tallyline.v1.json', 'json'),
  'stream msgpack': stream('tallyline.v1.msgpack', 'msgpack'),
} as const satisfies Record<string, Way>;
export type WayName = keyof typeof WAYS;
export const WAY_NAMES = Object.keys(WAYS) as WayName[];
export const wayOf = (name: WayName): Way => WAYS[name];
export const isRequest = (name: WayName): boolean => wayOf(name).door === 'http';
export const isMsgpack = (name: WayName): boolean => WAYS[name].format === 'msgpack';
export const isLines = (name: WayName): boolean => WAYS[name].format === 'ndjson';

export type Encoding = 'identity' | 'gzip' | 'br';

export interface Refusal {
  readonly index: number;
  readonly id: string | null;
  /** Null: whichever. */
  readonly code: EdgeRejectionCode | null;
}

export type Expected =
  /** The body was read: these are stored, as `lineOf` writes them, and these rejected. */
  | {
      readonly kind: 'events';
      readonly stored: readonly string[];
      readonly rejected: readonly Refusal[];
      /** Of the stored ones, those that no meter counts. */
      readonly unmatched: number;
    }
  /** Nothing of it counts. */
  | { readonly kind: 'refused'; readonly code: EdgeRejectionCode }
  /** The stream ends, with one of these codes. */
  | { readonly kind: 'ended'; readonly codes: readonly number[] };

export interface BadInput {
  readonly name: string;
  readonly way: WayName;
  readonly encoding: Encoding;
  /** Before compression. In a stream: the value of `events`. */
  readonly body: Uint8Array;
  /** What is sent when it is not the body, compressed: a body that is not what its encoding says, a whole frame. */
  readonly sent: Uint8Array | null;
  /** Header fields beside, or instead of, those that the way has. */
  readonly headers: Readonly<Record<string, string | string[]>>;
  /** Sent in pieces, without a declared length. */
  readonly isChunked: boolean;
  readonly expected: Expected;
  /** What is peculiar to this one input, so that two that differ in nothing else are counted once. */
  readonly tag: string;
}

export const TENANT = 'hostile';
/** Counted by no meter, as any type that is not below. */
export const TYPE = 'bad.plain';
export const METERS: readonly Meter[] = [
  { key: 'flat', eventType: 'bad.flat', aggregation: 'sum', valueProperty: 'tokens', groupBy: [] },
  { key: 'nested', eventType: 'bad.nested', aggregation: 'max', valueProperty: 'usage.tokens', groupBy: [] },
  { key: 'counted', eventType: 'bad.counted', aggregation: 'count', valueProperty: null, groupBy: [] },
];

/** Whether the way can say such an event at all. */
export function isSayable(name: WayName, event: Value): boolean {
  const way = wayOf(name);
  for (const one of within(event)) {
    if (isMsgpack(name) ? one instanceof Junk : one instanceof Packed) return false;
    if (isMsgpack(name) && one instanceof Num && !fitsDouble(one.digits)) return false;
    if (!(one instanceof Dict)) continue;
    const isText = one.entries.every(([key]) => typeof key === 'string' || key instanceof Junk);
    if (!isText && !isMsgpack(name)) return false;
  }
  if (name === 'binary') return event instanceof Dict && isOfHeaders(event);
  // Of one value that is a list, its elements are the events.
  return way.many || !Array.isArray(event);
}

const NOT_IN_HEADERS = ['data_base64', 'datacontenttype', 'dataschema'];

/** uWebSockets takes 4 KiB of header fields, and a byte takes three characters there. */
const HEADER_BYTES_MAX = 1_000;

function isOfHeaders(event: Dict): boolean {
  const names = event.entries.map(([key]) => key);
  if (new Set(names).size !== names.length || !event.get('specversion')) return false;
  let bytes = 0;
  for (const [key, value] of event.entries) {
    if (key === 'data') continue;
    if (typeof key !== 'string' || typeof value !== 'string') return false;
    if (!/^[a-z]+$/.test(key) || NOT_IN_HEADERS.includes(key)) return false;
    bytes += key.length + msgpack.wtf8(value).length;
  }
  return bytes <= HEADER_BYTES_MAX;
}

function percentEncoded(text: string): string {
  const bytes = Buffer.from(msgpack.wtf8(text));
  return bytes.toString('latin1').replace(/[^0-9A-Za-z._-]/g, (character) => {
    return `%${character.charCodeAt(0).toString(16).padStart(2, '0').toUpperCase()}`;
  });
}

/** The id that a rejection names the event by. */
function idOf(event: Value): string | null {
  const id = event instanceof Dict ? event.get('id') : null;
  return typeof id === 'string' && id.isWellFormed() && Buffer.byteLength(id) <= 256 ? id : null;
}

/** One of the events of an input. */
export interface Part {
  readonly event: Value;
  /** Null: it is taken. */
  readonly code: EdgeRejectionCode | null;
  /** The instant of its time, where Date.parse would not find it. */
  readonly timeMs?: number | undefined;
  /** What names it in a rejection, when that is not its id. */
  readonly id?: string | null;
}

type Rest = Partial<Pick<BadInput, 'encoding' | 'sent' | 'headers' | 'isChunked'>>;

export class Deck {
  readonly inputs: BadInput[] = [];
  readonly dice: Dice;

  constructor(seed: number) {
    this.dice = new Dice(seed);
  }

  /** A word for the ids of one input, as long as every other. */
  tag(): string {
    return `q${this.inputs.length.toString(36).padStart(4, '0')}z`;
  }

  /** A good event with nothing special, by a number that no other event of the input has. */
  good(way: WayName, tag: string, number: number): Dict {
    const event = dict(
      ['id', `${tag}-${number}`],
      ['source', tag],
      ['type', TYPE],
      ['subject', 'cus_1'],
      ['data', dict(['n', num(number)])],
    );
    return wayOf(way).cloud ? new Dict([['specversion', '1.0'], ...event.entries]) : event;
  }

  /** In another spelling each time, and in the usual one every other time. */
  writer(way: WayName, isPlain = this.dice.oneIn(2)): Writer {
    const dice = isPlain ? null : this.dice;
    if (!isMsgpack(way)) return new JsonWriter(dice, isLines(way));
    return new MsgpackWriter(dice);
  }

  add(input: Pick<BadInput, 'name' | 'way' | 'body' | 'expected'> & Rest, tag = this.tag()): void {
    this.inputs.push({
      encoding: 'identity',
      sent: null,
      headers: {},
      isChunked: false,
      ...input,
      name: `${input.name} [${input.way}]`,
      tag,
    });
  }

  /** An input of one event; where there is room, between two good ones. */
  between(
    name: string,
    way: WayName,
    tag: string,
    part: Part,
    writer = this.writer(way),
    rest: Rest = {},
  ): void {
    const good = (number: number): Part => ({ event: this.good(way, tag, number), code: null });
    const parts = wayOf(way).many ? [good(0), part, good(2)] : [part];
    this.events(name, way, tag, parts, writer, rest);
  }

  events(
    name: string,
    way: WayName,
    tag: string,
    parts: readonly Part[],
    writer = this.writer(way),
    rest: Rest = {},
  ): void {
    const written = parts.map(({ event }) => {
      const value = way === 'binary' ? (event as Dict).get('data') : event;
      return value === undefined ? Buffer.alloc(0) : writer.write(value);
    });
    const expected = expectedOf(parts, writer);
    const headers = way === 'binary' ? headersOf(parts[0]!.event as Dict) : {};
    this.add({ name, way, body: this.joined(way, written), headers, expected, ...rest }, tag);
  }

  /** The events, written down, as a body. */
  joined(way: WayName, events: readonly Uint8Array[]): Buffer {
    if (!wayOf(way).many) return Buffer.from(events[0]!);
    if (isMsgpack(way)) return Buffer.from(msgpack.array(events));
    const between = isLines(way) ? this.dice.pick(['\n', '\n', '\r\n']) : ',';
    const parts = events.flatMap((event, at) => (at === 0 ? [event] : [Buffer.from(between), event]));
    if (isLines(way)) return Buffer.concat(this.dice.oneIn(2) ? parts : [...parts, Buffer.from('\n')]);
    return Buffer.concat([Buffer.from('['), ...parts, Buffer.from(']')]);
  }
}

export function headersOf(event: Dict): Record<string, string> {
  const fields = event.entries.filter(([key]) => key !== 'data');
  return Object.fromEntries(
    fields.map(([key, value]) => [`ce-${String(key)}`, percentEncoded(String(value))]),
  );
}

export function expectedOf(parts: readonly Part[], writer: Writer): Expected {
  const stored: string[] = [];
  const rejected: Refusal[] = [];
  let unmatched = 0;
  parts.forEach(({ event, code, timeMs, id = idOf(event) }, index) => {
    if (code !== null) return rejected.push({ index, id, code });
    const found = storedOf(event as Dict, writer, timeMs);
    stored.push(lineOf(found));
    const isCounted = METERS.some(({ eventType }) => eventType === found.type);
    if (!isCounted && found.type !== 'tallyline.void') unmatched += 1;
  });
  return { kind: 'events', stored, rejected, unmatched };
}

/** What goes over the wire as the body of a request. */
export function sentBody({ sent, body, encoding }: BadInput): Uint8Array {
  if (sent !== null) return sent;
  if (encoding === 'gzip') return gzipSync(body, { level: 1 });
  if (encoding === 'br') {
    return brotliCompressSync(body, { params: { [constants.BROTLI_PARAM_QUALITY]: 1 } });
  }
  return body;
}
