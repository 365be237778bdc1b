import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { decodeBlock } from '../contract/block.ts';
import { EventBatch } from '../contract/event-batch.ts';
import { PathTable } from '../contract/path-table.ts';
import { badInputs, windowAt } from '../test/bad-input.ts';
import { WAYS } from '../test/bad-input/deck.ts';
import { eventsOf } from '../test/batch-events.ts';
import { eventsOfBlock, type BlockEvent } from '../test/block-events.ts';
import { fillBatch } from '../test/event-batch.ts';
import { EdgeKernel } from './edge-kernel.ts';
import { Pack } from './pack.ts';
import { Admission } from './read/admit.ts';
import { readBody, type BodyFormat, type BodyOutcome } from './read/body.ts';
import { JsonScanner } from './read/json-scanner.ts';
import { MeterBook } from './tenant/meters.ts';

// The kernel against the TypeScript that says what it must do: the same bodies through an edge with it and one without, each
// of which remembers what came before. fast-check prints the seed of a run that fails.

const NOW = Date.UTC(2026, 10, 21, 8, 31, 12, 345);
const KEY = '0f1e2d3c4b5a69788796a5b4c3d2e1f0';
/** How many times what a run of all tests does. */
const LENGTH = process.env['TALLYLINE_TEST_LONG'] === '1' ? 20 : 1;
const PATIENCE_MS = 120_000 * LENGTH;

interface Limits {
  readonly shards: number;
  readonly blockEventsMax: number;
  readonly blockBytesMax: number;
  readonly batchEventsMax: number;
}
const LIMITS: Limits = { shards: 3, blockEventsMax: 50, blockBytesMax: 6_000, batchEventsMax: 60 };

const METERS = [
  { key: 'tokens', eventType: 'llm', aggregation: 'sum', valueProperty: 'tokens', groupBy: [] },
  { key: 'text', eventType: 'said', aggregation: 'sum', valueProperty: 'amount', groupBy: [] },
  { key: 'users', eventType: 'seen', aggregation: 'unique_count', valueProperty: 'user.id', groupBy: [] },
  { key: 'calls', eventType: 'call', aggregation: 'count', valueProperty: null, groupBy: [] },
];

class Edge {
  readonly batch: EventBatch;
  readonly meters = new MeterBook();
  /** By shard, in the order of the log. */
  readonly logs: Buffer[][];
  readonly kernel: EdgeKernel | null;
  readonly #admission: Admission;
  readonly #scanner: JsonScanner | null;
  readonly #pack: Pack;

  constructor(withKernel: boolean, limits = LIMITS) {
    const deployment = { shards: limits.shards, identityKey: KEY };
    this.kernel = withKernel ? EdgeKernel.load({ ...deployment, ...limits, bodyBytesMax: 65_536 }) : null;
    this.batch = new EventBatch(new PathTable(7), this.kernel?.home ?? null);
    this.#scanner = this.kernel === null ? null : new JsonScanner(this.kernel);
    this.#admission = new Admission({
      eventAgeDaysMax: 30,
      eventAheadSecondsMax: 3_600,
      batchEventsMax: limits.batchEventsMax,
    });
    this.logs = Array.from({ length: limits.shards }, () => []);
    this.#pack = new Pack({
      ...deployment,
      limits: { ...limits, lingerMs: 1 },
      kernel: this.kernel,
      port: {
        publish: (shard, block) => {
          this.logs[shard]!.push(Buffer.from(block));
          return Promise.resolve();
        },
        now: () => NOW,
        defer: () => undefined,
        after: () => () => undefined,
      },
    });
    for (const meter of METERS)
      this.meters.set(`acme.${meter.key}`, JSON.stringify({ tenant: 'acme', meter }));
  }

  read(body: Uint8Array, format: BodyFormat, tenant = 'acme', nowMs = NOW): BodyOutcome {
    const { meters } = this;
    const tenantBytes = Buffer.from(tenant);
    const context = {
      admission: this.#admission,
      meters,
      tenant,
      tenantBytes,
      nowMs,
      scanner: this.#scanner,
    };
    return readBody(body, format, context, this.batch);
  }

  pack(): void {
    this.#pack.addAll(this.#pack.begin(), this.batch);
  }

  flush(): void {
    this.#pack.flush();
  }

  /** What the log of each shard has, event by event. */
  events(): BlockEvent[][] {
    return this.logs.map((blocks) => blocks.flatMap((block) => eventsOfBlock(decodeBlock(block))));
  }

  /** The blocks themselves, short enough to be compared by the thousand. */
  digests(): string[][] {
    const digest = (block: Buffer): string => createHash('sha256').update(block).digest('hex');
    return this.logs.map((blocks) => blocks.map(digest));
  }

  clear(): void {
    for (const log of this.logs) log.length = 0;
  }
}

