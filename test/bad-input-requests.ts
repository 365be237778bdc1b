/** What is wrong with a request before a byte of its body is read, or with its size: types, encodings, bombs, limits. */
import { brotliCompressSync, constants, deflateRawSync, deflateSync, gzipSync } from 'node:zlib';
import type { EdgeRejectionCode } from '../contract/rejections.ts';
import {
  WAY_NAMES,
  headersOf,
  isLines,
  isMsgpack,
  isRequest,
  wayOf,
  type BadInput,
  type Deck,
  type Expected,
  type Part,
  type WayName,
} from './bad-input-deck.ts';
import { Junk, JsonWriter, Packed, dict, lineOf, num, storedOf, type Dict } from './bad-input-values.ts';
import * as msgpack from './msgpack-encoder.ts';

export const BODY_BYTES_MAX = 8_388_608;
export const BATCH_EVENTS_MAX = 10_000;
const FRAME_BYTES_MAX = 1_048_576;

const refused = (code: EdgeRejectionCode): Expected => ({ kind: 'refused', code });
const HTTP_WAYS = WAY_NAMES.filter(isRequest);

export function requestInputs(deck: Deck): void {
  contentTypes(deck);
  encodings(deck);
  bombs(deck);
  sizes(deck);
}

function contentTypes(deck: Deck): void {
  const unknown = [
    ...[
      'text/plain',
      'text/json',
      'application/xml',
      'application/x-www-form-urlencoded',
      'multipart/form-data',
    ],
    ...[
      'application/octet-stream',
      'application/jsonx',
      'application/x-json',
      'json',
      '*/*',
      'application/*',
      '',
    ],
    ...[
      'application/json, application/json',
      'application/json; charset=utf-16',
      'application/json;charset=latin1',
    ],
    ...[
      'application/json; charset="iso-8859-1"',
      'application/vnd.acme+json',
      '__proto__',
      'constructor',
      'toString',
    ],
    ...[
      'application/cloudevents',
      'application/cloudevents+xml',
      'application/cloudevents-batch',
      'application/bson',
    ],
  ];
  for (const type of unknown) {
    const tag = deck.tag();
    const body = new JsonWriter(null, false).write(deck.good('json', tag, 1));
    const headers = { 'content-type': type };
    deck.add(
      {
        name: `content type ${JSON.stringify(type)}`,
        way: 'json',
        body,
        headers,
        expected: refused('content_type_unknown'),
      },
      tag,
    );
  }
  for (const type of [
    'text/plain',
    'application/xml',
    'application/msgpack',
    'application/x-ndjson',
    'application/json; charset=utf-16',
  ]) {
    const tag = deck.tag();
    const headers = { ...headersOf(deck.good('binary', tag, 1)), 'content-type': type };
    const expected = refused('content_type_unknown');
    deck.add(
      { name: `binary mode with ${type}`, way: 'binary', body: Buffer.from('{}'), headers, expected },
      tag,
    );
  }
  const taken: readonly (readonly [WayName, string])[] = [
    ['json', 'APPLICATION/JSON'],
    ['json', 'application/json; charset=utf-8'],
    ['json', 'application/json;charset="UTF-8"; v=1'],
    ['ndjson', 'application/ndjson'],
    ['ndjson', 'application/jsonl'],
    ['msgpack', 'application/x-msgpack'],
    ['msgpack', 'application/vnd.msgpack'],
    ['binary', 'application/vnd.acme+json'],
    ['binary', 'text/json'],
  ];
  for (const [way, type] of taken) {
    const tag = deck.tag();
    const part: Part = { event: deck.good(way, tag, 1), code: null };
    const attributes = way === 'binary' ? headersOf(part.event as Dict) : {};
    const headers = { ...attributes, 'content-type': type };
    deck.between(`content type ${type}`, way, tag, part, deck.writer(way, true), { headers });
  }
  headerFields(deck);
}

