/** Bodies that cannot be read as a whole: cut off, going on, in another language, or announcing what does not come. */
import { Packr } from 'msgpackr';
import { PLACES, only, type Place } from './json.ts';
import * as msgpack from '../msgpack-encoder.ts';
import {
  WAY_NAMES,
  expectedOf,
  headersOf,
  isLines,
  isMsgpack,
  isRequest,
  wayOf,
  type Deck,
  type Expected,
  type Part,
  type WayName,
} from './deck.ts';
import { JSON_WAYS, MSGPACK_WAYS, NOTHING, NOT_JSON, NOT_MSGPACK, NOT_UNICODE } from './refusals.ts';
import { Packed, dict, num, type Writer } from './values.ts';
import { JsonWriter, MsgpackWriter } from './writers.ts';

export function bodyInputs(deck: Deck): void {
  cutOff(deck);
  goingOn(deck);
  otherLanguages(deck);
  brokenMsgpack(deck);
}

/** A body of three events, in ASCII and without white space, and where each of them ends. */
function threeEvents(deck: Deck, way: WayName, tag: string) {
  const parts = [0, 1, 2].map((number): Part => {
    const data = dict(['n', num('-12.5')], ['a', [num(1), 'x', dict(['k', null])]], ['b', dict(['c', true])]);
    return { event: deck.good(way, tag, number).with('data', data), code: null };
  });
  const writer = deck.writer(way, true);
  const written = parts.map(({ event }) => writer.write(event));
  const ends: number[] = [];
  for (const { length } of written) ends.push((ends.at(-1) ?? -1) + 1 + length);
  if (isMsgpack(way)) return { body: Buffer.from(msgpack.array(written)), ends, parts, writer };
  const joined = written.join(isLines(way) ? '\n' : ',');
  return { body: Buffer.from(isLines(way) ? joined : `[${joined}]`), ends, parts, writer };
}

function cutOff(deck: Deck): void {
  for (const way of WAY_NAMES) {
    if (!wayOf(way).many) continue;
    const { length } = threeEvents(deck, way, deck.tag()).body;
    const step = way === 'json' || way === 'msgpack' || way === 'ndjson' ? 3 : 29;
    for (let end = isRequest(way) ? 0 : 1; end < length; end += step) {
      const tag = deck.tag();
      const { body, ends, parts, writer } = threeEvents(deck, way, tag);
      const name = `cut off behind ${end} bytes`;
      const expected = isLines(way)
        ? ofLines(end, ends, parts, writer)
        : isMsgpack(way)
          ? NOT_MSGPACK
          : NOT_JSON;
      deck.add({ name, way, body: body.subarray(0, end), expected }, tag);
    }
  }
  for (const way of ['json one', 'cloudevents', 'msgpack one', 'binary'] as const) {
    const whole = (tag: string): Buffer => {
      const event = deck.good(way, tag, 1).with('data', only([num(1), 'x']));
      return deck.writer(way, true).write(way === 'binary' ? event.get('data')! : event);
    };
    for (let end = way === 'binary' ? 1 : 0; end < whole(deck.tag()).length; end += 5) {
      const tag = deck.tag();
      const headers = way === 'binary' ? headersOf(deck.good(way, tag, 1)) : {};
      const expected = isMsgpack(way) ? NOT_MSGPACK : NOT_JSON;
      deck.add(
        { name: `cut off behind ${end} bytes`, way, body: whole(tag).subarray(0, end), headers, expected },
        tag,
      );
    }
  }
}

/** Of lines, those that are whole are taken. */
function ofLines(end: number, ends: readonly number[], parts: readonly Part[], writer: Writer): Expected {
  const whole = ends.filter((one) => one <= end).length;
  const isCut = whole < parts.length && end > (whole === 0 ? 0 : ends[whole - 1]! + 1);
  const cut: Part = { event: null, code: 'line_not_json', id: null };
  return expectedOf(isCut ? [...parts.slice(0, whole), cut] : parts.slice(0, whole), writer);
}