/** Both read the body; whatever can be told apart is compared. */
function same(
  one: Edge,
  other: Edge,
  body: Uint8Array,
  format: BodyFormat,
  tenant?: string,
  now?: number,
): void {
  const expected = one.read(body, format, tenant, now);
  const found = other.read(body, format, tenant, now);
  expect(JSON.stringify(found)).toBe(JSON.stringify(expected));
  expect(JSON.stringify(eventsOf(other.batch))).toBe(JSON.stringify(eventsOf(one.batch)));
  one.pack();
  other.pack();
}

function sameLogs(one: Edge, other: Edge): void {
  one.flush();
  other.flush();
  expect(JSON.stringify(other.events())).toBe(JSON.stringify(one.events()));
  one.clear();
  other.clear();
}

// --- Events that look like the one before, nearly.

const plainText = fc.stringMatching(/^[ -!#-[\]-~]{1,20}$/);
const oddText = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 8 }).map((text) => JSON.stringify(text).slice(1, -1)),
  fc.constantFrom(
    '',
    'é',
    '日本',
    '\\u00e9',
    '\\n',
    '\\ud800',
    '\\"',
    '\\\\',
    '\u007f',
    '\u0085',
    '\t',
    '\0',
    '"',
  ),
  fc.constantFrom(...[128, 129, 256, 257, 512, 513].map((length) => 'x'.repeat(length))),
);
const text = fc.oneof({ weight: 30, arbitrary: plainText }, { weight: 1, arbitrary: oddText });
const digits = (most: number): fc.Arbitrary<string> => fc.stringMatching(new RegExp(`^[0-9]{1,${most}}$`));
const number = fc.oneof(
  { weight: 10, arbitrary: fc.nat(1_000_000).map(String) },
  { weight: 5, arbitrary: fc.tuple(fc.integer(), digits(10)).map(([whole, part]) => `${whole}.${part}`) },
  { weight: 1, arbitrary: fc.tuple(digits(18), digits(12)).map(([whole, part]) => `-${whole}.${part}`) },
  fc.constantFrom('0', '-0', '0.0', '-0.50', '01', '1e3', '1E-2', '-', '1.', '.5', '+1', '1_0', '0x1', 'NaN'),
  fc.constantFrom(
    '999999999999999',
    '9007199254740991',
    '9007199254740992',
    '0.1234567891',
    '1.500000000000',
  ),
);
const word = fc.oneof(
  { weight: 10, arbitrary: fc.constantFrom('true', 'false', 'null') },
  fc.constantFrom('True', 'tru', 'nul', 'falsy', '[]', '{}', '[1, "a"]', '{ }', '""'),
);
const instant = (ms: number): string => new Date(ms).toISOString();
const time = fc.oneof(
  { weight: 8, arbitrary: fc.integer({ min: NOW - 90_000_000, max: NOW + 3_600_000 }).map(instant) },
  {
    weight: 4,
    arbitrary: fc.integer({ min: NOW - 9e9, max: NOW }).map((ms) => instant(ms).replace(/\.\d+/, '')),
  },
  { weight: 1, arbitrary: fc.integer({ min: NOW - 5e9, max: NOW + 8e6 }).map(instant) },
  fc.constantFrom(
    '2026-11-21T08:00:00+01:00',
    '2026-11-21t08:00:00z',
    '2026-11-21 08:00:00Z',
    '2026-11-31T08:00:00Z',
  ),
  fc.constantFrom(
    '2026-11-21T24:00:00Z',
    '2026-11-21T08:60:00Z',
    '2026-11-21T08:00:60Z',
    '2026-11-21T08:00:00.12Z',
  ),
  fc.constantFrom(
    '2026-11-21T08:00:0:.000Z',
    '2026-11-2aT08:00:00Z',
    '2026-13-01T00:00:00.000Z',
    '20261121T080000.000Z',
  ),
  fc.constantFrom('2024-02-29T08:00:00Z', '2026-02-29T08:00:00.000Z', '1969-12-31T23:59:59.999Z', ''),
);

