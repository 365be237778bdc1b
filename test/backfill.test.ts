// Backfills on real NATS and ClickHouse, against a plain model: after a commit the hours are what they would be had the
// version always been there, after a revert what they would be had there never been a backfill.
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Backfill, BackfillChange } from '../contract/backfill.ts';
import type { Meter } from '../contract/meter.ts';
import { AggregatorWorld } from './aggregator-world.ts';
import { MeterModel, type MeteredEvent } from './meter-model.ts';
import type { ModelRow, Sent } from './usage-log.ts';

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
/** Three days, of which the last is the first of another month. */
const BEGIN_MS = Date.UTC(2026, 9, 30);
/** In which hours of a day events are. */
const HOURS = [0, 1, 7, 12, 23];
const TENANT = 'acme';
const DEADLINE_MS = 60_000;
/** For a machine that is busy with other things. */
const TEST_MS = 240_000;

const seed = Number(process.env['TALLYLINE_TEST_SEED'] ?? Math.floor(performance.timeOrigin) % 1_000_000);
let state = seed;
const random = (below: number): number => {
  state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fff_ffff;
  return (state >>> 8) % below;
};

let world: AggregatorWorld;
beforeAll(async () => {
  console.info(`TALLYLINE_TEST_SEED=${seed}`);
  world = await AggregatorWorld.start(1);
});
afterAll(async () => {
  await world?.close();
});

/** Everything that the log got, in order. */
const told: ({ readonly meter: Meter } | { readonly event: MeteredEvent })[] = [];
/** What is committed. */
const held: Backfill[] = [];

function define(meter: Meter): void {
  told.push({ meter });
  world.log.define(TENANT, meter);
}

let nextId = 0;
function someEvent(): MeteredEvent {
  const data: Record<string, unknown> = {
    model: `m${random(6)}`,
    region: ['eu', 'us'][random(2)]!,
    tokens: random(1_000),
    user: `u${random(500)}`,
  };
  // What a later meter asks for, some events lack, or have as something that is no number.
  if (random(10) === 0) delete data['user'];
  if (random(4) > 0) data['cost'] = random(8) === 0 ? 'much' : `${random(50)}.${1 + random(9)}`;
  return {
    tenant: TENANT,
    id: `event-${nextId++}`,
    type: random(10) === 0 ? 'upload' : 'llm',
    subject: `s${random(3)}`,
    timeMs: BEGIN_MS + (random(3) * 24 + HOURS[random(HOURS.length)]!) * HOUR_MS + random(HOUR_MS),
    data,
  };
}

/** Without a cost where the meters that there are would refuse it. */
function send(count: number, sound = false): void {
  for (let left = count; left > 0; left -= 1_000) {
    const events = Array.from({ length: Math.min(left, 1_000) }, () => {
      const event = someEvent();
      return sound ? { ...event, data: { ...event.data, user: `u${random(500)}`, cost: '0.5' } } : event;
    });
    for (const event of events) told.push({ event });
    world.log.send(events as unknown as Sent[], Date.now());
  }
}

function change(kind: BackfillChange, backfill: Backfill): void {
  world.log.changeBackfill({ tenant: TENANT, change: kind, backfill });
  if (kind === 'committed') held.push(backfill);
  if (kind === 'reverted') held.splice(held.indexOf(backfill), 1);
}

/** Each with how much of the log it was told. */
const base = { model: new MeterModel(), read: 0 };
const always = new Map<string, typeof base>();

function meterOf({ meter: key, version }: Backfill): Meter {
  const all = told.flatMap((one) => ('meter' in one ? [one.meter] : []));
  const found = all.find((one) => one.key === key && (one.version ?? 1) === version)!;
  return { ...found, version: 1, effectiveFromMs: 0 };
}

/** What must be stored: of each meter as it was defined, and in the hours of a backfill as if always by its version. */
function expectedRows(): Map<string, ModelRow> {
  for (; base.read < told.length; base.read++) {
    const one = told[base.read]!;
    if ('meter' in one) base.model.define(TENANT, one.meter);
    else base.model.send(one.event);
  }
  const rows = new Map(base.model.rows);
  for (const fill of held) {
    const name = `${fill.meter} ${fill.version}`;
    let alone = always.get(name);
    if (alone === undefined) {
      always.set(name, (alone = { model: new MeterModel(), read: 0 }));
      alone.model.define(TENANT, meterOf(fill));
    }
    for (; alone.read < told.length; alone.read++) {
      const one = told[alone.read]!;
      if ('event' in one) alone.model.send(one.event);
    }
    const isIn = (text: string): boolean => {
      const [, , named, , hour] = JSON.parse(text) as [number, string, string, string, number];
      return named === fill.meter && hour >= fill.fromMs && hour < fill.toMs;
    };
    for (const text of rows.keys()) if (isIn(text)) rows.delete(text);
    for (const [text, row] of alone.model.rows) if (isIn(text)) rows.set(text, row);
  }
  return rows;
}

const texts = (rows: ReadonlyMap<string, ModelRow>): string[] =>
  Array.from(rows, ([key, row]) => `${key} ${Object.values(row).join(' ')}`).sort();

