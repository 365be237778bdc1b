// Meters with filters, versions, groups beyond their bound and unique counts, on real NATS and ClickHouse: what the
// aggregator makes of random events, what SQL says of the raw ones, and what a plain model says are the same.
import { afterAll, beforeAll, expect, test } from 'vitest';
import { AGGREGATIONS, METER_LIMITS, type Meter, type MeterFilter } from '../contract/meter.ts';
import { AggregatorWorld } from './aggregator-world.ts';
import { MeterModel, type MeteredEvent } from './meter-model.ts';
import type { ModelRow, Sent } from './usage-log.ts';

const HOUR_MS = 3_600_000;
const seed = Number(process.env['TALLYLINE_TEST_SEED'] ?? Math.floor(performance.timeOrigin) % 1_000_000);
let state = seed;
const random = (below: number): number => {
  state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fff_ffff;
  return (state >>> 8) % below;
};
const pick = <T>(choices: readonly T[]): T => choices[random(choices.length)]!;

const TENANTS = ['a', 'b', 'c', 'd', 'e', 'f'];
const TYPES = ['call', 'upload'];
const PATHS = ['model', 'region', 'n', 'x.y', 'flag'];
const VALUES: readonly unknown[] = [
  ...['', 'm1', 'm2', 'ü"\\', '7', '7.50', 'true', 'null', '__overflow__', '-0.5', '[1]'],
  ...[7, 7.5, -0.5, 0, 12_345_678, true, false, null, [1], {}],
];
const TEXTS = ['', 'm1', 'm2', '7', '7.5', '7.50', '-0.5', 'true', 'null', '[1]', '{}', 'none'];

const someOf = <T>(choices: readonly T[], most: number): T[] => {
  const left = [...choices];
  return Array.from({ length: random(most + 1) }, () => left.splice(random(left.length), 1)[0]!);
};

function someFilter(): MeterFilter {
  const property = pick(PATHS);
  return random(2) === 0
    ? {
        property,
        in: [
          'm1',
          ...someOf(
            TEXTS.filter((text) => text !== 'm1'),
            6,
          ),
        ],
      }
    : {
        property,
        notIn: [
          'm2',
          ...someOf(
            TEXTS.filter((text) => text !== 'm2'),
            2,
          ),
        ],
      };
}

function someMeter(key: string): Meter {
  const aggregation = pick(AGGREGATIONS);
  return {
    key,
    eventType: pick(TYPES),
    aggregation,
    valueProperty:
      aggregation === 'count' ? null : aggregation === 'unique_count' ? pick(['model', 'n', 'flag']) : 'v',
    groupBy: someOf(PATHS, 3),
    filters: Array.from({ length: random(3) }, someFilter),
    ...(random(2) === 0 ? { groupsMax: 1 + random(6) } : {}),
  };
}

/** Other filters, another value, another dimension at the end; from an hour on. */
function nextVersion(meter: Meter, effectiveFromMs: number): Meter {
  const more = PATHS.filter((path) => !meter.groupBy.includes(path));
  return {
    ...meter,
    version: (meter.version ?? 1) + 1,
    effectiveFromMs,
    filters: Array.from({ length: random(3) }, someFilter),
    groupBy: random(2) === 0 ? meter.groupBy : [...meter.groupBy, pick(more)],
    valueProperty: meter.valueProperty === 'v' && random(3) === 0 ? 'w' : meter.valueProperty,
  };
}

const beginMs = Math.ceil(Date.now() / HOUR_MS) * HOUR_MS + METER_LIMITS.versionLeadMs;
const past: MeteredEvent[] = [];
let nextId = 0;

function someEvent(): MeteredEvent {
  if (past.length > 0 && random(20) === 0) return pick(past);
  const [model, region, n, y, flag] = PATHS.map(() => (random(4) === 0 ? undefined : pick(VALUES)));
  const data = {
    v: random(12) === 0 ? pick(['many', null, true, undefined]) : pick([1, 2.5, '0.000000001', 300, '-7']),
    w: random(30) === 0 ? undefined : random(1_000),
    ...{ model, region, n, flag },
    ...(y === undefined ? {} : { x: { y, z: 1 } }),
  };
  const event: MeteredEvent = {
    tenant: pick(TENANTS),
    id: `event-${nextId++}`,
    type: pick(TYPES),
    subject: `s${random(4)}`,
    timeMs: beginMs + random(4) * HOUR_MS + random(HOUR_MS),
    data: Object.fromEntries(Object.entries(data).filter(([, value]) => value !== undefined)),
  };
  past.push(event);
  return event;
}

