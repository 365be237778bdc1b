/** Frames of a stream that are no envelope: what is sent is the frame. */
import { FRAME_BYTES_MAX } from './limits.ts';
import * as msgpack from '../msgpack-encoder.ts';
import type { Deck, Expected } from './deck.ts';

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
