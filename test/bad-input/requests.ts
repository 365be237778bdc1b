/** What is wrong with a request before a byte of its body is read: content types, header fields, encodings. */
import { brotliCompressSync, deflateRawSync, deflateSync, gzipSync } from 'node:zlib';
import type { EdgeRejectionCode } from '../../contract/rejections.ts';
import {
  WAY_NAMES,
  headersOf,
  isLines,
  isMsgpack,
  isRequest,
  type Deck,
  type Expected,
  type Part,
  type WayName,
} from './deck.ts';
import { refused } from './refusals.ts';
import { lineOf, storedOf, type Dict } from './values.ts';
import { JsonWriter } from './writers.ts';

const HTTP_WAYS = WAY_NAMES.filter(isRequest);

export function requestInputs(deck: Deck): void {
  contentTypes(deck);
  encodings(deck);
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