/** In binary mode the header is a part of the event. */
function headerFields(deck: Deck): void {
  const bad: readonly (readonly [string, EdgeRejectionCode, Record<string, string | string[]>])[] = [
    ['an id twice', 'key_repeated', { 'ce-id': ['a', 'a'] }],
    ['a subject twice', 'key_repeated', { 'ce-subject': ['a', 'b'] }],
    ['a raw byte beyond ASCII', 'text_not_unicode', { 'ce-subject': 'caf\u00e9s' }],
    ['half an escape', 'text_not_unicode', { 'ce-subject': '%4' }],
    ['no escape', 'text_not_unicode', { 'ce-subject': '100%' }],
    ['an escape of letters', 'text_not_unicode', { 'ce-subject': '%zz' }],
    ['an overlong escape', 'text_not_unicode', { 'ce-type': '%C0%AF' }],
    ['an escaped surrogate', 'text_not_unicode', { 'ce-source': '%ED%A0%80' }],
    ['an escaped part of a character', 'text_not_unicode', { 'ce-source': '%E2%82' }],
    ['an open quote', 'text_not_unicode', { 'ce-subject': '"a' }],
    ['an escaped NUL', 'text_has_control', { 'ce-subject': 'a%00' }],
    ['an escaped line break', 'text_has_control', { 'ce-id': 'a%0D%0Ax-evil%3A 1' }],
    ['a quote that ends the text', 'text_not_unicode', { 'ce-subject': '"a","id":"b"' }],
  ];
  for (const [name, code, fields] of bad) {
    const tag = deck.tag();
    const headers = { ...headersOf(deck.good('binary', tag, 1)), ...fields };
    const ids = fields['ce-id'];
    const id = ids === undefined ? `${tag}-1` : Array.isArray(ids) ? 'a' : 'a\r\nx-evil: 1';
    const expected: Expected = {
      kind: 'events',
      stored: [],
      rejected: [{ index: 0, id, code }],
      unmatched: 0,
    };
    deck.add({ name, way: 'binary', body: Buffer.from('{}'), headers, expected }, tag);
  }
  // Encoded once, decoded once; what looks like JSON in a header is a text.
  for (const [value, text] of [
    ['100%2541', '100%41'],
    ['a%22%2C%22id%22%3A%22b', 'a","id":"b'],
    ['"a \\"b\\""', 'a "b"'],
    ['a+b', 'a+b'],
  ] as const) {
    const tag = deck.tag();
    const event = deck.good('binary', tag, 1);
    const headers = { ...headersOf(event), 'ce-subject': value };
    const writer = new JsonWriter(null, false);
    const body = writer.write(event.get('data')!);
    const stored = [lineOf(storedOf(event.with('subject', text), writer))];
    const expected: Expected = { kind: 'events', stored, rejected: [], unmatched: 1 };
    deck.add({ name: `a subject ${value}`, way: 'binary', body, headers, expected }, tag);
  }
}

