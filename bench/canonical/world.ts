// The pipeline as it is deployed on one machine: NATS, ClickHouse, Postgres, an edge, an aggregator and a ledger, each
// a process of its own with its default settings, and in it the meters, plans and customers of the workload.
import { randomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { makeKey } from '../../contract/key.ts';
import { ApiClient, ApiError } from '../../local/api-call.ts';
import { connectClickHouse, type ClickHouse } from '../../runtime/clickhouse.ts';
import { createLog } from '../../runtime/log.ts';
import { connectNats, type NatsLink } from '../../runtime/nats.ts';
import { connectPostgres, type Postgres } from '../../runtime/postgres.ts';
import { retry } from '../../runtime/retry.ts';
import { startEngines, type Engines } from '../../test/engines.ts';
import { start, type Running } from '../process.ts';
import { billedSubjects, customerBody, PLAN, PROBE, PROBE_METER, PROBE_PLAN } from './customers.ts';
import { METERS } from './tally.ts';
import type { Part } from './usage.ts';
import { Watermarks } from './watermarks.ts';
import { subjectName, TENANT } from './workload.ts';

/** The default of every stage. */
export const SHARDS = 4;
const REQUEST_TIMEOUT_MS = 300_000;
/** Customers are put one after the other: side by side their transactions lose against each other, again and again. */
const PUT_ATTEMPTS = 5;
const DAY_MS = 86_400_000;
/** The edge hears of meters in its own time; here they must be known before the first event. */
const METERS_KNOWN_MS = 30_000;

export interface WorldOptions {
  readonly subjects: number;
  readonly customers: number;
  /** A folder for CPU profiles, one below it for each stage. */
  readonly profileFolder: string | null;
  /** Absent: the default of every stage. */
  readonly shards?: number;
}

export class World {
  readonly engines: Engines;
  readonly link: NatsLink;
  readonly ch: ClickHouse;
  readonly pg: Postgres;
  readonly billed: readonly number[];
  readonly watermarks: Watermarks;
  readonly key: string;
  readonly shards: number;
  edgePort = 0;
  readonly #options: WorldOptions;
  readonly #adminKey: string;
  readonly #stages = new Map<Part, Running>();
  readonly #others = new Set<Running>();
  #stopping: Promise<void> | null = null;

  private constructor(o: WorldOptions, engines: Engines, link: NatsLink) {
    this.#options = o;
    this.engines = engines;
    this.link = link;
    const log = createLog('bench', 'silent');
    this.ch = connectClickHouse({
      url: engines.clickhouseUrl,
      name: 'bench',
      requestTimeoutMs: REQUEST_TIMEOUT_MS,
    });
    this.pg = connectPostgres({
      url: engines.databaseUrl,
      name: 'bench',
      poolMax: 2,
      log,
      statementTimeoutMs: REQUEST_TIMEOUT_MS,
    });
    this.shards = o.shards ?? SHARDS;
    this.watermarks = new Watermarks(link, this.shards);
    this.billed = billedSubjects(o.subjects, o.customers);
    this.key = makeKey(randomBytes(96)).key;
    this.#adminKey = makeKey(randomBytes(96)).key;
  }

  /** The engines alone: what is measured without the stages comes before `startStages`. */
  static async start(o: WorldOptions): Promise<World> {
    const engines = await startEngines({ nats: true, clickhouse: true, postgres: true });
    try {
      const log = createLog('bench', 'silent');
      return new World(o, engines, await connectNats({ url: engines.natsUrl, name: 'bench', log }));
    } catch (error) {
      await engines.stop();
      throw error;
    }
  }

  async startStages(): Promise<void> {
    const { natsUrl, clickhouseUrl, clickhouseReaderUrl, databaseUrl } = this.engines;
    const shared = {
      NATS_URL: natsUrl,
      CLICKHOUSE_URL: clickhouseUrl,
      TALLYLINE_SHARDS: String(this.shards),
      TALLYLINE_LOG_LEVEL: 'error',
    };
    const [, ledger] = await Promise.all([
      this.#stage('aggregator', 'aggregator/main.js', shared),
      this.#stage('ledger', 'ledger/main.js', {
        ...shared,
        CLICKHOUSE_READER_URL: clickhouseReaderUrl,
        DATABASE_URL: databaseUrl,
        TALLYLINE_API_PORT: '0',
        TALLYLINE_BOOTSTRAP_TENANT: TENANT,
        TALLYLINE_BOOTSTRAP_KEY: this.key,
        TALLYLINE_BOOTSTRAP_ADMIN_KEY: this.#adminKey,
      }),
    ]);
    const edge = await this.#stage('edge', 'ingest/main.js', {
      NATS_URL: natsUrl,
      TALLYLINE_SHARDS: String(this.shards),
      TALLYLINE_LOG_LEVEL: 'error',
      TALLYLINE_EDGE_PORT: '0',
      TALLYLINE_IDENTITY_KEY: randomBytes(16).toString('hex'),
    });
    this.edgePort = Number(new URL(String(edge['edge'])).port);
    await this.#setUp(new ApiClient(String(ledger['api']), this.#adminKey));
  }

  /** A process that is not a part of the pipeline; it ends with the world. */
  spawn(file: string, args: readonly string[], profile?: string): Running {
    const running = start(file, args, {}, { nodeArgs: this.#profiling(profile) });
    this.#others.add(running);
    void running.exited.then(() => this.#others.delete(running));
    return running;
  }

  /** Of all that run, engines included. */
  get pids(): Map<Part, number> {
    const pids = new Map<Part, number>([...this.#stages].map(([part, { pid }]) => [part, pid]));
    pids.set('nats', this.engines.nats.engine().pid);
    pids.set('clickhouse', this.engines.clickhouse.engine().pid);
    pids.set('postgres', this.engines.postgres.engine().pid);
    return pids;
  }

  /** The meters that it has told stay known to the others. */
  async stopLedger(): Promise<void> {
    const ledger = this.#stages.get('ledger');
    this.#stages.delete('ledger');
    await ledger?.stop();
  }

  /** Throws when a stage has ended, which none was told to. */
  expectAlive(): void {
    for (const [part, { child }] of this.#stages)
      if (child.exitCode !== null || child.signalCode !== null)
        throw new Error(`${part} has ended by itself`);
  }

  /** Ends every process and removes what they wrote. May be called at any time, and more than once. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    // Every one of these is tried, also when one before it fails: nothing may be left running.
    const all = [...this.#others, ...this.#stages.values()];
    await Promise.allSettled(all.map((one) => one.stop()));
    await Promise.allSettled([this.link.close(), this.ch.close(), this.pg.close()]);
    await this.engines.stop();
  }

  async #stage(part: Part, file: string, env: Record<string, string>): Promise<Record<string, unknown>> {
    const stage = start(file, [], env, { nodeArgs: this.#profiling(part) });
    this.#stages.set(part, stage);
    return stage.line((line) => line['ready'] === true);
  }

  #profiling(part: string | undefined): string[] {
    const { profileFolder } = this.#options;
    if (profileFolder === null || part === undefined) return [];
    const folder = join(profileFolder, part);
    mkdirSync(folder, { recursive: true });
    return ['--cpu-prof', `--cpu-prof-dir=${folder}`];
  }

  async #setUp(api: ApiClient): Promise<void> {
    for (const meter of [...METERS, PROBE_METER]) await api.post('/v1/meters', meter);
    for (const plan of [PLAN, PROBE_PLAN]) await api.post('/v1/plans', plan);
    const anchorMs = Math.floor(Date.now() / DAY_MS) * DAY_MS;
    const put = (name: string, plan: string): Promise<unknown> =>
      retry(() => api.put(`/v1/customers/${name}`, customerBody(name, plan, anchorMs)), {
        attempts: PUT_ATTEMPTS,
        baseMs: 20,
        maxMs: 500,
        // Also one alone may lose against the ledger's posting, and is told to come again.
        retryable: (error) => error instanceof ApiError && error.status === 500,
      });
    for (const subject of this.billed) await put(subjectName(subject), PLAN.key);
    await put(PROBE, PROBE_PLAN.key);
    await this.watermarks.atEnds(METERS_KNOWN_MS);
  }
}
