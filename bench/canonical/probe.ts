/**
 * How long an event takes from its acceptance to a rollup that everybody can read, and to a posted balance, as seen
 * from outside. A subject that nobody else has gets an event every 100 ms; its rollup is read from the view usage_rows
 * and its posting from the ledger's table, each as often as `POLL_MS` says.
 *
 * An event counts as visible when the first answer that has it is back, so the lag is too high by up to the time
 * between two questions, and never too low. What the questions cost ClickHouse is measured too: while nothing else
 * happens, before the load begins.
 */
import { Agent } from 'node:http';
import { postEvents } from '../post.ts';
import { PROBE } from './customers.ts';
import { TENANT } from './workload.ts';
import type { World } from './world.ts';
import { quantileOf } from './quantiles.ts';

export const POLL_MS = 100;
const EVENT_EVERY_MS = 100;
const SETTLE_MS = 60_000;

export interface Lag {
  readonly events: number;
  /** Of these, given up after a minute; the time until then is taken for theirs. */
  readonly unseen: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

export interface ProbeResult {
  readonly visible: Lag;
  /** Null without a ledger. */
  readonly posted: Lag | null;
  readonly pollMs: number;
  /** Questions that were asked of ClickHouse. */
  readonly polls: number;
}

const VISIBLE = `
  SELECT toString(sum(value_count)) AS count FROM usage_rows
  WHERE tenant = '${TENANT}' AND meter = '${PROBE}' AND subject = '${PROBE}'`;
const POSTED =
  'SELECT trunc(sum(quantity))::text AS count FROM ledger.usage_posted WHERE tenant = $1 AND customer = $2';

export class Probe {
  readonly #world: World;
  readonly #withLedger: boolean;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 8 });
  /** When event k was accepted; the first is number 0. */
  readonly #acceptedMs: number[] = [];
  readonly #visibleMs: number[] = [];
  readonly #postedMs: number[] = [];
  #polls = 0;

  constructor(world: World, withLedger: boolean) {
    this.#world = world;
    this.#withLedger = withLedger;
  }

  /** Events that were sent and accepted so far, over all runs. */
  get sent(): number {
    return this.#acceptedMs.length;
  }

  /** What one question costs ClickHouse, microseconds; `cpuMs` reads its CPU. */
  async pollCostMicros(cpuMs: () => number): Promise<number> {
    const QUESTIONS = 40;
    const before = cpuMs();
    for (let at = 0; at < QUESTIONS; at++) await this.#visible();
    return ((cpuMs() - before) * 1_000) / QUESTIONS;
  }

  /** Sends and asks until the signal; then waits until all of it is posted. */
  async run(until: AbortSignal): Promise<ProbeResult> {
    const first = this.sent;
    this.#polls = 0;
    const sending = this.#send(until);
    const visible = this.#poll(sending, this.#visibleMs, () => this.#visible());
    const posted = this.#withLedger
      ? this.#poll(sending, this.#postedMs, () => this.#posted())
      : Promise.resolve(0);
    await sending;
    const unseen = await Promise.all([visible, posted]);
    const lag = (seen: readonly number[], unseen: number): Lag => {
      const took = this.#acceptedMs.slice(first).map((acceptedMs, at) => seen[first + at]! - acceptedMs);
      return {
        events: took.length,
        unseen,
        p50Ms: quantileOf(took, 0.5),
        p99Ms: quantileOf(took, 0.99),
        maxMs: quantileOf(took, 1),
      };
    };
    return {
      visible: lag(this.#visibleMs, unseen[0]),
      posted: this.#withLedger ? lag(this.#postedMs, unseen[1]) : null,
      pollMs: POLL_MS,
      polls: this.#polls,
    };
  }

  close(): void {
    this.#agent.destroy();
  }

  /** One after the other, so that they become visible in their order, whatever their shards are doing. */
  async #send(until: AbortSignal): Promise<void> {
    for (let dueMs = performance.now(); !until.aborted; dueMs += EVENT_EVERY_MS) {
      await pause(dueMs - performance.now());
      if (until.aborted) return;
      await this.#sendOne(this.sent);
      this.#acceptedMs.push(performance.now());
    }
  }

  /** Returns how many were not seen in the end. */
  async #poll(sending: Promise<void>, seenMs: number[], ask: () => Promise<number>): Promise<number> {
    let isOver = false;
    let deadlineMs = Infinity;
    const over = (): void => {
      isOver = true;
      deadlineMs = performance.now() + SETTLE_MS;
    };
    sending.then(over, over);
    // Shards flush apart from each other, so a later event may be seen before an earlier one. Counts alone are asked
    // for, and the k-th to be seen is taken as the k-th that was sent: the lags have the same sum, and hardly differ.
    while (!isOver || seenMs.length < this.sent) {
      const askedMs = performance.now();
      const count = await ask();
      const nowMs = performance.now();
      while (seenMs.length < count) seenMs.push(nowMs);
      if (nowMs > deadlineMs) {
        const unseen = this.sent - seenMs.length;
        while (seenMs.length < this.sent) seenMs.push(nowMs);
        return unseen;
      }
      await pause(POLL_MS - (performance.now() - askedMs));
    }
    return 0;
  }

  async #visible(): Promise<number> {
    this.#polls += 1;
    const [row] = await this.#world.ch.rows<{ count: string }>(VISIBLE);
    return Number(row!.count);
  }

  async #posted(): Promise<number> {
    const [row] = await this.#world.pg.query<{ count: string | null }>(POSTED, [TENANT, PROBE]);
    return Number(row!.count ?? 0);
  }

  async #sendOne(number: number): Promise<void> {
    const { edgePort, key } = this.#world;
    const event = { id: `${PROBE}-${number}`, source: PROBE, type: PROBE, subject: PROBE, data: {} };
    const status = await postEvents(this.#agent, edgePort, key, Buffer.from(JSON.stringify(event)));
    if (status !== 202) throw new Error(`an event of the probe was answered with ${status}`);
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, Math.max(0, ms)));
}