async function expectAgreement(isThorough = false): Promise<void> {
  await world.drained();
  const [expected, stored] = [texts(expectedRows()), texts(await world.storedRows())];
  const [known, found] = [new Set(expected), new Set(stored)];
  expect({
    seed,
    missing: expected.filter((row) => !found.has(row)).slice(0, 3),
    wrong: stored.filter((row) => !known.has(row)).slice(0, 3),
  }).toEqual({ seed, missing: [], wrong: [] });
  if (!isThorough) return;
  await world.expectChecks();
  // What reads events agrees with the rollups too.
  const differing = await world.ch.rows(
    `SELECT * FROM (
       SELECT meter, subject, hour, count() AS n, sum(quantity) AS total FROM contributions
       WHERE until = 18446744073709551615 GROUP BY meter, subject, hour) AS raw
     FULL OUTER JOIN (
       SELECT meter, subject, hour, sum(value_count) AS n, sum(value_sum) AS total FROM usage_rows
       GROUP BY meter, subject, hour) AS rolled USING (meter, subject, hour)
     WHERE raw.n != rolled.n OR raw.total != rolled.total LIMIT 3`,
  );
  expect({ seed, differing }).toEqual({ seed, differing: [] });
}

const llm = { eventType: 'llm', groupBy: [] } as const;
const tokens: Meter = {
  ...llm,
  key: 'tokens',
  aggregation: 'sum',
  valueProperty: 'tokens',
  groupBy: ['model'],
  groupsMax: 4,
};
const late: Meter = { ...tokens, key: 'late' };
const users: Meter = {
  ...llm,
  key: 'users',
  aggregation: 'unique_count',
  valueProperty: 'user',
  groupBy: ['region'],
};
const dearest: Meter = { ...llm, key: 'dearest', aggregation: 'max', valueProperty: 'cost' };

const backfill = (meter: string, version: number, fromMs: number, toMs: number): Backfill => ({
  id: `bf-${meter}-${version}-${fromMs / HOUR_MS}`,
  meter,
  version,
  fromMs,
  toMs,
});

test(
  'a committed backfill counts its hours as if the version had always been there, a reverted one as if it had not',
  async () => {
    define({ ...llm, key: 'calls', aggregation: 'count', valueProperty: null });
    define(tokens);
    await world.start();
    send(20_000);
    await world.drained();
    // Other groups, of which more have rows, and filters: from an hour to come on.
    const effectiveFromMs = Math.ceil(Date.now() / HOUR_MS) * HOUR_MS + 24 * HOUR_MS;
    define({
      ...tokens,
      version: 2,
      effectiveFromMs,
      groupBy: ['model', 'region'],
      groupsMax: 7,
      filters: [{ property: 'model', notIn: ['m5'] }],
    });
    for (const meter of [late, users, dearest]) define(meter);
    send(500, true);
    // A proposal changes nothing.
    const fills = [
      backfill('late', 1, BEGIN_MS, BEGIN_MS + 3 * DAY_MS),
      backfill('users', 1, BEGIN_MS + 5 * HOUR_MS, BEGIN_MS + 53 * HOUR_MS),
      backfill('dearest', 1, BEGIN_MS + HOUR_MS, BEGIN_MS + 50 * HOUR_MS),
      backfill('tokens', 2, BEGIN_MS + 20 * HOUR_MS, BEGIN_MS + 60 * HOUR_MS),
    ];
    for (const one of fills) change('proposed', one);
    await expectAgreement();

    // Events before and behind the commits in one flush, and late ones after it.
    send(300, true);
    for (const one of fills) change('committed', one);
    send(300, true);
    await expectAgreement(true);
    send(700, true);
    // What does not fit changes nothing: again, hours that another holds, what was never proposed.
    const overlapping = backfill('late', 1, BEGIN_MS + HOUR_MS, BEGIN_MS + 2 * HOUR_MS);
    for (const kind of ['proposed', 'committed'] as const)
      world.log.changeBackfill({ tenant: TENANT, change: kind, backfill: overlapping });
    world.log.changeBackfill({ tenant: TENANT, change: 'committed', backfill: fills[0]! });
    world.log.changeBackfill({
      tenant: TENANT,
      change: 'reverted',
      backfill: { ...fills[0]!, id: 'unheard-of' },
    });
    await expectAgreement();
    expect(await world.metric('tallyline_aggregator_meter_conflicts_total')).toBe(2);

    // Reverted, with events that came while it held; and others in their place.
    for (const one of [...fills]) change('reverted', one);
    send(300, true);
    await expectAgreement();
    const again = [
      backfill('late', 1, BEGIN_MS + 7 * HOUR_MS, BEGIN_MS + 30 * HOUR_MS),
      backfill('tokens', 2, BEGIN_MS + 30 * HOUR_MS, BEGIN_MS + 40 * HOUR_MS),
    ];
    for (const one of again) change('proposed', one);
    await world.drained();

    // Killed while it commits: at whatever step that is, what comes after ends in the same rows.
    for (const one of again) {
      send(200, true);
      change('committed', one);
      send(200, true);
      await world.log.acknowledged();
      const isWritten = `SELECT 1 FROM backfills WHERE change = 'committed' AND backfill = {id:String}`;
      await world.eventually(
        'the commit is in the tables',
        async () => (await world.ch.rows(isWritten, { id: one.id })).length > 0,
        DEADLINE_MS,
      );
      await world.start();
    }
    await expectAgreement(true);
  },
  TEST_MS,
);
