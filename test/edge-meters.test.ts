import fc from 'fast-check';
import { Packr } from 'msgpackr';
import { expect, test } from 'vitest';
import { Preparer, REFUSALS } from '../aggregator/prepare.ts';
import { metersInForce } from '../aggregator/registry.ts';
import { BlockBuilder } from '../contract/block-builder.ts';
import { formatMeterVersions, type MeterDefined } from '../contract/control.ts';
import { EventBatch } from '../contract/event-batch.ts';
import { AGGREGATIONS, type MeterFilter } from '../contract/meter.ts';
import { REJECTIONS } from '../contract/rejections.ts';
import { HOUR_MS } from '../contract/window.ts';
import { Admission } from '../ingest/read/admit.ts';
import { readBody, type BodyContext } from '../ingest/read/body.ts';
import { MeterBook } from '../ingest/tenant/meters.ts';

// The edge tells a sender what the aggregator would do to an event for the sake of its meters. Here both judge the
// same events: the edge while it reads them, the aggregator from a real block of them.

const NOW_MS = Date.UTC(2026, 10, 21);
const admission = new Admission({ eventAgeDaysMax: 30, eventAheadSecondsMax: 60, batchEventsMax: 100 });
const contextOf = (meters: MeterBook): BodyContext => ({
  admission,
  meters,
  tenant: 'acme',
  tenantBytes: Buffer.from('acme'),
  nowMs: NOW_MS,
});

const PATHS = ['a', 'b', 'a.b', 'b.a', 'n.x', 'ü', '\ufeff'];
const TEXTS = ['', '0', '1', '1.5', '7', '007', '-1', 'null', 'true', '[1]', '{}', '0.000000001', '１'];
interface SomeFilter {
  readonly property: string;
  readonly values: string[];
  readonly isIn: boolean;
}
const filter: fc.Arbitrary<SomeFilter> = fc.record({
  property: fc.constantFrom('region', ...PATHS),
  values: fc.uniqueArray(fc.constantFrom(...TEXTS), { minLength: 1, maxLength: 8 }),
  isIn: fc.boolean(),
});
/** Versions of the meter behind the first: what they change, from which hour on. */
const change = fc.record({ path: fc.constantFrom(...PATHS), filters: fc.array(filter, { maxLength: 2 }) });

const definition: fc.Arbitrary<Omit<MeterDefined['meter'], 'key'>> = fc
  .record({
    eventType: fc.constantFrom('request', 'login', '\ufeffrequest'),
    aggregation: fc.constantFrom(...AGGREGATIONS),
    path: fc.constantFrom(...PATHS),
    groupBy: fc.subarray(['region', 'a', 'b']),
    filters: fc.oneof(
      { weight: 2, arbitrary: fc.constant<SomeFilter[]>([]) },
      fc.array(filter, { maxLength: 3 }),
    ),
  })
  .map(({ path, filters, ...rest }) => ({
    ...rest,
    filters: filters.map(filterOf),
    valueProperty: rest.aggregation === 'count' ? null : path,
  }));

function filterOf({ property, values, isIn }: SomeFilter): MeterFilter {
  return isIn ? { property, in: values } : { property, notIn: values };
}

const decimal = fc
  .tuple(
    fc.constantFrom('', '-'),
    fc.constantFrom(
      '0',
      '7',
      '12',
      '999999999999999999',
      '1000000000000000000',
      '30000000000000000000',
      '007',
      '',
    ),
    fc.constantFrom('', '', '.', '.5', '.123456789', '.1234567890', '.1234567891', `.${'0'.repeat(70)}`),
  )
  .map((parts) => parts.join(''));
