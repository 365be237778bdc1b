/**
 * When decided blocks are made durable, for all shards of the process at once: few large inserts instead of many
 * small ones. What a flush writes, and in which order, is told in flush-steps.ts. One flush is written at a time, so
 * watermarks only rise; meanwhile the logs are read on, and the next flush is folded and encoded.
 *
 * When: at once if the last one began an interval ago, so that a lone event is visible within milliseconds;
 * else when the interval is over; not while one is being written, so that under load a flush is as large as what
 * comes in while the last one is written, for ClickHouse takes few large inserts for much less than many small ones;
 * but whenever enough has come together for one flush.
 *
 * The interval grows with what the last flush took, up to twice what is configured: where a flush takes more than a
 * third of it, the machine is busy with flushes, and fewer and larger ones cost it less an event. What waits longer for
 * its flush is then written sooner.
 */
import type { ShardConsumer } from './consume.ts';
import { eventsOf, type Batch } from './flush-batch.ts';
import { FlushSteps, type FlushOptions } from './flush-steps.ts';

/** The interval is at least so many times what the last flush took, and at most so many times what is configured. */
const INTERVAL_OF_DURATION = 3;
const INTERVAL_GROWTH_MAX = 2;

export class Flusher {
  readonly #options: FlushOptions;
  readonly #consumers = new Set<ShardConsumer>();
  /** In how many flushes that were begun and did not end something of it is. */
  readonly #flushing = new Map<ShardConsumer, number>();
  readonly #steps: FlushSteps;
  #startedMs = -Infinity;
  /** What the last flush took, from its beginning to its watermark. */
  #tookMs = 0;
  #isWriting = false;
  #wake: () => void = () => {};
  #alarmed = false;
  #abandon: (error: unknown) => void = () => {};
  #failed: { readonly error: unknown } | undefined;
  /** No flush will be begun any more. */
  #ended = false;
  #waitingForEnd: (() => void)[] = [];

  constructor(options: FlushOptions) {
    this.#options = options;
    this.#steps = new FlushSteps(options, () => this.#throwFailure());
  }

  get consumers(): ReadonlySet<ShardConsumer> {
    return this.#consumers;
  }

  /** From now on what it decides is made durable. */
  add(consumer: ShardConsumer): void {
    this.#consumers.add(consumer);
    this.#wake();
  }

  /**
   * Lets a consumer go that does not run any more. What it has decided is made durable first, or dropped when
   * somebody else is to read it again. When this resolves, no insert of this flusher with anything of it is running
   * or will begin; unless the flusher has ended, with `flush` all of it is durable.
   */
  async remove(consumer: ShardConsumer, decided: 'flush' | 'drop'): Promise<void> {
    if (decided === 'drop') consumer.forgetDecided();
    while (this.#flushing.has(consumer) || (consumer.decided.length > 0 && !this.#ended)) {
      await new Promise<void>((resolve) => this.#waitingForEnd.push(resolve));
    }
    this.#consumers.delete(consumer);
  }

  /** Something was decided. */
  notice(): void {
    this.#wake();
  }

  async run(signal: AbortSignal): Promise<void> {
    signal.addEventListener('abort', () => this.#wake(), { once: true });
    let writing = Promise.resolve();
    try {
      while (!signal.aborted) {
        this.#throwFailure();
        const waitMs = this.#dueInMs();
        if (waitMs > 0) {
          await this.#noticed(waitMs, signal);
          continue;
        }
        const startedMs = this.#options.timing.elapsedMs();
        this.#startedMs = startedMs;
        // The next flush is folded and encoded while ClickHouse takes the last one.
        const batches = this.#take();
        const begun = this.#steps.gather(batches, (error) => this.#fail(error));
        const gathered = await this.#orFailure(begun);
        await writing;
        // A watermark vouches for everything before it: behind a flush that failed nothing more is written.
        this.#throwFailure();
        this.#isWriting = true;
        writing = this.#steps
          .write(gathered, startedMs)
          .catch((error: unknown) => this.#fail(error))
          .finally(() => {
            this.#isWriting = false;
            this.#tookMs = this.#options.timing.elapsedMs() - startedMs;
            this.#end(batches);
            this.#wake();
          });
        // What is in memory of rows that are made anew is right again when they were.
        if (gathered.derived.recounts.length > 0) await writing;
      }
    } finally {
      await writing;
      this.#ended = true;
      // What was taken and never written is in no flush any more.
      this.#flushing.clear();
      this.#end([]);
    }
  }

  #fail(error: unknown): void {
    this.#failed ??= { error };
    this.#wake();
    this.#abandon(error);
  }

  /** What was begun, unless something else fails first: who is fenced out may never get an answer to a question. */
  #orFailure<T>(begun: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#abandon = reject;
      begun.then(resolve, reject);
    });
  }

  #throwFailure(): void {
    if (this.#failed !== undefined) throw this.#failed.error;
  }

  #end(batches: readonly Batch[]): void {
    for (const { consumer } of batches) {
      const others = (this.#flushing.get(consumer) ?? 1) - 1;
      if (others === 0) this.#flushing.delete(consumer);
      else this.#flushing.set(consumer, others);
    }
    const waiting = this.#waitingForEnd;
    this.#waitingForEnd = [];
    for (const resolve of waiting) resolve();
  }

  /** 0 when a flush is due, Infinity when there is nothing to flush, or something else has to happen first. */
  #dueInMs(): number {
    let events = 0;
    let any = false;
    for (const { decided, decidedEvents } of this.#consumers) {
      any ||= decided.length > 0;
      events += decidedEvents;
    }
    if (!any) return Infinity;
    // A backlog at its bound lets nothing more in: waiting for more would wait for ever.
    const { backlog, eventsMax, timing } = this.#options;
    if (events >= eventsMax || backlog.full) return 0;
    if (this.#isWriting) return Infinity;
    return Math.max(0, this.#startedMs + this.#intervalMs() - timing.elapsedMs());
  }

  #intervalMs(): number {
    const { intervalMs } = this.#options;
    const wanted = this.#tookMs * INTERVAL_OF_DURATION;
    return Math.min(Math.max(intervalMs, wanted), intervalMs * INTERVAL_GROWTH_MAX);
  }

  /** Waits so long, or until there is something to look at. */
  async #noticed(waitMs: number, signal: AbortSignal): Promise<void> {
    // One alarm at a time, however often a decision wakes: it can only be early, and then the next one is set.
    if (waitMs !== Infinity && !this.#alarmed) {
      this.#alarmed = true;
      void this.#options.timing.sleep(Math.ceil(waitMs), signal).then(() => {
        this.#alarmed = false;
        this.#wake();
      });
    }
    await new Promise<void>((resolve) => (this.#wake = resolve));
  }

  /** Takes decided blocks off the shards, in log order, evenly, up to the bound of a flush. */
  #take(): Batch[] {
    const all = Array.from(this.#consumers, (consumer) => ({ consumer, count: 0 }));
    let events = 0;
    for (let more = true; more && events < this.#options.eventsMax;) {
      more = false;
      for (const one of all) {
        const item = one.consumer.decided[one.count];
        if (item === undefined) continue;
        one.count += 1;
        events += eventsOf(item);
        more = true;
      }
    }
    const taken: Batch[] = [];
    for (const { consumer, count } of all) {
      if (count === 0) continue;
      taken.push({ consumer, items: consumer.takeDecided(count) });
      this.#flushing.set(consumer, (this.#flushing.get(consumer) ?? 0) + 1);
    }
    return taken;
  }
}
