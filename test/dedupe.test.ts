// The guarantee of the tiered index on real NATS and ClickHouse: whatever was counted once is never counted again,
// however long ago in the log, and with memory for a tenth of it.
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Meter } from '../contract/meter.ts';
import { AggregatorWorld } from './aggregator-world.ts';
import type { Sent } from './usage-log.ts';

const EVENTS = 120_000;
const BLOCK_EVENTS = 1_000;
const KEYS_MAX = 12_000;
const BACKLOG_BYTES_MAX = 1024 ** 2;
const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;
/** From the first event to the last, by the log's own acceptance times. */
const SPAN_MS = 45 * DAY_MS;
const LONGEST_MS = 40 * DAY_MS;
const START_MS = Date.UTC(2026, 8, 1);
const seed = Number(process.env['TALLYLINE_TEST_SEED'] ?? Math.floor(performance.timeOrigin) % 1_000_000);

const tokens: Meter = {
  key: 'tokens',
  eventType: 'llm',
  aggregation: 'sum',
  valueProperty: 'tokens',
  groupBy: [],
};

let world: AggregatorWorld;
beforeAll(async () => {
  world = await AggregatorWorld.start(2);
});
afterAll(async () => {
  await world?.close();
});

let state = seed;
function random(below: number): number {
  state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fff_ffff;
  return Math.floor((state / 0x8000_0000) * below);
}

const acceptedAt = (event: number): number => START_MS + Math.floor((event / EVENTS) * SPAN_MS);

/** Every twentieth event is an earlier one again, a minute to 40 days later, each distance as likely as its double. */
function eventsOfLog(): { log: Sent[]; repeated: number } {
  const log: Sent[] = [];
  let repeated = 0;
  for (let at = 0; at < EVENTS; at++) {
    const apart = MINUTE_MS * (LONGEST_MS / MINUTE_MS) ** (random(1_000_000) / 1_000_000);
    const earlier = Math.floor(at - (apart / SPAN_MS) * EVENTS);
    if (random(20) === 0 && earlier >= 0) {
      log.push(again(log[earlier]!, acceptedAt(at)));
      repeated += 1;
      continue;
    }
    log.push({
      tenant: 'acme',
      id: `event-${at}`,
      type: 'llm',
      subject: `customer-${at % 5}`,
      timeMs: acceptedAt(at),
      data: { tokens: random(1_000) },
    });
  }
  return { log, repeated };
}

/** As it was, or with a new timestamp, value or subject: all the same event. */
function again(event: Sent, nowMs: number): Sent {
  const how = random(4);
  if (how === 1) return { ...event, timeMs: nowMs };
  if (how === 2) return { ...event, data: { tokens: 1_000_000 } };
  if (how === 3) return { ...event, subject: 'customer-of-nobody' };
  return event;
}

test(`duplicates up to 40 days old change no total, with memory for a tenth of the identities (TALLYLINE_TEST_SEED=${seed})`, async () => {
  const env = {
    TALLYLINE_DEDUPE_KEYS_MAX: String(KEYS_MAX),
    TALLYLINE_AGGREGATOR_BACKLOG_BYTES_MAX: String(BACKLOG_BYTES_MAX),
  };
  const { log, repeated } = eventsOfLog();
  let largest = 0;
  const look = async (): Promise<void> => {
    largest = Math.max(largest, await world.metric('tallyline_aggregator_dedupe_keys_count'));
  };
  world.log.define('acme', tokens);
  await world.start(env);
  for (let from = 0, block = 0; from < EVENTS; from += BLOCK_EVENTS, block++) {
    world.log.send(log.slice(from, from + BLOCK_EVENTS), acceptedAt(from));
    if (block % 10 !== 9) continue;
    await world.log.acknowledged();
    await look();
    // Killed twice on its way: what memory knew is built again from the tables.
    if (block === 49 || block === 89) await world.start(env);
  }
  await world.log.acknowledged();
  // A killed owner's shards may have to be waited for, and then all of the log is read behind it.
  await world.eventually(
    'counting the whole log',
    async () => {
      const marks = await world.watermarks();
      return world.log.lastSequences.every((last, shard) => (marks.get(shard)?.sequence ?? 0) >= last);
    },
    120_000,
  );
  await look();
  await world.expectExact();
  const verdicts = await world.storedVerdicts();
  expect(repeated).toBeGreaterThan(4_000);
  expect(verdicts.get('acme counted')).toBe(EVENTS - repeated);
  expect(verdicts.get('acme duplicate')! + verdicts.get('acme conflict')!).toBe(repeated);

  // The bound, and what is not durable yet, which the backlog bounds: an event takes 30 bytes of it or more.
  expect(largest).toBeLessThan(KEYS_MAX + BACKLOG_BYTES_MAX / 30 + 2 * BLOCK_EVENTS);
  expect(await world.metric('tallyline_aggregator_dedupe_filter_keys_count')).toBeGreaterThan(
    EVENTS - repeated - KEYS_MAX * 2,
  );
  // Asked for: what is older than memory, and a few new identities in a thousand; not every unknown one.
  const asked = await world.metric('tallyline_aggregator_dedupe_lookups_total');
  expect(asked).toBeGreaterThan(0);
  expect(asked).toBeLessThan(repeated);
  await world.end('SIGTERM');
}, 300_000);
