/**
 * `npm run bench`: the canonical benchmark. One run on the real engines:
 *
 *   1. ceilings    what JetStream, uWebSockets.js and (at the end, with the rows of the run) ClickHouse take alone
 *   2. sustained   as much as the machine takes, after a warm-up that compiles everything
 *   3. half        half of that on a schedule: latencies, lag, CPU; then one event a request
 *   4. comparison  every total, of every subject and meter, and what is posted, with what was worked out
 *
 * All that was sent is compared, warm-up included. What differs is told, and the run has failed.
 */
import { bareInsert, type BareInsert } from './bare-insert.ts';
import { bareLog } from './bare-log.ts';
import { bareServers } from './bare-server.ts';
import type { Ceiling } from './ceiling.ts';
import { expectedPostings } from './customers.ts';
import { differencesOf, type ExpectedTotals } from './differences.ts';
import { diskOf, type Disk } from './disk.ts';
import { readPostings, readTotals } from './found.ts';
import type { LoadPlan, LoadResult } from './load-plan.ts';
import { loadUntilDone } from './load-process.ts';
import { Probe } from './probe.ts';
import { reportOf, type Report } from './report.ts';
import { memorySlopes, runSteady, type Steady } from './steady.ts';
import { runSustained, type Sustained } from './sustained.ts';
import { Tally } from './tally.ts';
import { difference, perEvent, Usage, type ByPart } from './usage.ts';
import { EVENTS_MAX, type SentPhase } from './workload.ts';
import { World } from './world.ts';

export interface CanonicalOptions {
  readonly seed: number;
  readonly subjects: number;
  readonly customers: number;
  /** Of the sustained phase. */
  readonly seconds: number;
  /** Ends the sustained phase before its time; 0 for no such bound. */
  readonly eventsMax: number;
  readonly warmupSeconds: number;
  /** Of each ceiling. */
  readonly ceilingSeconds: number;
  /** Of the phase at half the rate. */
  readonly halfSeconds: number;
  /** Events a second of it; 0 for half of what was sustained. */
  readonly rate: number;
  /** Of the phase with one event a request. */
  readonly singleSeconds: number;
  readonly singleRate: number;
  /** False: the ledger makes the meters, and is stopped before the first event. */
  readonly withLedger: boolean;
  readonly profileFolder: string | null;
  /** Absent: the default of every stage. */
  readonly shards?: number;
  readonly onProgress: (text: string) => void;
  /** The world as soon as there is one, so that it can be stopped from outside. */
  readonly onWorld?: (world: World) => void;
  /** Called after the comparison, while everything still runs. */
  readonly onCompared?: (world: World, expected: ExpectedTotals) => Promise<void>;
}

export interface Measurements {
  readonly options: Pick<
    CanonicalOptions,
    'seed' | 'subjects' | 'customers' | 'withLedger' | 'seconds' | 'halfSeconds' | 'singleSeconds'
  >;
  readonly ceilings: readonly Ceiling[];
  readonly insert: BareInsert | null;
  readonly sustained: Sustained;
  readonly half: Steady;
  readonly halfMemorySlopes: ByPart;
  readonly single: Steady;
  /** What each question of the probe costs ClickHouse. */
  readonly pollMicros: number;
  /** From the last 202 of the sustained phase until everything is posted. */
  readonly postedAfterMs: number;
  /** What that took after the watermark, an event of the sustained phase. */
  readonly postingCpuMicrosPerEvent: ByPart;
  readonly peakRssBytes: ByPart;
  readonly disk: Disk;
  readonly received: number;
  readonly duplicates: number;
  readonly differences: readonly string[];
}

const EVENTS_PER_REQUEST = 100;
const CONNECTIONS = 16;
/** Of an open load: more than are ever under way when the server keeps up. */
const OPEN_CONNECTIONS = 64;
const POSTED_WITHIN_MS = 180_000;
const POSTED_STEP_MS = 250;

export async function benchCanonical(o: CanonicalOptions): Promise<Report> {
  o.onProgress('starting NATS, ClickHouse and Postgres');
  const world = await World.start(o);
  o.onWorld?.(world);
  try {
    return reportOf(await new Run(o, world).run());
  } finally {
    await world.stop();
  }
}

function optionsOf(o: CanonicalOptions): Measurements['options'] {
  const { seed, subjects, customers, withLedger, seconds, halfSeconds, singleSeconds } = o;
  return { seed, subjects, customers, withLedger, seconds, halfSeconds, singleSeconds };
}

class Run {
  readonly #o: CanonicalOptions;
  readonly #world: World;
  readonly #tally: Tally;
  readonly #probe: Probe;

  constructor(o: CanonicalOptions, world: World) {
    this.#o = o;
    this.#world = world;
    this.#tally = new Tally(o.subjects);
    this.#probe = new Probe(world, o.withLedger);
  }

