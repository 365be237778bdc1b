/**
 * Runs posting passes, one at a time: at once when a shard's watermark moved (FLUSH_NOTICE), and each second
 * anyway, since a notice is a hint that may be lost. A wake during a pass makes another one follow it.
 *
 * After a pass the loop rests four times as long as it took, a second at most: under load one pass then posts what
 * several flushes brought, and a customer gets one journal entry a price instead of several. Unique counts come after a
 * pass and take a twentieth of the time, since each reads all raw events of a period: of 2.4 million events half a
 * second, so every ten seconds.
 *
 * A pass reads what changed since the last one (known-usage.ts): of a flush of 200,000 events that changed 390 of 1,000
 * customers 130 ms of ClickHouse's processor time, where reading their periods took 400 to 430.
 *
 * A failed pass is no loss, the next one does its work; passes back off while they fail, and the stage says
 * that it is not ready and why.
 */
import type { Histogram } from 'prom-client';
import { backoffMs } from '../runtime/backoff.ts';
import type { Stage } from '../runtime/lifecycle.ts';
import { sleep } from '../runtime/retry.ts';
import type { LedgerContext } from './context.ts';
import { KnownUsage } from './known-usage.ts';
import { Pace } from './pace.ts';
import { postTotals, postUniques, type PostResult } from './post-usage.ts';

const LAG_SECONDS = [0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30, 60, 300, 3_600];
const PASS_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
const TOTALS = { share: 0.2, restMsMax: 1_000 };
const UNIQUES = { share: 0.05, restMsMax: 60_000 };
const BACKOFF = { baseMs: 200, maxMs: 10_000 };

export class PostingLoop {
  readonly #ctx: LedgerContext;
  readonly #stage: Stage;
  readonly #intervalMs: number;
  readonly #measures: ReturnType<typeof postingMeasures>;
  /** By shard, the position whose lag was observed last. */
  readonly #observed = new Map<number, bigint>();
  readonly #totals = new Pace(TOTALS);
  readonly #uniques = new Pace(UNIQUES);
  readonly #known = new KnownUsage();
  #woken = false;
  #wakeUp: () => void = () => {};

  constructor(ctx: LedgerContext, stage: Stage, intervalMs: number) {
    this.#ctx = ctx;
    this.#stage = stage;
    this.#intervalMs = intervalMs;
    this.#measures = postingMeasures(stage);
  }

  wake(): void {
    this.#woken = true;
    this.#wakeUp();
  }

  /** Until the stage stops; a pass that is under way is finished. */
  async run(): Promise<void> {
    const { stopping, log } = this.#stage;
    for (let failures = 0; !stopping.aborted;) {
      this.#woken = false;
      try {
        await this.#pass();
        // The first pass, and the first after a failure, make it ready.
        if (failures > 0 || !this.#measures.hasPassed()) this.#stage.setReady(true);
        this.#measures.passed();
        failures = 0;
        await sleep(this.#totals.restMs(performance.now()), stopping);
        await this.#nextWake();
      } catch (error) {
        if (stopping.aborted) return;
        failures += 1;
        this.#measures.failures.inc();
        log.error({ error, failures }, 'a posting pass failed; it will be done again');
        this.#stage.setReady(false, `usage cannot be posted: ${messageOf(error)}`);
        await sleep(backoffMs(failures, BACKOFF, Math.random), stopping);
      }
    }
  }

  async #pass(): Promise<void> {
    const began = performance.now();
    const result = await postTotals(this.#ctx, this.#known);
    const ended = performance.now();
    this.#totals.done(began, ended);
    const seconds = (ended - began) / 1_000;
    this.#measures.duration.observe(seconds);
    this.#observeLag(result);
    const uniques = this.#uniques.isDue(ended) ? await this.#postUniques(result, ended) : 0;
    const posted = result.posted + uniques;
    if (result.changed === 0 && posted === 0) return;
    this.#measures.posted.inc(posted);
    this.#stage.log.debug({ changed: result.changed, posted, seconds }, 'usage posted');
  }

  async #postUniques({ watermarks }: PostResult, began: number): Promise<number> {
    const posted = await postUniques(this.#ctx, watermarks);
    const ended = performance.now();
    this.#uniques.done(began, ended);
    this.#measures.uniques.observe((ended - began) / 1_000);
    return posted;
  }

  #observeLag({ watermarks }: PostResult): void {
    const nowMs = this.#ctx.clock.now();
    for (const { shard, position, acceptedAtMs } of watermarks) {
      const before = this.#observed.get(shard);
      this.#observed.set(shard, position);
      // What was behind the watermark before this process started says nothing about now.
      if (before === undefined || before === position) continue;
      this.#measures.lag.observe({ stage: 'posted' }, Math.max(0, nowMs - acceptedAtMs) / 1_000);
    }
  }

  async #nextWake(): Promise<void> {
    const { stopping } = this.#stage;
    if (this.#woken || stopping.aborted) return;
    const either = new AbortController();
    const stop = () => either.abort();
    this.#wakeUp = stop;
    stopping.addEventListener('abort', stop, { once: true });
    await sleep(this.#intervalMs, either.signal);
    stopping.removeEventListener('abort', stop);
    this.#wakeUp = () => {};
  }
}

function postingMeasures({ metrics }: Stage) {
  let passed = false;
  const lag: Histogram = metrics.histogram(
    'tallyline_metering_lag_seconds',
    'from acceptance at the edge to visible in the rollups, or to posted in the ledger; once a shard and pass',
    LAG_SECONDS,
    ['stage'],
  );
  return {
    lag,
    duration: metrics.histogram(
      'tallyline_ledger_posting_seconds',
      'duration of a posting pass',
      PASS_SECONDS,
    ),
    uniques: metrics.histogram(
      'tallyline_ledger_uniques_seconds',
      'duration of a posting of unique counts, which comes behind a pass now and then',
      PASS_SECONDS,
    ),
    posted: metrics.counter('tallyline_ledger_posted_total', 'journal transactions for usage'),
    failures: metrics.counter('tallyline_ledger_posting_failures_total', 'posting passes that failed'),
    hasPassed: () => passed,
    passed: () => {
      passed = true;
    },
  };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message.slice(0, 200) : 'unknown error';
}
