// kill -9 of each process, and of several at once.
import { JOURNAL, pause, PLAIN, type Round, type Row } from './row.ts';
import { between, shuffled } from './random.ts';
import type { World } from './world.ts';

interface Victim {
  readonly name: string;
  kill(world: World): Promise<void>;
  start(world: World): Promise<unknown>;
}

const EDGE: Victim = {
  name: 'the edge',
  kill: (world) => world.killEdge(),
  start: (world) => world.startEdge(),
};
const AGGREGATOR: Victim = {
  name: 'the aggregator',
  kill: (world) => world.killAggregator(),
  start: (world) => world.startAggregator(),
};
const NATS: Victim = {
  name: 'NATS',
  kill: (world) => world.engines.nats.kill(),
  start: (world) => world.engines.nats.restart(),
};
const CLICKHOUSE: Victim = {
  name: 'ClickHouse',
  kill: (world) => world.engines.clickhouse.kill(),
  start: (world) => world.engines.clickhouse.restart(),
};
const ALL = [EDGE, AGGREGATOR, NATS, CLICKHOUSE];

function killing(victim: Victim): (round: Round) => Promise<void> {
  return async ({ world, random }) => {
    await victim.kill(world);
    await pause(random);
    await victim.start(world);
  };
}

/** Two or more, each at a time of its own; they come back in another order, and some wait for others to be there. */
async function killSeveral({ world, random }: Round): Promise<void> {
  const victims = shuffled(random, ALL).slice(0, between(random, 2, ALL.length));
  world.note(`kill -9 of ${victims.map(({ name }) => name).join(', ')}`);
  const pauses = victims.map(() => [pause(random), random()] as const);
  await Promise.all(
    victims.map(async (victim, at) => {
      await pauses[at]![0];
      await victim.kill(world);
    }),
  );
  const back = shuffled(random, victims);
  await Promise.all(
    back.map(async (victim, at) => {
      for (let pauses = 0; pauses < at; pauses++) await pause(random);
      await victim.start(world);
    }),
  );
}

export const KILL_ROWS: readonly Row[] = [
  {
    name: 'edge-kill',
    holds:
      'kill -9 of the edge: what it acknowledged counts once, what it did not is sent again and counts once',
    world: PLAIN,
    kills: true,
    round: killing(EDGE),
  },
  {
    name: 'edge-kill-journal',
    holds: 'kill -9 of the edge with its journal on: what only the journal has counts once after the restart',
    world: JOURNAL,
    kills: true,
    round: killing(EDGE),
  },
  {
    name: 'nats-kill',
    holds:
      'kill -9 of NATS: what it acknowledged is in the log, and nobody who reads or writes it has to be restarted',
    world: PLAIN,
    kills: true,
    round: killing(NATS),
  },
  {
    name: 'nats-kill-journal',
    holds:
      'kill -9 of NATS with the journal on: events are taken while it is away, and count once when it is back',
    world: JOURNAL,
    kills: true,
    round: killing(NATS),
  },
  {
    name: 'aggregator-kill',
    holds: 'kill -9 of the aggregator at any step of a flush: the next one ends in the same rows',
    world: PLAIN,
    kills: true,
    round: killing(AGGREGATOR),
  },
  {
    name: 'clickhouse-kill',
    holds:
      'kill -9 of ClickHouse in the middle of inserts, fsync on: the aggregator repeats them and nothing doubles',
    world: { ...PLAIN, fsync: true },
    kills: true,
    round: killing(CLICKHOUSE),
  },
  {
    name: 'several-kill',
    holds: 'kill -9 of two or more of the four at once, back in any order: the same',
    world: JOURNAL,
    kills: true,
    round: killSeveral,
  },
];