/** A kind of event, as a sender writes it: `?t` stands for a text, `?n` a number, `?w` a word, `?d` an instant. */
const KINDS = [
  '{"id":"?t","source":"gw","type":"llm","subject":"?t","time":"?d","data":{"model":"?t","tokens":?n,"region":"?t"}}',
  '{"id":"?t","type":"llm","subject":"?t","data":{"tokens":?n}}',
  '{ "data" : { "a" : { "b" : ?n , "c" : { "d" : "?t" } } , "tokens" : ?n } , "type" : "llm" , "subject" : "?t" , "id" : "?t" }',
  '{"type":"said","id":"?t","subject":"?t","source":"?t","data":{"amount":"?t"}}',
  '{"type":"seen","id":"?t","subject":"?t","time":"?d","data":{"user":{"id":"?t"},"first":?w}}',
  '{"type":"seen","id":"?t","subject":"?t","time":"?d","data":{"user":{"id":?n},"first":?w}}',
  '{"type":"call","id":"?t","subject":"?t","source":""}',
  '{"type":"other","id":"?t","subject":"?t","source":null,"data":{}}',
  '{"type":"call","id":"?t","subject":"?t","time":"?d","data":null}',
  '{"specversion":"1.0","type":"call","id":"?t","source":"?t","subject":"?t","traceparent":"a","data":{"né":?n,"":"?t"}}',
  '{"specversion":"1.0","type":"call","id":"?t","source":"s","subject":"?t","datacontenttype":"application/json","data":{"x":?n}}',
  '{"id":"?t","type":"?t","subject":"?t"}',
  '{"id":"?t","type":"call","subject":"?t","data":{"a.b":?n,"a":{"c":"?t"},"list":[?n],"none":{}}}',
  '{"id":"?t","source":"gw","subject":"?t","type":"llm","amends":"?t","data":{"tokens":?n}}',
  '{"id":"?t","source":"gw","voids":"?t"}',
  '{"id":"?t","type":"tallyline.x","subject":"?t","data":{"tokens":?n}}',
  '{"id":"?t","type":"call","subject":"?t","data":{"a":1,"a":?n}}',
  '{"id":"?t","type":"call","subject":"?t","unknown":?n}',
] as const;

const valueOf: Record<string, fc.Arbitrary<string>> = { t: text, n: number, w: word, d: time };
const eventOf = (kind: string): fc.Arbitrary<string> => {
  const parts = kind.split(/\?([tnwd])/);
  const values = parts.flatMap((part, at) => (at % 2 === 1 ? [valueOf[part]!] : []));
  return fc
    .tuple(...values)
    .map((found) => parts.map((part, at) => (at % 2 === 1 ? found[(at - 1) / 2]! : part)).join(''));
};
/** A stream: kinds in turns, so that some events stand in a row that look alike. */
const streamOf = (kinds: readonly string[]) =>
  fc
    .array(fc.tuple(fc.constantFrom(...kinds), fc.nat(8)), { minLength: 1, maxLength: 4 })
    .chain((runs) =>
      fc.tuple(...runs.flatMap(([kind, length]) => Array.from({ length }, () => eventOf(kind)))),
    );

interface Change {
  readonly kind: 'flip' | 'drop' | 'double' | 'cut';
  readonly place: number;
  readonly byte: number;
}
const change: fc.Arbitrary<Change> = fc.record({
  kind: fc.constantFrom('flip', 'drop', 'double', 'cut'),
  place: fc.double({ min: 0, max: 0.999_999, noNaN: true }),
  byte: fc.oneof(fc.constantFrom(...Buffer.from('",:{}[]\\0 \n\0e.-')), fc.nat(255)),
});

function changed(body: Buffer, { kind, place, byte }: Change): Buffer {
  const at = Math.floor(place * body.length);
  const rest = body.subarray(at + 1);
  const head = body.subarray(0, at);
  if (kind === 'flip') return Buffer.concat([head, Buffer.of(byte), rest]);
  if (kind === 'drop') return Buffer.concat([head, rest]);
  if (kind === 'cut') return head;
  return Buffer.concat([head, body.subarray(at, at + 7), body.subarray(at)]);
}

const FORMATS = ['json', 'ndjson', 'ndjson', 'json', 'cloudevents-batch'] as const;
const usualOr = (usual: string, ...others: string[]) =>
  fc.array(fc.oneof({ weight: 12, arbitrary: fc.constant(usual) }, fc.constantFrom(...others)), {
    minLength: 8,
    maxLength: 8,
  });