function encodings(deck: Deck): void {
  for (const encoding of [
    'deflate',
    'zstd',
    'compress',
    'gzip, gzip',
    'br, gzip',
    'gzip;q=1',
    'utf-8',
    '*',
    'gzip br',
    '__proto__',
  ]) {
    for (const way of ['json', 'msgpack'] as const) {
      const tag = deck.tag();
      const body = deck.writer(way, true).write(deck.good(way, tag, 1));
      const headers = { 'content-encoding': encoding };
      const expected = refused('content_encoding_unknown');
      deck.add({ name: `encoding ${encoding}`, way, body, headers, expected }, tag);
    }
  }
  const faults: readonly (readonly [string, 'gzip' | 'br', (body: Uint8Array) => Uint8Array])[] = [
    ['no gzip', 'gzip', (body) => body],
    ['nothing as gzip', 'gzip', () => Buffer.alloc(0)],
    ['the head of gzip alone', 'gzip', (body) => gzipSync(body).subarray(0, 10)],
    ['half of gzip', 'gzip', (body) => gzipSync(body).subarray(0, gzipSync(body).length >> 1)],
    ['gzip without its last byte', 'gzip', (body) => gzipSync(body).subarray(0, -1)],
    ['gzip without its end', 'gzip', (body) => gzipSync(body).subarray(0, -8)],
    ['gzip of a wrong checksum', 'gzip', (body) => changed(gzipSync(body), -8)],
    ['gzip of a wrong length', 'gzip', (body) => changed(gzipSync(body), -1)],
    ['gzip of a wrong block', 'gzip', (body) => changed(gzipSync(body), 10)],
    ['gzip of another method', 'gzip', (body) => changed(gzipSync(body), 2)],
    ['gzip and more', 'gzip', (body) => Buffer.concat([gzipSync(body), Buffer.from('more')])],
    ['gzip and more events', 'gzip', (body) => Buffer.concat([gzipSync(body), body])],
    [
      'gzip and half of another',
      'gzip',
      (body) => Buffer.concat([gzipSync(body), gzipSync(body).subarray(0, 12)]),
    ],
    ['deflate as gzip', 'gzip', (body) => deflateSync(body)],
    ['raw deflate as gzip', 'gzip', (body) => deflateRawSync(body)],
    ['brotli as gzip', 'gzip', (body) => brotliCompressSync(body)],
    ['gzip as brotli', 'br', (body) => gzipSync(body)],
    ['no brotli', 'br', (body) => body],
    ['nothing as brotli', 'br', () => Buffer.alloc(0)],
    [
      'half of brotli',
      'br',
      (body) => brotliCompressSync(body).subarray(0, brotliCompressSync(body).length >> 1),
    ],
    ['brotli without its last byte', 'br', (body) => brotliCompressSync(body).subarray(0, -1)],
    ['brotli and more', 'br', (body) => Buffer.concat([brotliCompressSync(body), Buffer.from('more')])],
    ['0xff as brotli', 'br', () => Buffer.alloc(100, 0xff)],
  ];
  for (const way of HTTP_WAYS) {
    for (const [name, encoding, of] of faults) {
      const tag = deck.tag();
      const event = deck.good(way, tag, 1);
      const one = deck.writer(way, true).write(way === 'binary' ? event.get('data')! : event);
      const body = deck.joined(way, [one]);
      const headers = way === 'binary' ? headersOf(event) : {};
      const expected = refused('body_not_decompressed');
      deck.add({ name, way, body, sent: of(body), headers, encoding, expected }, tag);
    }
    // Compressed twice, and one of them said: what is inside is no JSON.
    if (way === 'binary' || isLines(way)) continue;
    const twice = gzipSync(Buffer.from('[]'));
    const expected = isMsgpack(way) ? 'body_not_msgpack' : 'body_not_unicode';
    deck.add({ name: 'gzip in gzip', way, body: twice, encoding: 'gzip', expected: refused(expected) });
  }
  // Several members are one body.
  const tag = deck.tag();
  const parts = [1, 2].map((number): Part => ({ event: deck.good('ndjson', tag, number), code: null }));
  const writer = new JsonWriter(null, true);
  const lines = parts.map(({ event }) => Buffer.concat([writer.write(event), Buffer.from('\n')]));
  const sent = Buffer.concat(lines.map((line) => gzipSync(line)));
  const stored = parts.map(({ event }) => lineOf(storedOf(event as Dict, writer)));
  const expected: Expected = { kind: 'events', stored, rejected: [], unmatched: 2 };
  deck.add(
    {
      name: 'gzip in two members',
      way: 'ndjson',
      body: Buffer.concat(lines),
      sent,
      encoding: 'gzip',
      expected,
    },
    tag,
  );
}

/** The same with one byte that is another; counted from the end when `at` is negative. */
function changed(bytes: Buffer, at: number): Buffer {
  const other = Buffer.from(bytes);
  const index = at < 0 ? other.length + at : at;
  other[index]! ^= 0x55;
  return other;
}

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

