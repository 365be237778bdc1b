/** Bodies that are too large, too many, too deep, or become it. */
import { brotliCompressSync, constants, deflateRawSync } from 'node:zlib';
import {
  WAY_NAMES,
  headersOf,
  isLines,
  isMsgpack,
  isRequest,
  wayOf,
  type Deck,
  type Expected,
  type Part,
} from './deck.ts';
import { refused } from './refusals.ts';
import { Junk, Packed, dict, lineOf, num, storedOf, type Dict } from './values.ts';
import { JsonWriter } from './writers.ts';

export const BODY_BYTES_MAX = 8_388_608;
export const BATCH_EVENTS_MAX = 10_000;
export const FRAME_BYTES_MAX = 1_048_576;

/**
 * A megabyte of gzip that becomes a gigabyte: a block of 1 MiB of spaces that refers to nothing before it, a
 * thousand times. Nobody gets to its checksum.
 */
function gzipBomb(): Buffer {
  const block = deflateRawSync(Buffer.alloc(1_048_576, 0x20), { finishFlush: constants.Z_FULL_FLUSH });
  const head = Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);
  return Buffer.concat([
    head,
    ...Array.from({ length: 1_024 }, () => block),
    Buffer.from([3, 0]),
    Buffer.alloc(8),
  ]);
}

export function bombInputs(deck: Deck): void {
  const bomb = gzipBomb();
  const zeros = Buffer.alloc(64 * 1_048_576);
  const brotli = brotliCompressSync(zeros, { params: { [constants.BROTLI_PARAM_QUALITY]: 1 } });
  for (const way of ['json', 'ndjson', 'msgpack', 'cloudevents', 'binary', 'openmeter'] as const) {
    const headers = way === 'binary' ? headersOf(deck.good('binary', deck.tag(), 1)) : {};
    const input = {
      way,
      body: Buffer.from(`a gigabyte for ${way}`),
      headers,
      expected: refused('body_too_large'),
    };
    deck.add({ ...input, name: 'a bomb of gzip', sent: bomb, encoding: 'gzip' });
    deck.add({ ...input, name: 'a bomb of brotli', sent: brotli, encoding: 'br' });
  }
}

/** Brackets in brackets. `data` that is nested too deeply is a fault of one event, however deeply. */
export function nestedInputs(deck: Deck): void {
  const levels = 100_000;
  const open = (bracket: string): Buffer => Buffer.from(bracket.repeat(levels));
  const around = (bracket: string, close: string): Buffer =>
    Buffer.from(`${bracket.repeat(levels)}1${close.repeat(levels)}`);
  for (const way of ['json', 'json one', 'cloudevents', 'stream json'] as const) {
    for (const bracket of ['[', '{"a":', '[{"a":', '{"data":{"a":['])
      deck.add({
        name: `${levels} of ${bracket}`,
        way,
        body: open(bracket).subarray(0, FRAME_BYTES_MAX - 100),
        expected: refused('body_not_json'),
      });
  }
  const bodies: readonly (readonly [string, Buffer, Uint8Array])[] = [
    ['lists', around('[', ']'), packed(levels, [0x91])],
    ['objects', around('{"a":', '}'), packed(levels, [0x81, 0xa1, 0x61])],
    ['both', around('[{"a":', '}]'), packed(levels, [0x91, 0x81, 0xa1, 0x61])],
  ];
  for (const way of WAY_NAMES) {
    if (way === 'msgpack one' || way === 'cloudevents') continue;
    for (const [name, asJson, asMsgpack] of bodies) {
      if (!isRequest(way) && Math.max(asMsgpack.length, asJson.length) > FRAME_BYTES_MAX - 1_000) continue;
      const bomb = isMsgpack(way) ? new Packed(asMsgpack) : new Junk(asJson);
      const tag = deck.tag();
      const good = deck.good(way, tag, 1);
      const inside = good.with('data', dict(['n', num(1)], ['deep', bomb]));
      deck.between(`data of ${levels} ${name}`, way, tag, { event: inside, code: 'data_too_deep' });
      if (way === 'binary' || name !== 'both') continue;
      const more = deck.tag();
      const attribute = deck.good(way, more, 1).with('subject', bomb);
      deck.between(`a subject of ${levels} ${name}`, way, more, { event: attribute, code: 'field_not_text' });
    }
  }
}

function packed(levels: number, head: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(levels * head.length + 1);
  for (let at = 0; at < bytes.length; at++) bytes[at] = head[at % head.length]!;
  bytes[bytes.length - 1] = 0xc0;
  return bytes;
}

const EXTENTS = [
  [0, 'identity'],
  [1, 'identity'],
  [1, 'gzip'],
  [0, 'gzip'],
  [0, 'br'],
  [1, 'br'],
] as const;

