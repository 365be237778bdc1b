/**
 * Counts the shards that this process owns, through one flusher.
 *
 * All of it is one crew: its inserts hold rows of several shards, so when the fence refuses one, the crew is dropped
 * with all that it has in memory, and another one begins with new epochs. Nothing is lost by that: what was not durable
 * is in the log.
 */
import type { Log } from '../runtime/log.ts';
import { Backlog } from './backlog.ts';
import { ShardConsumer } from './consume.ts';
import { FencedError } from './fence.ts';
import { Flusher } from './flush.ts';
import type { Measurements } from './measurements.ts';
import type { Hands } from './ownership.ts';
import { StoppedError, type Patience } from './patience.ts';
import type { Ownership, ShardLog, Tables, Timing } from './ports.ts';
import type { Recovered } from './recover.ts';
import type { Watermark } from './watermark.ts';
import type { Workers } from './workers.ts';

export interface CountingOptions {
  readonly workers: Workers;
  readonly measurements: Measurements;
  readonly timing: Timing;
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly backlogBytesMax: number;
  readonly readBytesMax: number;
  readonly intervalMs: number;
  readonly eventsMax: number;
  tables(): Tables & Ownership;
  patience(signal: AbortSignal): Patience;
  shardLog(shard: number): ShardLog;
  /** Step 0 of a shard, for as long as it takes. */
  recover(shardLog: ShardLog, shard: number, through: RecoverThrough): Promise<Recovered>;
  onWatermark(consumer: ShardConsumer, watermark: Watermark, bytes: number): void;
  /** The crew was dropped: nothing is counted any more. */
  onFenced(error: FencedError): void;
  onFatal(error: unknown): void;
}

export interface RecoverThrough {
  readonly tables: Tables;
  readonly patience: Patience;
  readonly signal: AbortSignal;
  /** A hole that was met in reading; null for none. */
  readonly hole: string | null;
}

interface Counted {
  readonly consumer: ShardConsumer;
  readonly stop: AbortController;
  readonly running: Promise<void>;
}

/** What is dropped as a whole when the fence refuses an insert. */
class Crew {
  readonly tables: Tables & Ownership;
  readonly patience: Patience;
  readonly backlog: Backlog;
  readonly flusher: Flusher;
  readonly shards = new Map<number, Counted>();
  readonly stop = new AbortController();
  readonly signal: AbortSignal;
  readonly flushing: Promise<void>;
  /** Settles when the recovery before has ended. */
  recovering: Promise<unknown> = Promise.resolve();

  constructor(o: CountingOptions, guarded: (crew: Crew, task: Promise<void>) => Promise<void>) {
    this.signal = AbortSignal.any([o.signal, this.stop.signal]);
    this.tables = o.tables();
    this.patience = o.patience(this.signal);
    this.backlog = new Backlog(o.backlogBytesMax);
    const { workers, measurements, timing, log, intervalMs, eventsMax } = o;
    this.flusher = new Flusher({
      ...{ workers, measurements, timing, log, intervalMs, eventsMax },
      tables: this.tables,
      backlog: this.backlog,
      patience: this.patience,
      onWatermark: (...of) => o.onWatermark(...of),
    });
    this.flushing = guarded(this, this.flusher.run(this.signal));
  }
}

export class Counting implements Hands {
  readonly #o: CountingOptions;
  #crew: Crew;

  constructor(o: CountingOptions) {
    this.#o = o;
    this.#crew = this.#newCrew();
  }

  get consumers(): readonly ShardConsumer[] {
    return [...this.#crew.shards.values()].map(({ consumer }) => consumer);
  }

  get backlogBytes(): number {
    return this.#crew.backlog.bytes;
  }

  async begin(shard: number, epochAtLeast: number): Promise<number> {
    const crew = this.#crew;
    const { workers, measurements, timing, log, readBytesMax } = this.#o;
    const { tables, patience, backlog, flusher } = crew;
    const shardLog = this.#o.shardLog(shard);
    const { signal } = crew;
    const recoverWith = (hole: string | null): Promise<Recovered> =>
      this.#o.recover(shardLog, shard, { tables, patience, signal, hole });
    const taken = patience.until(`take-over of shard ${shard}`, () =>
      tables.takeOver(shard, epochAtLeast, crew.signal),
    );
    // One shard after the other: the first counts again soonest, and only one index is being loaded at a time.
    const turn = Promise.all([taken, crew.recovering]).then(() => recoverWith(null));
    crew.recovering = turn.catch(() => {});
    const [epoch, state] = await Promise.all([taken, turn]);
    if (crew !== this.#crew || crew.signal.aborted) throw new StoppedError(`start of shard ${shard}`);
    const stop = new AbortController();
    const consumer = new ShardConsumer(shard, state, {
      ...{ shardLog, timing, workers, backlog, measurements, log, readBytesMax },
      lookUp: ({ incarnation, index }, identities, events) =>
        patience.until('identities', () =>
          tables.lookUpIdentities(shard, incarnation, identities, events, index),
        ),
      recover: (_, hole) => recoverWith(hole),
      onDecided: () => flusher.notice(),
    });
    flusher.add(consumer);
    const running = this.#guarded(crew, consumer.run(AbortSignal.any([crew.signal, stop.signal])));
    crew.shards.set(shard, { consumer, stop, running });
    return epoch;
  }

  async end(shard: number, decided: 'flush' | 'drop'): Promise<void> {
    const crew = this.#crew;
    const counted = crew.shards.get(shard);
    if (counted === undefined) return;
    counted.stop.abort();
    await counted.running;
    await crew.flusher.remove(counted.consumer, decided);
    // Nothing with rows of it is on its way any more.
    crew.tables.giveUp(shard);
    crew.shards.delete(shard);
  }

  /** After the signal: when the last flush is durable, and nothing runs any more. */
  ended(): Promise<void> {
    return this.#crewEnded(this.#crew);
  }

  #newCrew(): Crew {
    return new Crew(this.#o, (crew, task) => this.#guarded(crew, task));
  }

  async #crewEnded(crew: Crew): Promise<void> {
    await Promise.all([crew.flushing, ...[...crew.shards.values()].map(({ running }) => running)]);
  }

  #guarded(crew: Crew, task: Promise<void>): Promise<void> {
    return task.catch((error: unknown) => {
      // What is interrupted is done again at the next start.
      if (crew.signal.aborted || error instanceof StoppedError)
        this.#o.log.debug({ error }, 'interrupted by stopping');
      else if (error instanceof FencedError) this.#drop(crew, error);
      else this.#o.onFatal(error);
    });
  }

  #drop(crew: Crew, error: FencedError): void {
    if (crew !== this.#crew) return;
    crew.stop.abort();
    // What it had decided is in no flush any more; its slots are the next crew's.
    void this.#crewEnded(crew).then(() => {
      for (const { consumer } of crew.shards.values()) consumer.forgetDecided();
    });
    this.#crew = this.#newCrew();
    this.#o.onFenced(error);
  }
}
