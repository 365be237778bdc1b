import { beforeAll, describe, expect, test } from 'vitest';
import { BlockBuilder } from '../contract/block-builder.ts';
import { decodeBlock } from '../contract/block.ts';
import { EventBatch } from '../contract/event-batch.ts';
import { REJECTIONS, type EdgeRejectionCode } from '../contract/rejections.ts';
import { lineOfModel } from '../test/bad-input/bytes.ts';
import { lineInBlock } from '../test/bad-input/log.ts';
import { BATCH_EVENTS_MAX } from '../test/bad-input/limits.ts';
import {
  AGE_DAYS_MAX,
  AHEAD_SECONDS_MAX,
  OF_THE_DOORS,
  SEEDS_KEPT,
  badInputs,
  differentIn,
  unreached,
  windowAt,
} from '../test/bad-input.ts';
import * as msgpack from '../test/msgpack-encoder.ts';
import { eventsOf } from '../test/batch-events.ts';
import { Admission } from './read/admit.ts';
import { readBody, type BodyContext, type BodyFormat, type BodyOutcome } from './read/body.ts';
import { structured, binaryHead } from './http/cloudevents-http.ts';
import { MeterBook } from './tenant/meters.ts';
import { Deck, METERS, TENANT, WAYS, type BadInput, type Expected } from '../test/bad-input/deck.ts';
import { dict, num, type Dict } from '../test/bad-input/values.ts';
import { JsonWriter, MsgpackWriter } from '../test/bad-input/writers.ts';

// Every bad input of test/bad-input.ts that needs no network, against the readers themselves. test/bad-input.test.ts
// sends all of them to an edge. One batch serves all bodies: what is left of one must not change the next.

/** It takes a second or two, on a machine that has nothing else to do. */
const PATIENCE_MS = 60_000;

/** Fewer than an edge remembers, so that what it knew of keys is forgotten now and then. */
const PLACES_KEPT = 500;
const NOW = Date.UTC(2026, 10, 21, 8, 31, 12, 345);
const FRESH = Math.floor(Math.random() * 2 ** 31);
const seeds = [...SEEDS_KEPT, FRESH];

const admission = new Admission({
  eventAgeDaysMax: AGE_DAYS_MAX,
  eventAheadSecondsMax: AHEAD_SECONDS_MAX,
  batchEventsMax: BATCH_EVENTS_MAX,
});
const meters = new MeterBook();
for (const meter of METERS) meters.set(`${TENANT}.${meter.key}`, JSON.stringify({ tenant: TENANT, meter }));
const context: BodyContext = {
  admission,
  meters,
  tenant: TENANT,
  tenantBytes: Buffer.from(TENANT),
  nowMs: NOW,
};
const batch = new EventBatch();

let inputs: readonly BadInput[];
beforeAll(() => {
  // What arrives in a frame that is no UTF-8 is no matter of the readers.
  inputs = badInputs(windowAt(NOW, 0), {
    seeds,
    amounts: { faults: 300, jsonBytes: 300, msgpackBytes: 200 },
    doors: false,
  }).filter(({ expected }) => expected.kind !== 'ended');
}, PATIENCE_MS);

function read({ way, body, headers }: BadInput): BodyOutcome {
  batch.paths.trim(PLACES_KEPT);
  if (way !== 'binary') return readBody(body, WAYS[way].format, context, batch);
  batch.count = 0;
  const head = binaryHead((field) => {
    for (const [name, values] of Object.entries(headers)) {
      for (const value of typeof values === 'string' ? [values] : values) field(name, value);
    }
  });
  if (!head.sound) return { read: true, rejected: [head.rejected], unmatched: 0 };
  const event = structured(head.json, body);
  if (event === null)
    return { read: false, code: 'body_not_json', message: REJECTIONS.body_not_json.message };
  return readBody(event, 'cloudevents', context, batch);
}

/** What came of it, as `Expected` says it. */
function actual(outcome: BodyOutcome, expected: Expected): Expected {
  if (!outcome.read) return { kind: 'refused', code: outcome.code };
  const rejected = outcome.rejected.map(({ index, id, code }, nth) => {
    const any = expected.kind === 'events' && expected.rejected[nth]?.code === null;
    return any ? { index, id: null, code: null } : { index, id, code: code as EdgeRejectionCode };
  });
  return { kind: 'events', stored: eventsOf(batch).map(lineOfModel), rejected, unmatched: outcome.unmatched };
}