function goingOn(deck: Deck): void {
  const behindJson = [
    'x',
    '[]',
    '{}',
    ',',
    '\0',
    ']',
    ']]',
    '\ufeff',
    'null',
    ';',
    '1',
    '"',
    '\\',
    ',{}',
    '\f',
    '// c',
  ];
  for (const way of JSON_WAYS) {
    if (isLines(way)) continue;
    for (const more of behindJson) {
      const tag = deck.tag();
      const event = deck.good(way, tag, 1);
      const isBinary = way === 'binary';
      const one = new JsonWriter(null, false).write(isBinary ? event.get('data')! : event);
      const body = Buffer.concat([deck.joined(way, [one]), Buffer.from(more)]);
      const headers = isBinary ? headersOf(event) : {};
      deck.add({ name: `${JSON.stringify(more)} behind it`, way, body, headers, expected: NOT_JSON }, tag);
      const before = Buffer.concat([Buffer.from(more), deck.joined(way, [one])]);
      deck.add(
        { name: `${JSON.stringify(more)} before it`, way, body: before, headers, expected: NOT_JSON },
        tag,
      );
    }
  }
  // In binary mode a body that closes the event early could say more of it than the header does.
  const escapes = [
    '{},"subject":"evil"',
    '1},"subject":{',
    'null,"id":"evil"',
    '{}}',
    '1}',
    '"x","id":"y"',
    '{"a":1},"data":{}',
  ];
  for (const body of escapes) {
    const tag = deck.tag();
    const headers = headersOf(deck.good('binary', tag, 1));
    deck.add(
      { name: `data ${body}`, way: 'binary', body: Buffer.from(body), headers, expected: NOT_JSON },
      tag,
    );
  }
  for (const way of MSGPACK_WAYS) {
    for (const more of [[0], [0xc0], [0x80], [0x90], [0xc1], [0xff], [0xa0], [0xdd, 0, 0x98, 0x96, 0x80]]) {
      const tag = deck.tag();
      const one = new MsgpackWriter(null).write(deck.good(way, tag, 1));
      const body = Buffer.concat([deck.joined(way, [one]), Uint8Array.from(more)]);
      // The envelope of a frame ends where the frame does.
      deck.add(
        { name: `${Buffer.from(more).toString('hex')} behind it`, way, body, expected: NOT_MSGPACK },
        tag,
      );
    }
  }
}

