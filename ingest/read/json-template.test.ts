import { describe, expect, test } from 'vitest';
import { EventBatch } from '../../contract/event-batch.ts';
import { EdgeKernel } from '../edge-kernel.ts';
import { MeterBook } from '../tenant/meters.ts';
import { Admission } from './admit.ts';
import { readBody, type BodyContext } from './body.ts';
import { JsonScanner } from './json-scanner.ts';
import { templateOf, type Step } from './json-template.ts';

const LIMITS = { batchEventsMax: 10_000, bodyBytesMax: 4_194_304 };
const context: BodyContext = {
  admission: new Admission({ eventAgeDaysMax: 30, eventAheadSecondsMax: 0, ...LIMITS }),
  meters: new MeterBook(),
  tenant: 'acme',
  tenantBytes: Buffer.from('acme'),
  nowMs: Date.UTC(2026, 10, 21, 12),
};

/** The template of one event, written down: literals as they are, `<kind what>` for a value. Null: there is none. */
function written(json: string): string | null {
  const batch = new EventBatch();
  let found: Step[] | null = null;
  const scanner = {
    begin: () => undefined,
    canScan: () => false,
    learn(...[from, draft, start, end]: Parameters<JsonScanner['learn']>): void {
      found = templateOf(from, draft, start, end);
    },
  } as unknown as JsonScanner;
  const outcome = readBody(Buffer.from(json), 'json', { ...context, scanner }, batch);
  expect(outcome).toMatchObject({ read: true, rejected: [] });
  const kinds = ['', 'attribute', 'type', 'time', 'text', 'number', 'word'];
  return (
    (found as Step[] | null)?.reduce((text, { kind, what, start, end }) => {
      const place = kind >= 4 ? ` ${batch.paths.path(what)}` : kind === 3 || kind === 0 ? '' : ` ${what}`;
      const value = kind === 0 ? '' : `<${kinds[kind]}${place}>`;
      return text + Buffer.from(batch.bytes.subarray(start, end)).toString() + value;
    }, '') ?? null
  );
}

describe('a template', () => {
  test('is what stands around the values of an event', () => {
    expect(
      written(
        '{"id":"e1", "source":"gw","type":"llm","subject":"c","time":"2026-11-21T08:00:00Z",' +
          '"data":{"a":{"n":-1.5},"t":"x", "w":null}}',
      ),
    ).toBe(
      '{"id":"<attribute 0>", "source":"<attribute 1>","type":"llm<type 3>","subject":"<attribute 3>",' +
        '"time":"<time>","data":{"a":{"n":<number a.n>},"t":"<text t>", "w":<word w>}}',
    );
  });

  test('has what is no attribute and no value as it is, and no value twice when texts are equal', () => {
    expect(
      written(
        '{"specversion":"1.0","ext":7,"id":"x","source":null,"type":"x","subject":"x","data":{"x":"x"}}',
      ),
    ).toBe(
      '{"specversion":"1.0","ext":7,"id":"<attribute 0>","source":null,"type":"x<type 1>","subject":"<attribute 3>",' +
        '"data":{"x":"<text x>"}}',
    );
  });

  test.each([
    ['an escape in a value', '"data":{"a":"\\n"}'],
    ['an array', '"data":{"a":[1]}'],
    ['an empty object', '"data":{"a":{}}'],
    ['a time with an offset', '"time":"2026-11-21T08:00:00+01:00"'],
    ['a correction', '"amends":"x"'],
  ])('is not made of an event with %s', (_what, more) => {
    expect(written(`{"id":"e1","source":"s","type":"llm","subject":"c",${more}}`)).toBeNull();
  });
});

test('a tenant whose events are never alike is not learned from for long, and is tried again', () => {
  const limits = { shards: 1, blockEventsMax: 10, blockBytesMax: 10_000, ...LIMITS };
  const kernel = EdgeKernel.load({ identityKey: '0'.repeat(32), ...limits })!;
  const batch = new EventBatch(undefined, kernel.home);
  const scanner = new JsonScanner(kernel);
  const counted = { scans: 0, learns: 0 };
  const scan = scanner.scan.bind(scanner);
  scanner.scan = (...o) => {
    counted.scans += 1;
    return scan(...o);
  };
  const { meters } = context;
  const assures = meters.assures.bind(meters);
  meters.assures = (...o) => {
    counted.learns += 1;
    return assures(...o);
  };
  const read = (events: number, key: (at: number) => string): void => {
    const all = Array.from(
      { length: events },
      (_, at) => `{"id":"${at}","type":"t","subject":"s","data":{"${key(at)}":1}}`,
    );
    expect(readBody(Buffer.from(`[${all.join()}]`), 'json', { ...context, scanner }, batch).read).toBe(true);
    expect(batch.count).toBe(events);
  };
  read(4_000, (at) => `k${at % 900}`);
  expect(counted.learns).toBeLessThan(20);
  expect(counted.scans).toBeLessThanOrEqual(64);
  read(200, () => 'same');
  const before = { ...counted };
  read(200, () => 'same');
  expect(counted.learns).toBe(before.learns);
  expect(counted.scans).toBe(before.scans + 1);
});