export function sizeInputs(deck: Deck): void {
  const tooLarge = refused('body_too_large');
  // Exactly as large as a body may be: padded with white space, in msgpack with an event that is too large itself.
  for (const way of ['json', 'ndjson', 'msgpack', 'cloudevents batch', 'openmeter'] as const) {
    const extents = way === 'json' ? EXTENTS : EXTENTS.slice(0, 3);
    for (const [more, encoding] of extents) {
      const tag = deck.tag();
      const parts: Part[] = [{ event: deck.good(way, tag, 0), code: null }];
      const size = BODY_BYTES_MAX + more;
      const writer = deck.writer(way, true);
      let body: Buffer;
      if (isMsgpack(way)) {
        const without = deck.joined(
          way,
          [deck.good(way, tag, 0), deck.good(way, tag, 1).with('data', dict(['v', '']))].map((event) =>
            writer.write(event),
          ),
        );
        // A text of this length has a head of five bytes instead of one.
        const large = deck.good(way, tag, 1).with('data', dict(['v', 'x'.repeat(size - without.length - 4)]));
        parts.push({ event: large, code: 'event_too_large' });
        body = deck.joined(
          way,
          parts.map(({ event }) => writer.write(event)),
        );
      } else {
        const one = writer.write(deck.good(way, tag, 0)).toString();
        const text = isLines(way) ? one : `[${one}]`;
        body = Buffer.from(`${' '.repeat(size - text.length)}${text}`);
      }
      if (body.length !== size) throw new Error(`${body.length} bytes instead of ${size}`);
      const stored = [lineOf(storedOf(parts[0]!.event as Dict, writer))];
      const rejected =
        parts.length === 1 ? [] : [{ index: 1, id: `${tag}-1`, code: 'event_too_large' as const }];
      const expected: Expected = more === 0 ? { kind: 'events', stored, rejected, unmatched: 1 } : tooLarge;
      const name = `a body of ${size} bytes, ${encoding}`;
      deck.add({ name, way, body, encoding, expected }, tag);
      if (encoding === 'identity' && more === 1)
        deck.add({ name: `${name}, in pieces`, way, body, isChunked: true, expected });
    }
  }
  for (const way of ['binary', 'json one', 'msgpack one', 'cloudevents'] as const) {
    const headers = way === 'binary' ? headersOf(deck.good('binary', deck.tag(), 1)) : {};
    deck.add({
      name: 'a body too large',
      way,
      body: Buffer.alloc(BODY_BYTES_MAX + 1, 0x20),
      headers,
      expected: tooLarge,
    });
  }
  // A body in pieces is a body.
  for (const way of ['json', 'msgpack', 'ndjson'] as const) {
    const tag = deck.tag();
    deck.between('a body in pieces', way, tag, { event: deck.good(way, tag, 1), code: null }, undefined, {
      isChunked: true,
    });
  }
}

export function countInputs(deck: Deck): void {
  for (const way of WAY_NAMES) {
    if (!wayOf(way).many) continue;
    for (const count of [BATCH_EVENTS_MAX, BATCH_EVENTS_MAX + 1]) {
      // All of them are taken over a few ways; over the others it is enough that one more is not.
      if (count === BATCH_EVENTS_MAX && !['json', 'msgpack'].includes(way)) continue;
      const tag = deck.tag();
      const writer = deck.writer(way, true);
      const events = Array.from({ length: count }, (_, at) => {
        const [id, type] = [`${tag}.${at}`, 't'];
        return wayOf(way).cloud
          ? dict(['specversion', '1.0'], ['id', id], ['source', tag], ['type', type], ['subject', 's'])
          : dict(['id', id], ['type', type], ['subject', 's']);
      });
      const body = deck.joined(
        way,
        events.map((event) => writer.write(event)),
      );
      const expected: Expected =
        count > BATCH_EVENTS_MAX
          ? refused('batch_too_large')
          : {
              kind: 'events',
              stored: events.map((event) => lineOf(storedOf(event, writer))),
              rejected: [],
              unmatched: count,
            };
      deck.add({ name: `${count} events`, way, body, expected }, tag);
    }
  }
  // Blank lines are no events.
  const tag = deck.tag();
  const blank = Buffer.from('\n'.repeat(20_000));
  const writer = new JsonWriter(null, true);
  const event = deck.good('ndjson', tag, 0);
  const line = writer.write(event);
  const stored = [lineOf(storedOf(event, writer))];
  const expected: Expected = { kind: 'events', stored, rejected: [], unmatched: 1 };
  deck.add({ name: 'blank lines', way: 'ndjson', body: Buffer.concat([blank, line, blank]), expected }, tag);
  // Ten thousand events without a good one: the answer names them all.
  const bad = Buffer.from(`[${'0,'.repeat(BATCH_EVENTS_MAX - 1)}0]`);
  const rejected = Array.from({ length: BATCH_EVENTS_MAX }, (_, index) => ({
    index,
    id: null,
    code: 'event_not_an_object' as const,
  }));
  deck.add({
    name: 'ten thousand zeros',
    way: 'json',
    body: bad,
    expected: { kind: 'events', stored: [], rejected, unmatched: 0 },
  });
}

/** Keys that nobody sent before, more of them than an edge remembers: what it knew of others must not be mixed up. */
export function placeInputs(deck: Deck): void {
  const [bodies, events, fields] = [4, 80, 60];
  for (const way of ['json', 'msgpack'] as const) {
    for (let body = 0; body < bodies; body++) {
      const tag = deck.tag();
      const parts = Array.from({ length: events }, (_, event): Part => {
        const keys = Array.from({ length: fields }, (_, at) => [`${tag}${event}-${at}`, num(at)] as const);
        return { event: deck.good(way, tag, event).with('data', dict(...keys)), code: null };
      });
      deck.events('many keys', way, tag, parts, deck.writer(way, true));
    }
  }
}