function bombs(deck: Deck): void {
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

function sizes(deck: Deck): void {
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

/** Frames that are no envelope, or not of the connection's kind: what is sent is the frame. */
export function frameInputs(deck: Deck): void {
  const ended = (...codes: number[]): Expected => ({ kind: 'ended', codes });
  const malformed = ended(4400);
  const json: readonly (readonly [string, Expected])[] = [
    ...[
      '',
      ' ',
      '{}',
      '[]',
      'null',
      '7',
      '"batch"',
      '{"batch":1}',
      '{"events":[]}',
      '{"batch":1,"events":[]',
    ].map((text) => [text, malformed] as const),
    ...[
      '{"batch":-1,"events":[]}',
      '{"batch":1.5,"events":[]}',
      '{"batch":1e3,"events":[]}',
      '{"batch":"1","events":[]}',
    ].map((text) => [text, malformed] as const),
    ...[
      '{"batch":null,"events":[]}',
      '{"batch":01,"events":[]}',
      '{"batch":9007199254740992,"events":[]}',
    ].map((text) => [text, malformed] as const),
    ...[
      '{"batch":99999999999999999999,"events":[]}',
      '{"events":[],"batch":-1}',
      '{"events":[] "batch":1}',
      '{batch:1,events:[]}',
    ].map((text) => [text, malformed] as const),
    ...[
      '{"batch":1 "events":[]}',
      '{"events":[],"batch":1',
      '{"batch":1,"event":[]}',
      '{"Batch":1,"events":[]}',
      '\ufeff{"batch":1,"events":[]}',
    ].map((text) => [text, malformed] as const),
    [`{"batch":1,"events":[${' '.repeat(FRAME_BYTES_MAX)}]}`, ended(1006, 1009)],
  ];
  for (const [text, expected] of json) {
    const name = `frame ${JSON.stringify(text.slice(0, 50))}`;
    deck.add({ name, way: 'stream json', body: Buffer.alloc(0), sent: Buffer.from(text), expected });
  }
  for (const [name, bytes] of [
    ['a surrogate', Buffer.from([0x7b, 0xed, 0xa0, 0x80, 0x7d])],
    ['0xff', Buffer.from([0xff, 0xfe])],
  ] as const)
    deck.add({
      name: `a frame of ${name}`,
      way: 'stream json',
      body: bytes,
      sent: bytes,
      expected: ended(1006, 1007),
    });
  const batch = (value: Uint8Array, key = 'batch'): Uint8Array =>
    msgpack.map([
      [msgpack.text(key), value],
      [msgpack.text('events'), msgpack.array([])],
    ]);
  const frames: readonly (readonly [string, Uint8Array])[] = [
    ['nothing', Buffer.alloc(0)],
    ['nil', msgpack.nil],
    ['an empty map', msgpack.map([])],
    ['an empty list', msgpack.array([])],
    ['the byte that is never used', Uint8Array.of(0xc1)],
    ['a map of four billion', Uint8Array.of(0xdf, 0xff, 0xff, 0xff, 0xff)],
    ['a batch of -1', batch(msgpack.integer(-1, 'fix'))],
    ['a batch of -1 in 64 bits', batch(msgpack.integer(-1n, 'i64'))],
    ['a batch of 1.5', batch(msgpack.float64(1.5))],
    ['a batch of NaN', batch(msgpack.float64(NaN))],
    ['a batch of 2^53', batch(msgpack.integer(2n ** 53n, 'u64'))],
    ['a batch of a text', batch(msgpack.text('1'))],
    ['a batch of nil', batch(msgpack.nil)],
    ['another key', batch(msgpack.integer(1, 'fix'), 'batches')],
    ['no events', msgpack.map([[msgpack.text('batch'), msgpack.integer(1, 'fix')]])],
    ['half a frame', batch(msgpack.integer(1, 'fix')).subarray(0, 9)],
    ['JSON', Buffer.from('{"batch":1,"events":[]}')],
  ];
  for (const [name, sent] of frames)
    deck.add({
      name: `a frame of ${name}`,
      way: 'stream msgpack',
      body: Buffer.alloc(0),
      sent,
      expected: malformed,
    });
}

/** Whether the input is one of few that are so large that they are sent one after the other. */
export function isLarge(input: BadInput): boolean {
  return (input.sent ?? input.body).length > 500_000 || input.body.length > 500_000;
}