describe(`bad inputs (seeds ${seeds.join(', ')})`, { timeout: PATIENCE_MS }, () => {
  test('are more than 2,000 different ones', () => {
    expect(differentIn(inputs)).toBeGreaterThan(2_000);
  });

  test('reach every code of a reader, over every way in which it can occur', () => {
    expect(unreached(inputs).filter(({ code }) => !OF_THE_DOORS.includes(code))).toEqual([]);
  });

  test('each gets its code with its place, its neighbours are taken, and no value is changed', () => {
    const wrong: unknown[] = [];
    const blocks = new Blocks();
    for (const input of inputs) {
      const outcome = read(input);
      const found = actual(outcome, input.expected);
      const isSame = JSON.stringify(found) === JSON.stringify(input.expected);
      if (outcome.read && found.kind === 'events') blocks.add(found.stored);
      if (isSame && (input.way === 'binary' || saysWhat(outcome))) continue;
      wrong.push({ name: input.name, body: shown(input.body), expected: input.expected, found, outcome });
    }
    expect(wrong.length, JSON.stringify(wrong.slice(0, 10), null, 1)).toBe(0);
    blocks.check();
    expect(blocks.wrong.slice(0, 10)).toEqual([]);
  });

  const twice = dict(['k', num(1)], ['k', num(2)]);
  test.each<readonly [place: string, change: (good: Dict) => Dict]>([
    ['subject', (good) => good.with('subject', num(7))],
    ['time', (good) => good.with('time', 'yesterday')],
    ['specversion', (good) => good.with('specversion', null)],
    ['timestamp', (good) => good.without('specversion').with('timestamp', 'x').with('other', 'x')],
    ['Extra', (good) => good.with('specversion', '1.0').with('ext', 'x').with('Extra', 'x')],
    ['id', (good) => good.and('id', 'x')],
    ['data', (good) => good.with('data', 'x')],
    ['data.a.b', (good) => good.with('data', dict(['a', dict(['b', '\ud800'])]))],
    ['data.a.k', (good) => good.with('data', dict(['a', twice]))],
    ['data.v', (good) => good.with('data', dict(['n', num(1)], ['v', [num(1), twice]]))],
    ['data.a.b', (good) => good.with('data', dict(['a', dict(['b', num(1)])], ['a.b', num(1)]))],
    ['data.tokens (meter flat)', (good) => good.with('type', METERS[0]!.eventType).with('data', dict())],
  ])('a rejection names the place: %s', (place, change) => {
    const event = change(new Deck(1).good('cloudevents', 'a', 1));
    // CloudEvents alone must have specversion.
    const isCloud = place === 'specversion';
    const bodies = [
      [isCloud ? 'cloudevents' : 'json', new JsonWriter(null, false).write(event)],
      ['msgpack', new MsgpackWriter(null).write(event)],
    ] as const;
    for (const [format, body] of isCloud ? bodies.slice(0, 1) : bodies) {
      const outcome = readBody(body, format, context, batch);
      expect(outcome.read && outcome.rejected[0]?.message.split(': ')[0], format).toBe(place);
    }
  });

  test('a body that ends where another one had a long key is not looked beyond', () => {
    const long = 'k'.repeat(250);
    const data = dict([long, num(1)], ['a', dict([long.slice(1), 'x'], ['b', [dict([long, true])]])]);
    const good = new Deck(1).good('json', 'a', 1).with('data', data).with('time', '2026-11-20T10:00:00Z');
    const json = new JsonWriter(null, true).write(good);
    const packed = new MsgpackWriter(null).write(good);
    // Every body is longer than all before it, so that its memory ends right behind it.
    const spaces = (length: number): Buffer => Buffer.alloc(length, 0x20);
    const ways: readonly (readonly [BodyFormat, string, Buffer, (length: number) => Buffer])[] = [
      ['json', 'body_not_json', json, spaces],
      ['ndjson', 'line_not_json', json, spaces],
      ['msgpack', 'body_not_msgpack', packed, (length) => listOfTwo(spaces(length))],
    ];
    for (const [format, code, event, before] of ways) {
      const fresh = new EventBatch();
      expect(readBody(event, format, context, fresh), format).toMatchObject({ read: true, rejected: [] });
      for (let end = 1; end < event.length; end++) {
        const body = Buffer.concat([before(65_536 + end), event.subarray(0, end)]);
        const outcome = readBody(body, format, context, fresh);
        expect(outcome.read ? outcome.rejected[0]?.code : outcome.code, `${format} ${end}`).toBe(code);
      }
    }
  });
});

/** A list of a text and one more value, which is to come. */
function listOfTwo(text: Buffer): Buffer {
  return Buffer.concat([Buffer.of(0x92), msgpack.raw(text)]);
}

/** What the batch holds, packed into blocks that are small and large in turn. */
class Blocks {
  readonly wrong: unknown[] = [];
  readonly #builder = new BlockBuilder();
  readonly #identity = new Uint32Array(4);
  #lines: string[] = [];
  #eventsMax = 1;

  add(lines: readonly string[]): void {
    for (const [event, line] of lines.entries()) {
      this.#builder.add(batch, event, this.#identity);
      this.#lines.push(line);
      if (this.#lines.length >= this.#eventsMax) this.check();
    }
  }

  check(): void {
    if (this.#lines.length === 0) return;
    const block = decodeBlock(this.#builder.finish(NOW));
    for (const [event, line] of this.#lines.entries()) {
      const packed = lineInBlock(block, event);
      if (packed !== line) this.wrong.push({ line, packed });
    }
    this.#lines = [];
    this.#eventsMax = (this.#eventsMax * 7) % 211; // from 1 to 210
  }
}

/** A message is the sentence of its code, with the place before it. */
function saysWhat(outcome: BodyOutcome): boolean {
  if (!outcome.read) return outcome.message.startsWith(REJECTIONS[outcome.code].message.slice(0, -1));
  return outcome.rejected.every(({ code, message }) => {
    return message.endsWith(REJECTIONS[code].message) && message.length < 600;
  });
}

function shown(body: Uint8Array): string {
  const text = Buffer.from(body).toString('latin1');
  return text.length > 1_000 ? `${text.slice(0, 500)} … ${text.slice(-300)}` : text;
}
