import { expect, test } from 'vitest';
import { jsonEnvelope, msgpackEnvelope, type Envelope } from './stream-frame.ts';

const text = new TextEncoder();

function inside(frame: Uint8Array, envelope: Envelope | null): [number, string] | null {
  return envelope === null
    ? null
    : [envelope.batch, Buffer.from(frame.subarray(envelope.start, envelope.end)).toString('latin1')];
}

test.each<[string, [number, string] | null]>([
  ['{"batch":7,"events":[{"id":"a"}]}', [7, '[{"id":"a"}]']],
  ['{"events":[{"id":"a"}],"batch":7}', [7, '[{"id":"a"}]']],
  [' {\n"batch" : 0 ,\t"events" : [ ] } \n', [0, '[ ]']],
  [' { "events" : [ 1 ] , "batch" : 12 } ', [12, '[ 1 ] ']],
  ['{"batch":9007199254740991,"events":[]}', [9007199254740991, '[]']],
  // What stands in the events is not this file's business: the reader of bodies refuses it.
  ['{"batch":1,"events":[{]}', [1, '[{]']],
  ['{"batch":1,"events":[],"more":2}', [1, '[],"more":2']],
  ['{"events":{"a":1,"batch":7}', [7, '{"a":1']],
  ['{"events":["\\",\\"batch\\":1"],"batch":2}', [2, '["\\",\\"batch\\":1"]']],
  ['{"batch":9007199254740992,"events":[]}', null],
  ['{"batch":01,"events":[]}', null],
  ['{"batch":-1,"events":[]}', null],
  ['{"batch":1.5,"events":[]}', null],
  ['{"batch":"1","events":[]}', null],
  ['{"batch":,"events":[]}', null],
  ['{"batch":1}', null],
  ['{"batch":1,"events":}', null],
  ['{"events":[]}', null],
  ['{"events":"batch":1}', null],
  ['{"events":[] "batch":1}', null],
  ['[{"batch":1,"events":[]}]', null],
  ['{"batch":1,"events":[]', null],
  ['{', null],
  ['', null],
])('JSON: %s', (frame, expected) => {
  const bytes = text.encode(frame);
  expect(inside(bytes, jsonEnvelope(bytes))).toEqual(expected);
});

const BATCH = 'a56261746368';
const EVENTS = 'a66576656e7473';

test.each<[string, [number, string] | null]>([
  [`82${BATCH}07${EVENTS}90`, [7, '90']],
  [`82${EVENTS}90${BATCH}07`, [7, '90']],
  [`de0002${BATCH}ccff${EVENTS}9101`, [255, '9101']],
  [`df00000002${EVENTS}9101${BATCH}cdffff`, [65_535, '9101']],
  [`82d9056261746368cf0000000100000000${EVENTS}90`, [2 ** 32, '90']],
  [`82${EVENTS}90${BATCH}cb41f0000000000000`, [2 ** 32, '90']],
  [`82${EVENTS}90d9056261746368d10101`, [257, '90']],
  [`82${BATCH}cfffffffffffffffff${EVENTS}90`, null],
  [`82${BATCH}cb3ff8000000000000${EVENTS}90`, null],
  [`82${BATCH}ff${EVENTS}90`, null],
  [`82${BATCH}d0ff${EVENTS}90`, null],
  [`82${BATCH}07${EVENTS}`, null],
  [`82${BATCH}cd07`, null],
  [`83${BATCH}07${EVENTS}90`, null],
  [`81${EVENTS}90`, null],
  [`82${EVENTS}90`, null],
  ['d4', null],
  ['', null],
])('msgpack: %s', (hex, expected) => {
  const bytes = Uint8Array.from(Buffer.from(hex, 'hex'));
  const found = msgpackEnvelope(bytes);
  const events = found === null ? '' : Buffer.from(bytes.subarray(found.start, found.end)).toString('hex');
  expect(found === null ? null : [found.batch, events]).toEqual(expected);
});

test('no prefix of a frame is a frame, and nothing throws', () => {
  const json = text.encode('{"batch":7,"events":[{"id":"a","data":{"n":1}}]}');
  for (let length = 0; length < json.length; length++) {
    const found = jsonEnvelope(json.subarray(0, length));
    // A cut behind an inner brace leaves an envelope whose events are no JSON.
    if (found !== null) expect(json[length - 1]).toBe(0x7d);
  }
  const packed = Uint8Array.from(Buffer.from(`82${BATCH}07${EVENTS}90`, 'hex'));
  for (let length = 0; length < packed.length; length++) {
    expect(msgpackEnvelope(packed.subarray(0, length))).toBeNull();
  }
});