const stepOf = (kinds: readonly string[]) =>
  fc.record({
    events: streamOf(kinds),
    format: fc.constantFrom(...FORMATS),
    commas: usualOr(',', ' , ', ',\n\t', ';', ',,', ''),
    lines: usualOr('\n', '\r\n', '\n\n', ' \n ', ' ', '', ',\n', '\0\n'),
    ends: fc.boolean(),
    changes: fc.array(change, { maxLength: 2 }),
    isChanged: fc.constantFrom(false, false, true),
    tenant: fc.constantFrom('acme', 'acme', 'acme', 'globex'),
    laterMs: fc.constantFrom(0, 0, 3_600_000, -3_600_000),
    meter: fc.constantFrom(null, null, null, null, null, 'tokens', 'calls'),
  });
type OneStep = ReturnType<typeof stepOf> extends fc.Arbitrary<infer Value> ? Value : never;
/** Few kinds a run, so that bodies have what was seen in bodies before. */
const steps = fc
  .uniqueArray(fc.constantFrom(...KINDS), { minLength: 1, maxLength: 3 })
  .chain((kinds) => fc.array(stepOf(kinds), { minLength: 1, maxLength: 10 }));

function bodyOf({ events, format, commas, lines, ends, changes, isChanged }: OneStep): Buffer {
  const joined = (between: readonly string[]): string =>
    events.map((event, at) => (at === 0 ? event : between[at % between.length]! + event)).join('');
  let text = format === 'ndjson' ? joined(lines) + (ends ? '\n' : '') : `[${joined(commas)}]`;
  if (format !== 'ndjson' && events.length === 1 && ends) text = events[0]!;
  const body = Buffer.from(text);
  return isChanged ? changes.reduce(changed, body) : body;
}

test(
  'with the kernel every body has the same outcome, the same events and the same blocks as without',
  () => {
    fc.assert(
      fc.property(steps, (bodies) => {
        const [plain, kernel] = [new Edge(false), new Edge(true)];
        for (const one of bodies) {
          if (one.meter !== null) {
            // It is gone, or it comes back with another idea of its value.
            const meter = METERS.find(({ key }) => key === one.meter)!;
            const json = one.ends
              ? null
              : JSON.stringify({
                  tenant: 'acme',
                  meter: { ...meter, aggregation: 'count', valueProperty: null },
                });
            for (const edge of [plain, kernel]) edge.meters.set(`acme.${one.meter}`, json);
          }
          for (const edge of [plain, kernel]) edge.batch.paths.trim(30);
          same(plain, kernel, bodyOf(one), one.format, one.tenant, NOW + one.laterMs);
        }
        sameLogs(plain, kernel);
      }),
      { numRuns: 120 * LENGTH },
    );
  },
  PATIENCE_MS,
);