function otherLanguages(deck: Deck): void {
  const text = (tag: string, way: WayName): string => {
    const event = deck.good(way, tag, 1).with('subject', 'café');
    const one = new JsonWriter(null, false).write(event).toString();
    return wayOf(way).many ? `[${one}]` : one;
  };
  const utf16be = (from: string): Buffer => Buffer.from(from, 'utf16le').swap16();
  const utf32 = (from: string): Buffer => {
    const points = [...from].map((character) => character.codePointAt(0)!);
    return Buffer.from(new Uint8Array(Uint32Array.from(points).buffer));
  };
  const encodings: readonly (readonly [string, Expected, (json: string) => Buffer])[] = [
    ['a byte order mark', NOT_JSON, (json) => Buffer.from(`\ufeff${json}`)],
    ['UTF-16LE', NOT_UNICODE, (json) => Buffer.from(json, 'utf16le')],
    ['UTF-16LE with its mark', NOT_UNICODE, (json) => Buffer.from(`\ufeff${json}`, 'utf16le')],
    ['UTF-16BE', NOT_UNICODE, utf16be],
    ['UTF-16BE with its mark', NOT_UNICODE, (json) => utf16be(`\ufeff${json}`)],
    ['UTF-32LE', NOT_UNICODE, utf32],
    ['Latin-1', NOT_UNICODE, (json) => Buffer.from(json, 'latin1')],
    ['UTF-16LE in ASCII', NOT_JSON, (json) => Buffer.from(json.replace('é', 'e'), 'utf16le')],
    ['UTF-7', NOT_JSON, (json) => Buffer.from(json.replace('{', '+AHs-'))],
    ['base64', NOT_JSON, (json) => Buffer.from(Buffer.from(json).toString('base64'))],
    ['HTML', NOT_JSON, () => Buffer.from('<!doctype html><title>502 Bad Gateway</title>')],
    ['a form', NOT_JSON, () => Buffer.from('id=a&type=t&subject=s')],
    ['CSV', NOT_JSON, () => Buffer.from('id,type,subject\na,t,s\n')],
    ['YAML', NOT_JSON, () => Buffer.from('- id: a\n  type: t\n')],
    ['XML', NOT_JSON, () => Buffer.from('<?xml version="1.0"?><event id="a"/>')],
    ['two documents', NOT_JSON, (json) => Buffer.from(`${json}\n${json}`)],
    ['single quotes', NOT_JSON, (json) => Buffer.from(json.replaceAll('"', "'"))],
    ['a prefix against hijacking', NOT_JSON, (json) => Buffer.from(`)]}',\n${json}`)],
    ['a call', NOT_JSON, (json) => Buffer.from(`callback(${json})`)],
    ['nothing', NOT_JSON, () => Buffer.alloc(0)],
    ['white space', NOT_JSON, () => Buffer.from(' \t\r\n \n')],
    ['zeros', NOT_JSON, () => Buffer.alloc(4_096)],
    ['0xff', NOT_UNICODE, () => Buffer.alloc(4_096, 0xff)],
    ['msgpack', NOT_UNICODE, (json) => Buffer.from(msgpack.array([msgpack.text(json)]))],
  ];
  for (const way of JSON_WAYS) {
    if (isLines(way) || way === 'binary' || !isRequest(way)) continue;
    for (const [name, expected, of] of encodings) {
      const tag = deck.tag();
      deck.add({ name, way, body: of(text(tag, way)), expected }, tag);
    }
  }
  for (const way of WAY_NAMES) {
    if (!wayOf(way).many) continue;
    const body = isMsgpack(way) ? msgpack.array([]) : Buffer.from(isLines(way) ? '\n \n\r\n' : ' [ ] ');
    deck.add({ name: 'no event', way, body, expected: NOTHING });
  }
  // A line that is none leaves the others alone, and blank ones are counted.
  const tag = deck.tag();
  const good = (number: number): string =>
    new JsonWriter(null, true).write(deck.good('ndjson', tag, number)).toString();
  const lines = [
    '\ufeff{}',
    good(0),
    '',
    ' \t ',
    '{',
    good(1),
    '\r',
    `${good(2)} ${good(3)}`,
    `${good(4)}\r`,
    '[',
    good(5),
    '\0',
  ];
  const bad = [0, 4, 7, 9, 11].map((index) => ({ index, id: null, code: 'line_not_json' as const }));
  const stored = [0, 1, 4, 5].map((number): Part => ({
    event: deck.good('ndjson', tag, number),
    code: null,
  }));
  const taken = expectedOf(stored, new JsonWriter(null, true)) as Extract<Expected, { kind: 'events' }>;
  deck.add(
    {
      name: 'lines',
      way: 'ndjson',
      body: Buffer.from(lines.join('\n')),
      expected: { ...taken, rejected: bad },
    },
    tag,
  );
}