let world: AggregatorWorld;
const model = new MeterModel();

beforeAll(async () => {
  world = await AggregatorWorld.start(1);
});
afterAll(async () => {
  await world?.close();
});

function define(tenant: string, meter: Meter): void {
  model.define(tenant, meter);
  world.log.define(tenant, meter);
}

function send(count: number): void {
  for (let block = 0; block < count; block += 100) {
    const events = Array.from({ length: 100 }, someEvent);
    for (const event of events) model.send(event);
    world.log.send(events as unknown as Sent[], Date.now());
  }
}

const texts = (rows: ReadonlyMap<string, ModelRow>): string[] =>
  Array.from(rows, ([key, row]) => `${key} ${Object.values(row).join(' ')}`).sort();

async function expectAgreement(): Promise<void> {
  await world.drained();
  const [expected, stored] = [texts(model.rows), texts(await world.storedRows())];
  const known = new Set(expected);
  const found = new Set(stored);
  expect({
    seed,
    missing: expected.filter((row) => !found.has(row)).slice(0, 3),
    wrong: stored.filter((row) => !known.has(row)).slice(0, 3),
  }).toEqual({ seed, missing: [], wrong: [] });
  await world.expectChecks();
  const [counted] = await world.ch.rows<{ n: string }>('SELECT count() AS n FROM contributions');
  expect(Number(counted!.n), `seed ${seed}`).toBe(model.contributions);
  const unique = await world.ch.rows<{ name: string; n: string }>(
    `SELECT concat(tenant, ' ', meter) AS name, uniqExact(value) AS n FROM contributions
     WHERE (tenant, meter) IN (SELECT tenant, meter FROM meter_definitions WHERE aggregation = 'unique_count')
     GROUP BY name`,
  );
  expect(new Map(unique.map(({ name, n }) => [name, Number(n)]))).toEqual(
    new Map(Array.from(model.values, ([name, values]) => [name, values.size])),
  );
}

test('aggregator, SQL and a plain model agree on filters, versions, groups beyond the bound and unique values', async () => {
  const meters = TENANTS.flatMap((tenant) =>
    Array.from({ length: 4 }, (_, at) => ({ tenant, meter: someMeter(`m${at}`) })),
  );
  for (const { tenant, meter } of meters) define(tenant, meter);
  await world.start();
  send(1_500);
  await expectAgreement();

  // New versions, of which some hold from hours on in which events were counted already: those stay what they were.
  const later = meters.map(({ tenant, meter }) => ({
    tenant,
    meter: nextVersion(meter, beginMs + (1 + random(3)) * HOUR_MS),
  }));
  for (const { tenant, meter } of later) define(tenant, meter);
  send(1_500);
  await expectAgreement();

  // What contradicts the log so far, or comes too late, changes nothing.
  const { tenant, meter } = later.find((one) => one.meter.groupBy.length > 0)!;
  const last = { ...meter, version: 3, effectiveFromMs: beginMs + 100 * HOUR_MS };
  world.log.define(tenant, { ...meter, filters: [{ property: 'model', in: ['other'] }] });
  world.log.define(tenant, { ...last, eventType: 'other' });
  world.log.define(tenant, { ...last, groupBy: ['other', ...meter.groupBy] });
  world.log.define(tenant, { ...last, key: 'unheard_of' });
  const first = meters.find((one) => one.tenant === tenant && one.meter.key === meter.key)!.meter;
  define(tenant, { ...first, key: 'hasty', eventType: 'nothing' });
  world.log.define(tenant, {
    ...last,
    ...{ key: 'hasty', eventType: 'nothing', version: 2, effectiveFromMs: beginMs - 2 * HOUR_MS },
  });
  send(200);
  await expectAgreement();
  expect(await world.metric('tallyline_aggregator_meter_conflicts_total')).toBe(5);
  expect(await world.metric('tallyline_aggregator_overflowed_contributions_total')).toBe(model.overflowed);

  // Killed while it counts, several times: what it has written behind its watermark changes no group's place.
  for (let kill = 0; kill < 3; kill++) {
    const before = (await world.watermarks()).get(0)!.sequence;
    send(400);
    await world.log.acknowledged();
    await world.eventually(
      'a flush',
      async () => (await world.watermarks()).get(0)!.sequence > before,
      60_000,
    );
    await world.start();
  }
  await expectAgreement();
  // The test would prove little if nothing of this had happened.
  expect(model.overflowed).toBeGreaterThan(50);
  expect(model.refused).toBeGreaterThan(20);
  expect(model.contributions).toBeGreaterThan(500);
  expect(model.values.size).toBeGreaterThan(0);
});