const scalar = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom(0, 1, -1, 1.5, 0.000_000_001, 2 ** 53 - 1) },
  { weight: 8, arbitrary: decimal },
  fc.constantFrom<unknown>(null, true, false, {}, [], [null], [1], 'null', 'NaN', '1e3', ' 1', '１', ''),
);
const data = fc.dictionary(
  fc.constantFrom('a', 'b', 'n', 'x', 'a.b', 'b.a', 'region', 'ü', '\ufeff'),
  fc.oneof(scalar, fc.dictionary(fc.constantFrom('a', 'b', 'x'), scalar, { maxKeys: 3 })),
  { maxKeys: 5 },
);
const event = fc.record({
  hour: fc.nat({ max: 3 }),
  type: fc.constantFrom('request', 'login', 'other', '\ufeffrequest'),
  data,
});

test('the edge refuses an event for the sake of a meter just when the aggregator would, and with the same code', () => {
  const preparer = new Preparer('000102030405060708090a0b0c0d0e0f');
  const packr = new Packr({ useRecords: false });
  const [judged, admitted] = [new EventBatch(), new EventBatch()];
  const seen = new Map<string, number>();
  fc.assert(
    fc.property(
      fc.array(fc.tuple(definition, fc.array(change, { maxLength: 2 })), { maxLength: 4 }),
      fc.array(event, { minLength: 1, maxLength: 5 }),
      fc.constantFrom('json' as const, 'msgpack' as const),
      (definitions, sent, format) => {
        const book = new MeterBook();
        const defined = definitions.flatMap(([first, changes], at) => {
          const meter = { key: `m${at}`, ...first };
          const versions = [
            meter,
            ...changes.map(({ path, filters }, before) => ({
              ...meter,
              filters: filters.map(filterOf),
              valueProperty: meter.valueProperty === null ? null : path,
              version: before + 2,
              effectiveFromMs: NOW_MS + (before - 2) * HOUR_MS,
            })),
          ];
          expect(book.set(`acme.m${at}`, formatMeterVersions({ tenant: 'acme', versions }))).toBe(true);
          return versions.map((version) => ({ tenant: 'acme', meter: version }));
        });
        const events = sent.map(({ type, hour, data: fields }, at) => ({
          id: `e${at}`,
          type,
          subject: 's',
          time: new Date(NOW_MS + (hour - 3) * HOUR_MS).toISOString(),
          data: fields,
        }));
        const body = format === 'json' ? Buffer.from(JSON.stringify(events)) : packr.pack(events);

        // 1. The edge, knowing no meter: what it refuses now it refuses for other reasons.
        const without = readBody(body, format, contextOf(new MeterBook()), admitted);
        if (!without.read) throw new Error(without.message);
        const others = new Set(without.rejected.map(({ index }) => index));
        const kept = events.map((_, index) => index).filter((index) => !others.has(index));

        // 2. The aggregator, from a block of the others.
        const builder = new BlockBuilder();
        kept.forEach((_, at) => builder.add(admitted, at, Uint32Array.of(at, 1, 2, 3)));
        const byAggregator = new Map<number, string>();
        if (kept.length > 0) {
          const { refused } = preparer.prepare(builder.finish(0), metersInForce(defined));
          kept.forEach((index, at) => {
            if (refused[at] !== 0) byAggregator.set(index, REFUSALS[refused[at]! - 1]!);
          });
        }

        // 3. The edge, knowing the meters.
        const outcome = readBody(body, format, contextOf(book), judged);
        if (!outcome.read) throw new Error(outcome.message);
        const byEdge = new Map(
          outcome.rejected.filter(({ index }) => !others.has(index)).map(({ index, code }) => [index, code]),
        );
        expect(byEdge).toEqual(byAggregator);
        const types = new Set(definitions.map(([{ eventType }]) => eventType));
        expect(outcome.unmatched).toBe(kept.filter((index) => !types.has(events[index]!.type)).length);
        for (const code of byAggregator.values()) seen.set(code, (seen.get(code) ?? 0) + 1);
      },
    ),
    { numRuns: 2_000 },
  );
  // What else an aggregator refuses has nothing to do with meters.
  const ofMeters = REFUSALS.filter((code) => REJECTIONS[code].stage === 'both');
  expect(ofMeters).toHaveLength(3);
  for (const code of ofMeters) expect(seen.get(code), code).toBeGreaterThan(5);
});