function brokenMsgpack(deck: Deck): void {
  const announced: readonly (readonly [string, readonly number[]])[] = [
    ['a list of ten million', [0xdd, 0x00, 0x98, 0x96, 0x80]],
    ['a list of four billion', [0xdd, 0xff, 0xff, 0xff, 0xff]],
    ['a list of 65,535', [0xdc, 0xff, 0xff]],
    ['a list of 15', [0x9f]],
    ['a map of ten million', [0xdf, 0x00, 0x98, 0x96, 0x80]],
    ['a map of four billion', [0xdf, 0xff, 0xff, 0xff, 0xff]],
    ['a map of 2^31', [0xdf, 0x80, 0x00, 0x00, 0x00]],
    ['a map of 65,535', [0xde, 0xff, 0xff]],
    ['a map of 15', [0x8f]],
    ['a text of four billion', [0xdb, 0xff, 0xff, 0xff, 0xff]],
    ['a text of 2^31', [0xdb, 0x80, 0x00, 0x00, 0x00]],
    ['a text of 65,535', [0xda, 0xff, 0xff]],
    ['a text of 255', [0xd9, 0xff]],
    ['a text of 31', [0xbf]],
    ['bytes of four billion', [0xc6, 0xff, 0xff, 0xff, 0xff]],
    ['bytes of 255', [0xc4, 0xff]],
    ['an extension of four billion', [0xc9, 0xff, 0xff, 0xff, 0xff, 0x01]],
    ['an extension of 255', [0xc7, 0xff, 0x01]],
    ['a fixext of 16', [0xd8, 0x01]],
    ['half a double', [0xcb, 0x3f, 0xf0]],
    ['half an integer', [0xcf, 0x00]],
    ['the byte that is never used', [0xc1]],
    ['the head of a text', [0xd9]],
    ['the head of a list', [0xdd, 0x00]],
  ];
  for (const [nth, way] of MSGPACK_WAYS.entries()) {
    for (const [which, [name, bytes]] of announced.entries()) {
      const value = new Packed(Uint8Array.from(bytes));
      if (isRequest(way)) {
        const alone = Uint8Array.from(bytes);
        deck.add({ name: `${name}, and nothing else`, way, body: alone, expected: NOT_MSGPACK });
      }
      const places: readonly Place[] = [
        ['the event', () => dict()],
        ...PLACES,
        ['a key', (good, bad) => good.with('data', dict([bad as Packed, num(1)]))],
        ['a key beside id', (good, bad) => good.and(bad as Packed, num(1))],
        ['a key in a list', (good, bad) => good.with('data', only([dict([bad as Packed, num(1)])]))],
      ];
      for (const [at, [place, set]] of places.entries()) {
        if ((which + at) % MSGPACK_WAYS.length !== nth) continue;
        const tag = deck.tag();
        if (place.includes('behind a fault') && place.includes('value')) continue; // JSON alone has such a number
        const writer = deck.writer(way, true);
        // It is the last thing in the body: what is announced would be found in what stands behind it.
        const event = place === 'the event' ? value : set(deck.good(way, tag, 1), value);
        const whole = writer.write(event);
        const cut = whole.subarray(0, whole.lastIndexOf(value.bytes) + bytes.length);
        deck.add(
          { name: `${name} as ${place}`, way, body: deck.joined(way, [cut]), expected: NOT_MSGPACK },
          tag,
        );
      }
    }
    const notOurs: readonly (readonly [string, (event: object) => Uint8Array])[] = [
      ['records of msgpackr', (event) => new Packr().pack([event, { ...event, more: 1 }, event])],
      ['a record of msgpackr', (event) => new Packr().pack(event)],
      ['JSON', (event) => Buffer.from(JSON.stringify([event]))],
      ['JSON of one event', (event) => Buffer.from(JSON.stringify(event))],
    ];
    for (const [name, of] of notOurs) {
      if (!isRequest(way)) continue;
      const body = of({ id: 'never', type: 't', subject: 's', data: { n: 1 } });
      deck.add({ name, way, body, expected: NOT_MSGPACK });
    }
  }
  const scalars: readonly (readonly [string, Uint8Array])[] = [
    ['5', Uint8Array.of(5)],
    ['-1', Uint8Array.of(0xff)],
    ['nil', msgpack.nil],
    ['a text', msgpack.text('id')],
    ['1.5', msgpack.float64(1.5)],
  ];
  for (const [name, body] of scalars) {
    const rejected = [{ index: 0, id: null, code: 'event_not_an_object' as const }];
    deck.add({
      name,
      way: 'msgpack one',
      body,
      expected: { kind: 'events', stored: [], rejected, unmatched: 0 },
    });
  }
}
