// Full disks: of NATS, and of the edge journal.
import { pause, type Round, type Row } from './row.ts';

/** NATS stays wedged after a full disk until it is started again (measured with 2.9), so that is what is done. */
async function fullDiskOfNats({ world, random, flowing }: Round): Promise<void> {
  world.disk!.fill();
  // Taken by the journal alone.
  await flowing();
  await pause(random);
  if (random() < 0.5) await world.engines.nats.kill();
  else await world.engines.nats.stop();
  world.disk!.makeRoom();
  await world.engines.nats.restart();
}

/** While the journal has no room the log alone decides; when it has room again, it carries the promise again. */
async function fullDiskOfJournal({ world, random, flowing }: Round): Promise<void> {
  world.disk!.fill();
  await flowing();
  if (random() < 0.5) {
    await world.killEdge();
    world.disk!.makeRoom();
    await world.startEdge();
  } else {
    await world.engines.nats.kill();
    await pause(random);
    await world.engines.nats.restart();
    await flowing();
    world.disk!.makeRoom();
  }
  await flowing();
  await world.engines.nats.kill();
  await flowing();
  await world.engines.nats.restart();
}

export const DISK_ROWS: readonly Row[] = [
  {
    name: 'nats-disk-full',
    holds:
      'the disk of NATS is full: events are taken by the journal, and count once when there is room and a restart',
    world: { journal: true, smallDisk: 'nats' },
    kills: false,
    round: fullDiskOfNats,
  },
  {
    name: 'journal-disk-full',
    holds:
      'the disk of the journal is full: the log alone decides, and with room again the journal carries on without it',
    world: { journal: true, smallDisk: 'journal' },
    kills: false,
    round: fullDiskOfJournal,
  },
];
