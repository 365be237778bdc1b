import type { Load } from './load.ts';
import type { World, WorldOptions } from './world.ts';

/** What a round of a row has to work with. */
export interface Round {
  readonly world: World;
  readonly load: Load;
  /** From the seed, the row and the number alone. */
  readonly random: () => number;
  /** From 1. */
  readonly number: number;
  /** Whether this round may take minutes where the fault is about time. */
  readonly long: boolean;
  /** Resolves when events of every product were taken again. */
  flowing(): Promise<void>;
}

/** One way in which things go wrong, and what must hold then. */
export interface Row {
  readonly name: string;
  /** What is done, and what must hold, in one sentence. */
  readonly holds: string;
  readonly world: WorldOptions;
  /** Whether it is nothing but kill -9: these rows share the rounds that the command is told. */
  readonly kills: boolean;
  /** Does the fault once, while products send. All processes run again at its end. */
  round(round: Round): Promise<void>;
}

/** Without anything that helps; the logs begin with messages that nobody can decode. */
export const PLAIN: WorldOptions = { journal: false, poisonFirst: true };
/** Where events that NATS loses come again. */
export const JOURNAL: WorldOptions = { journal: true };

export function pauseFor(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

const PAUSE_MS_MAX = 150;

/** Long enough for every step of a flush and a publish to be met by a crash now and then. */
export function pause(random: () => number): Promise<void> {
  return pauseFor(random() * PAUSE_MS_MAX);
}
