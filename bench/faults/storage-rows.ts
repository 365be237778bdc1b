// What the storage of NATS can come to. Only with a journal can events that NATS lost come again, so it is on.
import { until } from '../../test/until.ts';
import { JOURNAL, pause, pauseFor, type Round, type Row } from './row.ts';
import { bitFlipped, forgotten, truncated, zeroedTail, type Damage } from './storage.ts';
import { SHARDS, type World } from './world.ts';

const DEADLINE_MS = 60_000;
/** In which an aggregator reads and flushes what the log has. */
const COUNTED_MS = 600;

async function settled(world: World): Promise<void> {
  await until('the log has what the journal has', () => world.isSettled(), DEADLINE_MS);
}

async function cutBack({ world, random, flowing }: Round): Promise<void> {
  await world.engines.nats.kill();
  await world.store.keep();
  await world.engines.nats.restart();
  // What is cut off must have been in the log, and some of it counted.
  await settled(world);
  await flowing();
  await settled(world);
  await pauseFor(random() * COUNTED_MS);
  await world.engines.nats.kill();
  await world.store.cutBack();
  await world.engines.nats.restart();
}

/** In half of the rounds the aggregator is away, so that what is damaged is what nobody has read yet. */
function damaging(damage: Damage): (round: Round) => Promise<void> {
  return async ({ world, random, flowing }) => {
    const unread = random() < 0.5;
    if (unread) await world.killAggregator();
    await settled(world);
    await flowing();
    await pause(random);
    await world.engines.nats.kill();
    const one = random() < 0.5 ? 0 : SHARDS - 1;
    for (let shard = 0; shard < SHARDS; shard++) {
      // Mostly one shard, and now and then all: they share a disk.
      if (shard !== one && random() < 0.5) continue;
      world.note(`USAGE_${shard}: ${damage(world.store.folder, shard, random) ?? 'nothing to damage'}`);
    }
    await world.restartDamagedNats();
    if (unread) await world.startAggregator();
    await flowing();
    await settled(world);
    await world.mendLogs();
  };
}

export const STORAGE_ROWS: readonly Row[] = [
  {
    name: 'nats-cut-back',
    holds:
      'the store of NATS is an earlier state of itself: what was lost comes again from the journal and counts once',
    world: JOURNAL,
    kills: false,
    round: cutBack,
  },
  {
    name: 'nats-truncated',
    holds:
      'the newest file of a log ends earlier: the same, also where sequences are given to other messages',
    world: JOURNAL,
    kills: false,
    round: damaging(truncated),
  },
  {
    name: 'nats-bit-flipped',
    holds: 'one bit of a log is another: no wrong quantity counts, and what NATS drops for it comes again',
    world: JOURNAL,
    kills: false,
    round: damaging(bitFlipped),
  },
  {
    name: 'nats-zeroed-tail',
    holds: 'the newest file of a log ends in zeros: the same, also where the stream begins again at 1',
    world: JOURNAL,
    kills: false,
    round: damaging(zeroedTail),
  },
  {
    name: 'nats-forgotten',
    holds: 'a log is gone with its stream: it is made again, and what was not counted comes from the journal',
    world: JOURNAL,
    kills: false,
    round: damaging(forgotten),
  },
];
