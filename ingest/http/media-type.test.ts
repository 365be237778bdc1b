import { describe, expect, test } from 'vitest';
import { bodyKind, encodingOf, MEDIA_TYPES } from './media-type.ts';

describe('the format of a body', () => {
  test('every media type of the table is taken, in any case and with parameters', () => {
    for (const [type, format] of Object.entries(MEDIA_TYPES)) {
      expect(bodyKind(type, false)).toBe(format);
      expect(bodyKind(` ${type.toUpperCase()} ; charset=UTF-8`, false)).toBe(format);
      expect(bodyKind(`${type};charset="utf-8";profile=x`, false)).toBe(format);
    }
  });

  test.each([
    '',
    'text/plain',
    'application/jsonx',
    'application/json, text/plain',
    'application/json;charset=latin1',
    'application/json; charset=utf-8; charset=utf-16',
    'application/cloudevents+avro',
    'constructor',
    'application/vnd.tool+json',
  ])('%j is not taken', (type) => {
    expect(bodyKind(type, false)).toBeNull();
  });

  test('with attributes in the header the type is that of data, and must be JSON', () => {
    for (const type of ['application/json; charset=utf-8', 'text/json', 'application/vnd.tool+json', '']) {
      expect(bodyKind(type, true)).toBe('cloudevents-binary');
    }
    for (const type of ['text/plain', 'application/msgpack', 'application/x-ndjson', 'application/xml']) {
      expect(bodyKind(type, true)).toBeNull();
    }
  });

  test('a type of CloudEvents is believed before the attributes in the header', () => {
    expect(bodyKind('application/cloudevents+json; charset=utf-8', true)).toBe('cloudevents');
    expect(bodyKind('application/cloudevents-batch+json', true)).toBe('cloudevents-batch');
    expect(bodyKind('application/cloudevents+xml', true)).toBeNull();
  });
});

test.each([
  ['', 'identity'],
  ['identity', 'identity'],
  ['gzip', 'gzip'],
  ['X-GZip', 'gzip'],
  [' br ', 'br'],
  ['identity, gzip', 'gzip'],
  ['gzip, gzip', null],
  ['br, gzip', null],
  ['deflate', null],
  ['zstd', null],
  ['toString', null],
])('a body that is %j', (header, encoding) => {
  expect(encodingOf(header)).toBe(encoding);
});
