/**
 * Runs rows: a world, products that send, and rounds one after the other. A round is: events flow, the fault, events
 * flow again, the products fall silent, everything must hold (invariants.ts), and they go on. After a number of
 * rounds the world is thrown away and a new one begins, so that checking stays cheap.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { ABSENCE_ROWS } from './absence-rows.ts';
import { DISK_ROWS } from './disk-rows.ts';
import { checkInvariants } from './invariants.ts';
import { KILL_ROWS } from './kill-rows.ts';
import { Load } from './load.ts';
import { NETWORK_ROWS } from './network-rows.ts';
import { seededRandom, seedOf } from './random.ts';
import { pause, type Row } from './row.ts';
import { SmallDiskUnavailable } from './small-disk.ts';
import { STORAGE_ROWS } from './storage-rows.ts';
import { World, type WorldOptions } from './world.ts';

export const ROWS: readonly Row[] = [
  ...KILL_ROWS,
  ...ABSENCE_ROWS,
  ...NETWORK_ROWS,
  ...STORAGE_ROWS,
  ...DISK_ROWS,
];

const ROUNDS_OF_A_WORLD = 25;

export interface RoundToRun {
  readonly row: Row;
  /** From 1. */
  readonly number: number;
  readonly long: boolean;
}

export interface RowResult {
  readonly name: string;
  readonly holds: string;
  readonly rounds: number;
  readonly events: number;
  readonly seconds: number;
  /** Why it was not run; null when it was. */
  readonly skipped: string | null;
}

/** A promise was broken. The message says everything that one needs to see it again. */
export class FaultFailure extends Error {
  override readonly name = 'FaultFailure';
  readonly round: number;
  /** The command that does it again. */
  readonly again: string;

  constructor(message: string, o: { round: number; again: string; cause: unknown }) {
    super(message, { cause: o.cause });
    this.round = o.round;
    this.again = o.again;
  }
}

export interface RunOptions {
  readonly seed: number;
  /** Where the data and the logs of a failed round are kept. */
  readonly keepFolder: string;
  onRound?(round: RoundToRun): void;
}

/**
 * Runs rounds in one world, which they must agree on. Throws a FaultFailure at the first promise that is broken, and
 * a SmallDiskUnavailable when the world cannot be had here.
 */
export async function runInWorld(
  options: WorldOptions,
  rounds: readonly RoundToRun[],
  o: RunOptions,
): Promise<{ events: number }> {
  const first = rounds[0]!;
  const seed = seedOf(o.seed, first.row.name, 0);
  const world = await World.start({ ...options, seed });
  const load = new Load({ url: world.url, key: world.key });
  let current = first;
  try {
    for (const round of rounds) {
      current = round;
      o.onRound?.(round);
      await runRound(world, load, round, seededRandom(seedOf(o.seed, round.row.name, round.number)));
    }
    const events = load.recorded;
    await load.close();
    await world.stop();
    return { events };
  } catch (error) {
    throw await keepFailure({ world, load, round: current, error }, o);
  }
}

async function runRound(
  world: World,
  load: Load,
  { row, number, long }: RoundToRun,
  random: () => number,
): Promise<void> {
  world.note(`${row.name}, round ${number}`);
  const flowing = (): Promise<void> => load.flowing();
  await flowing();
  await pause(random);
  await row.round({ world, load, random, number, long, flowing });
  await flowing();
  await load.pause();
  world.note('the products are silent');
  await checkInvariants(world, load);
  world.note('everything holds');
  load.resume();
}

async function keepFailure(
  failed: { world: World; load: Load; round: RoundToRun; error: unknown },
  { seed, keepFolder }: RunOptions,
): Promise<FaultFailure> {
  const { world, load, round, error } = failed;
  const { row, number } = round;
  const folder = join(keepFolder, `${row.name}-seed-${seed}-round-${number}`);
  const what = error instanceof Error ? error.message : String(error);
  world.note(`FAILED: ${what}`);
  await load.close();
  mkdirSync(folder, { recursive: true });
  // What is wrong is told also when not all of it can be kept.
  const kept = await world.stop(folder).then(
    () => `its data and logs are in ${folder}`,
    (problem: unknown) => `its data could not be kept in ${folder}: ${String(problem)}`,
  );
  const again = `npm run faults -- --only ${row.name} --seed ${seed} --from ${number} --rounds 1`;
  return new FaultFailure(
    `${row.name}, round ${number}, seed ${seed}: ${what}\n` +
      `  what must hold: ${row.holds}\n` +
      `  ${kept}\n` +
      `  again: ${again}`,
    { round: number, again, cause: error },
  );
}

/** `rounds` rounds of a row from number `from` on, in as many worlds as it takes. */
export async function runRow(
  row: Row,
  o: RunOptions & { readonly from: number; readonly rounds: number; readonly longFirst: boolean },
): Promise<RowResult> {
  const startedMs = performance.now();
  let events = 0;
  const result = (rounds: number, skipped: string | null): RowResult => ({
    name: row.name,
    holds: row.holds,
    rounds,
    events,
    seconds: (performance.now() - startedMs) / 1_000,
    skipped,
  });
  for (let done = 0; done < o.rounds; done += ROUNDS_OF_A_WORLD) {
    const count = Math.min(ROUNDS_OF_A_WORLD, o.rounds - done);
    const rounds = Array.from({ length: count }, (_, at) => ({
      row,
      number: o.from + done + at,
      long: o.longFirst && o.from + done + at === 1,
    }));
    try {
      events += (await runInWorld(row.world, rounds, o)).events;
    } catch (error) {
      if (!(error instanceof SmallDiskUnavailable)) throw error;
      return result(done, error.message);
    }
  }
  return result(o.rounds, null);
}
