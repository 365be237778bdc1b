// Processes that are there and do not run, run twice, or are away for long.
import { until } from '../../test/until.ts';
import { poisonFrom } from './poison.ts';
import { between } from './random.ts';
import { pause, pauseFor, PLAIN, type Round, type Row } from './row.ts';
import { SHARDS, type World } from './world.ts';

const FROZEN_MS_MAX = 1_500;
const DEADLINE_MS = 60_000;

async function freeze({ world, random }: Round): Promise<void> {
  world.aggregator.freeze();
  await pauseFor(random() * FROZEN_MS_MAX);
  world.aggregator.thaw();
}

async function watermarksBeyond(world: World, before: readonly bigint[], what: string): Promise<void> {
  await until(
    what,
    async () => (await world.watermarks()).every((position, shard) => position > before[shard]!),
    DEADLINE_MS,
  );
}

/**
 * The first is stopped in the middle of whatever it does, a second one counts on, and then the first wakes up and
 * does not know. It goes on with what it had begun: rows of positions that the other has written long ago.
 */
async function wakeUp({ world, random, flowing }: Round): Promise<void> {
  const first = world.aggregator;
  first.freeze();
  const before = await world.watermarks();
  // The one that is left may be the second of a round before.
  await world.startAggregator('aggregator-second', `second-${between(random, 0, 1_000_000_000)}`);
  await flowing();
  await watermarksBeyond(world, before, 'a second aggregator counts what the first one does not');
  await pause(random);
  first.thaw();
  await flowing();
  await pause(random);
  // Either of them may be the one that stays.
  const staying = random() < 0.5 ? 'aggregator' : 'aggregator-second';
  const before2 = await world.watermarks();
  await world.killAggregator(staying === 'aggregator' ? 'aggregator-second' : 'aggregator');
  if (staying !== 'aggregator') world.rename(staying, 'aggregator');
  await flowing();
  await watermarksBeyond(world, before2, 'the aggregator that is left counts on');
}

const AWAY_SECONDS = 3;
const AWAY_SECONDS_LONG = 120;
const STREAM_BYTES_MAX = 131_072;
const BACKLOG_BYTES_MAX = 65_536;
/** One block of the log, and what it grows to when it is prepared: the one that is let in beyond the bound. */
const ONE_BLOCK_BYTES = 262_144;

/** What one log holds at most when it is said to be full: the next block does not go in. */
const FULL_BYTES = STREAM_BYTES_MAX * 0.9;

async function clickHouseAway({ world, random, long }: Round): Promise<void> {
  if (random() < 0.5) await world.engines.clickhouse.kill();
  else await world.engines.clickhouse.stop();
  await until(
    'a log is full',
    async () => {
      const bytes = await Promise.all(Array.from({ length: SHARDS }, (_, shard) => world.logs.bytes(shard)));
      return bytes.some((one) => one >= FULL_BYTES);
    },
    DEADLINE_MS,
  );
  await pauseFor((long ? AWAY_SECONDS_LONG : AWAY_SECONDS) * 1_000);
  const pending = await world.aggregator.metric('tallyline_aggregator_pending_bytes');
  if (!(pending <= BACKLOG_BYTES_MAX + SHARDS * ONE_BLOCK_BYTES)) {
    throw new Error(
      `the aggregator holds ${pending} bytes while ClickHouse is away; its bound is ${BACKLOG_BYTES_MAX}`,
    );
  }
  await world.engines.clickhouse.restart();
}

const POISON_SHARD_MAX = SHARDS - 1;

/** Between good blocks, many in a row, as the last message of a log, and where a restart begins to read. */
async function poison({ world, random, flowing, load }: Round): Promise<void> {
  const some = async (): Promise<void> => {
    const shard = between(random, 0, POISON_SHARD_MAX);
    await world.logs.publishPoison(shard, poisonFrom(await world.logs.newestBlock(shard), random));
  };
  for (let times = 0; times < 3; times++) {
    await some();
    await pause(random);
  }
  await world.killAggregator();
  await some();
  await flowing();
  await some();
  await world.startAggregator();
  await load.pause();
  await some();
  load.resume();
}

export const ABSENCE_ROWS: readonly Row[] = [
  {
    name: 'aggregator-frozen',
    holds:
      'SIGSTOP of the aggregator in the middle of anything, then SIGCONT: it goes on, and nothing doubles',
    world: PLAIN,
    kills: false,
    round: freeze,
  },
  {
    name: 'aggregator-woken',
    holds:
      'SIGSTOP of the aggregator until another one counts its shards, then SIGCONT: two of them change no total',
    world: PLAIN,
    kills: false,
    round: wakeUp,
  },
  {
    name: 'clickhouse-away',
    holds:
      'ClickHouse is away until the logs are full and long after: memory stays bounded, senders wait, all of it counts',
    world: { journal: false, streamBytesMax: STREAM_BYTES_MAX, backlogBytesMax: BACKLOG_BYTES_MAX },
    kills: false,
    round: clickHouseAway,
  },
  {
    name: 'poison',
    holds:
      'messages that nobody can decode, at every place of a log: each is kept byte by byte, and its neighbours count',
    world: PLAIN,
    kills: false,
    round: poison,
  },
];