  async run(): Promise<Measurements> {
    const o = this.#o;
    const world = this.#world;
    const say = o.onProgress;
    say(`ceilings: JetStream alone, ${o.ceilingSeconds} s each`);
    const ceilings = await bareLog(world, o.ceilingSeconds);
    say('ceilings: uWebSockets.js alone');
    ceilings.push(...(await bareServers(world, this.#plan(15, { seconds: o.ceilingSeconds }))));
    say(`starting the stages; ${o.customers} customers`);
    await world.startStages();
    if (!o.withLedger) await world.stopLedger();
    const usage = new Usage(world.pids);
    const pollMicros = await this.#probe.pollCostMicros(() => usage.cpuMs().clickhouse ?? 0);

    await this.#warmUp();
    say(`sustained: ${o.seconds} s as fast as it goes`);
    const plan = this.#plan(1, { seconds: o.seconds, eventsMax: o.eventsMax });
    const { sustained, load } = await runSustained(world, usage, plan, this.#progress('sustained'));
    this.#sent(1, EVENTS_PER_REQUEST, load);
    say(`sustained: ${perSecond(sustained.eventsPerSecond)}; waiting until all of it is posted`);
    const beforePosting = usage.cpuMs();
    const postedMs = await this.#posted();
    const postingCpu = difference(usage.cpuMs(), beforePosting);

    const { half, single } = await this.#steadily(usage, sustained);
    say('comparing every total');
    await this.#posted();
    const expected = this.#expected();
    const differences = differencesOf(expected, await readTotals(world.ch, world.pg));
    await o.onCompared?.(world, expected);
    const { received, duplicates } = this.#tally;
    const disk = await diskOf(world, received);
    const peakRssBytes = usage.peakBytes();
    say('ceilings: ClickHouse alone, with the same rows');
    const insert = await bareInsert(world);
    this.#probe.close();
    return {
      options: optionsOf(o),
      ceilings: [...ceilings, insert],
      insert,
      sustained,
      half,
      halfMemorySlopes: memorySlopes(half.memory),
      single,
      pollMicros,
      postedAfterMs: postedMs - load.lastAnswerMs,
      postingCpuMicrosPerEvent: perEvent(postingCpu, sustained.events),
      peakRssBytes,
      disk,
      received,
      duplicates,
      differences,
    };
  }

  async #warmUp(): Promise<void> {
    this.#o.onProgress(`warming up: ${this.#o.warmupSeconds} s`);
    const plan = this.#plan(0, { seconds: this.#o.warmupSeconds });
    this.#sent(0, EVENTS_PER_REQUEST, await loadUntilDone(this.#world, plan));
    await this.#world.watermarks.atEnds(POSTED_WITHIN_MS);
    await this.#posted();
  }

  async #steadily(usage: Usage, sustained: Sustained): Promise<{ half: Steady; single: Steady }> {
    const o = this.#o;
    const rate = o.rate === 0 ? Math.floor(sustained.eventsPerSecond / 2) : o.rate;
    o.onProgress(`half the rate: ${perSecond(rate)} on a schedule, ${o.halfSeconds} s`);
    const half = await runSteady(
      this.#world,
      usage,
      this.#plan(2, { seconds: o.halfSeconds, rate, connections: OPEN_CONNECTIONS }),
      { probe: this.#probe, onProgress: this.#progress('half the rate') },
    );
    this.#sent(2, EVENTS_PER_REQUEST, half.load);
    o.onProgress(`one event a request: ${perSecond(o.singleRate)}, ${o.singleSeconds} s`);
    const single = await runSteady(
      this.#world,
      usage,
      this.#plan(3, {
        seconds: o.singleSeconds,
        rate: o.singleRate,
        connections: OPEN_CONNECTIONS,
        eventsPerRequest: 1,
      }),
      { probe: null, onProgress: this.#progress('one event a request') },
    );
    this.#sent(3, 1, single.load);
    return { half: half.steady, single: single.steady };
  }

  #plan(
    phase: number,
    p: {
      seconds: number;
      eventsMax?: number;
      rate?: number;
      connections?: number;
      eventsPerRequest?: number;
    },
  ): LoadPlan {
    const { seed, subjects } = this.#o;
    return {
      port: this.#world.edgePort,
      key: this.#world.key,
      seed,
      subjects,
      phase,
      eventsPerRequest: p.eventsPerRequest ?? EVENTS_PER_REQUEST,
      connections: p.connections ?? CONNECTIONS,
      schedule: p.rate === undefined ? { kind: 'closed' } : { kind: 'open', eventsPerSecond: p.rate },
      seconds: p.seconds,
      eventsMax: Math.min(p.eventsMax ?? 0, EVENTS_MAX),
    };
  }

  #sent(phase: number, eventsPerRequest: number, { requests }: LoadResult): void {
    const sent: SentPhase = { phase, eventsPerRequest, requests };
    this.#tally.add(this.#o.seed, sent);
  }

  #expected(): ExpectedTotals {
    return {
      tally: this.#tally,
      probes: this.#probe.sent,
      postings: this.#wantedPostings(),
    };
  }

  #wantedPostings(): Map<string, string> {
    return this.#o.withLedger ? expectedPostings(this.#tally, this.#world.billed) : new Map<string, string>();
  }

  /**
   * Waits until everything that was counted is posted, and returns when that was (epoch ms). When it does not come,
   * it is given up without an error: the comparison says what is missing.
   */
  async #posted(): Promise<number> {
    const wanted = this.#wantedPostings();
    const deadlineMs = performance.now() + POSTED_WITHIN_MS;
    for (;;) {
      const found = await readPostings(this.#world.pg);
      const nowMs = performance.timeOrigin + performance.now();
      if ([...wanted].every(([key, quantity]) => found.get(key)?.quantity === quantity)) return nowMs;
      if (performance.now() > deadlineMs) return nowMs;
      this.#world.expectAlive();
      await new Promise((resolve) => setTimeout(resolve, POSTED_STEP_MS));
    }
  }

  #progress(what: string): (answered: number) => void {
    const startMs = performance.now();
    return (answered) => {
      const rate = (answered * 1_000) / (performance.now() - startMs);
      this.#o.onProgress(`${what}: ${answered.toLocaleString('en-US')} events, ${perSecond(rate)}`);
    };
  }
}

const perSecond = (rate: number): string => `${Math.round(rate).toLocaleString('en-US')} events a second`;