test(
  'with the kernel every bad input is refused as without, also when one like it was seen before',
  () => {
    const seed = Math.floor(Math.random() * 2 ** 31);
    const inputs = badInputs(windowAt(NOW, 0), {
      seeds: [1, seed],
      amounts: { faults: 30 * LENGTH, jsonBytes: 30 * LENGTH, msgpackBytes: 10 * LENGTH },
      doors: false,
    }).filter(({ way, expected }) => way !== 'binary' && expected.kind !== 'ended');
    const [plain, kernel] = [new Edge(false), new Edge(true)];
    try {
      for (const { way, body } of inputs) {
        for (let time = 0; time < 2; time++) same(plain, kernel, body, WAYS[way].format);
        if (plain.logs[0]!.length > 100) sameLogs(plain, kernel);
      }
      sameLogs(plain, kernel);
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
  },
  PATIENCE_MS,
);

test(
  'what the kernel takes ends in the same blocks to the byte, whatever the limits',
  () => {
    const limits = fc.record({
      shards: fc.constantFrom(1, 3, 4, 7, 64),
      blockEventsMax: fc.constantFrom(1, 7, 500),
      blockBytesMax: fc.constantFrom(1_024, 5_000, 92_160),
      batchEventsMax: fc.constant(600),
    });
    const field = fc.oneof(
      fc.record({ path: fc.constantFrom('a', 'b', 'c.d', 'c.e', 'né'), text: fc.string({ maxLength: 40 }) }),
      fc.record({ path: fc.constantFrom('n', 'm'), number: fc.tuple(fc.maxSafeInteger(), fc.nat(9)) }),
      fc.record({ path: fc.constantFrom('w', 'v'), literal: fc.constantFrom('true', 'null', '[1,2]') }),
    );
    const event = fc.record({
      id: fc.oneof(
        fc.uuid(),
        fc.string({ unit: 'grapheme', minLength: 1, maxLength: 30 }),
        fc.constant('x'.repeat(256)),
      ),
      source: fc.constantFrom('', 'gw', 'a source of more than sixteen bytes', 's'.repeat(512)),
      type: fc.constantFrom('t', 'u'),
      subject: fc.string({ unit: 'grapheme', maxLength: 20 }),
      timeMs: fc.nat({ max: 2 ** 42 }),
      timeGiven: fc.boolean(),
      fields: fc.uniqueArray(field, { maxLength: 6, selector: ({ path }) => path }),
    });
    const body = fc.record({
      tenant: fc.constantFrom(
        'acme',
        'globex',
        'a-tenant-with-a-long-name-that-takes-more-than-one-block-of-it',
      ),
      events: fc.array(event, { maxLength: 40 }),
      flushes: fc.constantFrom(false, false, false, true),
      forgets: fc.constantFrom(false, false, false, true),
    });
    fc.assert(
      fc.property(limits, fc.array(body, { maxLength: 8 }), (limit, bodies) => {
        const [plain, kernel] = [new Edge(false, limit), new Edge(true, limit)];
        for (const { tenant, events, flushes, forgets } of bodies) {
          for (const edge of [plain, kernel]) {
            if (forgets) edge.batch.paths.trim(1);
            fillBatch(edge.batch, tenant, events);
            expect(edge.batch.isHome).toBe(edge === kernel);
            edge.pack();
            if (flushes) edge.flush();
          }
        }
        for (const edge of [plain, kernel]) edge.flush();
        expect(kernel.digests()).toEqual(plain.digests());
      }),
      { numRuns: 50 * LENGTH },
    );
  },
  PATIENCE_MS,
);

test('more texts and shapes than the tables of a block begin with change nothing', () => {
  const limits = { shards: 2, blockEventsMax: 5_000, blockBytesMax: 262_144, batchEventsMax: 3_000 };
  const [plain, kernel] = [new Edge(false, limits), new Edge(true, limits)];
  for (let body = 0; body < 6; body++) {
    const events = Array.from({ length: 2_000 }, (_, at) => ({
      id: `${body}-${at}`,
      source: `s${at % 7}`,
      type: 't',
      subject: `customer ${(at * 7) % 1_500}`,
      timeMs: NOW + at,
      timeGiven: true,
      fields: [
        { path: `field${at % 90}`, text: `value ${at}` },
        { path: 'n', number: [at, at % 3] as const },
      ],
    }));
    for (const edge of [plain, kernel]) {
      fillBatch(edge.batch, 'acme', events);
      edge.pack();
    }
  }
  for (const edge of [plain, kernel]) edge.flush();
  expect(plain.logs.flat().length).toBeGreaterThan(4);
  expect(kernel.digests()).toEqual(plain.digests());
});

test('events that look alike are read by the kernel, and others are not', () => {
  const edge = new Edge(true);
  const { exports } = edge.kernel!;
  let read = 0;
  const scan = exports.scan.bind(exports);
  Object.defineProperty(edge.kernel, 'exports', {
    value: {
      ...exports,
      scan: (...o: Parameters<typeof scan>) => {
        const at = scan(...o);
        read += edge.kernel!.resultWord(1);
        return at;
      },
    },
  });
  const eventOfKind = (id: number, more = ''): string =>
    `{"id":"e${id}","type":"llm","subject":"c","data":{"tokens":${id}${more}}}`;
  const list = (events: readonly string[]): Buffer => Buffer.from(`[${events.join(', ')}]`);
  edge.read(list([1, 2, 3, 4].map((id) => eventOfKind(id))), 'json');
  expect(read).toBe(3);
  edge.read(
    list([eventOfKind(5), eventOfKind(6, ',"é":1'), eventOfKind(7, ',"é":2'), eventOfKind(8)]),
    'json',
  );
  expect(read).toBe(3 + 3);
  // Of another tenant nothing is known, nor under another format.
  edge.read(list([eventOfKind(9)]), 'json', 'globex');
  edge.read(Buffer.from(`${eventOfKind(10)}\n${eventOfKind(11)}\n`), 'ndjson');
  expect(read).toBe(3 + 3 + 1);
});

test('limits that would take too much memory are for an edge without the kernel', () => {
  const limits = { identityKey: KEY, blockEventsMax: 2_000, blockBytesMax: 92_160, batchEventsMax: 10_000 };
  expect(EdgeKernel.load({ ...limits, shards: 2_048, bodyBytesMax: 8_388_608 })).toBeNull();
  expect(EdgeKernel.load({ ...limits, shards: 64, bodyBytesMax: 67_108_864 })).not.toBeNull();
});
