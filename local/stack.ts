// A whole Tallyline on this machine: engines first, then the stages, then the seed. Engines that the
// environment names (NATS_URL, DATABASE_URL, CLICKHOUSE_URL, STRIPE_API_KEY) are used instead of our own.
//
// Everything stops in reverse: the edge first, so that nothing comes in while the rest drains, the engines
// last, so that everybody can still write.
import { accessSync, constants, mkdirSync, statfsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { choosePorts, type Ports } from './addresses.ts';
import { EngineError, type Engine } from './engines/engine.ts';
import { startClickHouse } from './engines/clickhouse.ts';
import { startNats } from './engines/nats.ts';
import { startPostgres } from './engines/postgres.ts';
import type { Layout } from './layout.ts';
import { takeLock } from './lock.ts';
import type { Progress } from './progress.ts';
import { removeRunFile, writeRunFile, type RunFile } from './run-file.ts';
import { secretsOf, type Secrets } from './secrets.ts';
import { DEMO_TENANT, seed } from './seed.ts';
import { openLog, SupervisedStage } from './stage.ts';

/** Below this the engines would fail in the middle of a write; better not to start. */
const freeBytesMin = 512 * 1024 ** 2;
const startAttempts = 4;

type Env = Readonly<Record<string, string | undefined>>;
type StageName = 'ingest' | 'aggregator' | 'ledger' | 'billing-sync' | 'stripe';

interface Addresses {
  readonly nats: string;
  readonly database: string;
  readonly clickhouse: string;
  readonly clickhouseReader: string;
}

export class Stack {
  readonly #layout: Layout;
  readonly #env: Env;
  readonly #progress: Progress;
  readonly #onFailure: (error: Error) => void;
  readonly #stops: (() => Promise<void> | void)[] = [];
  readonly #pids: Record<string, number> = { start: process.pid };
  readonly #embedded: string[] = [];
  #run: RunFile | null = null;
  #stopping: Promise<void> | null = null;

  constructor(layout: Layout, env: Env, progress: Progress, onFailure: (error: Error) => void) {
    this.#layout = layout;
    this.#env = env;
    this.#progress = progress;
    this.#onFailure = onFailure;
  }

  /**
   * Starts everything; when a part fails, stops what had started and throws. A port that was free when it was
   * chosen and taken when it was needed (two stacks that start at once) is no failure: others are chosen.
   */
  async start(): Promise<RunFile> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#start(attempt > 1);
      } catch (error) {
        await this.#stopAll();
        const taken = error instanceof EngineError && /^\S+: port \d+ .* is taken/.test(error.message);
        if (!taken || attempt === startAttempts || this.#stopping !== null) throw error;
        this.#embedded.length = 0;
        this.#progress.note('  A port was taken by another process in between: choosing others.');
      }
    }
  }

  async #start(freshPorts: boolean): Promise<RunFile> {
    this.#checkDisk();
    this.#stops.push(takeLock(this.#layout));
    const secrets = secretsOf(this.#layout);
    const ports = await choosePorts(this.#layout, this.#env, freshPorts);
    const addresses = await this.#startEngines(ports);
    this.#stops.push(() => removeRunFile(this.#layout));
    await this.#startStages(ports, addresses, secrets);
    const api = `http://127.0.0.1:${ports.api}`;
    await this.#progress.step(
      'seed',
      () => seed(api, secrets.adminKey),
      () => `tenant ${DEMO_TENANT}, two meters, a plan, customer acme`,
    );
    this.#run = {
      edge: `http://127.0.0.1:${ports.edge}`,
      api,
      console: `${api}/docs`,
      stripe: this.#ownStripe() ? `http://127.0.0.1:${ports.stripe}` : 'https://api.stripe.com',
      metrics: {
        ingest: `http://127.0.0.1:${ports.ingestOps}/metrics`,
        aggregator: `http://127.0.0.1:${ports.aggregatorOps}/metrics`,
        ledger: `http://127.0.0.1:${ports.ledgerOps}/metrics`,
        'billing-sync': `http://127.0.0.1:${ports.billingSyncOps}/metrics`,
      },
      key: secrets.key,
      adminKey: secrets.adminKey,
      data: this.#layout.root,
      embedded: this.#embedded,
      engines: {
        nats: addresses.nats,
        database: addresses.database,
        clickhouse: addresses.clickhouse,
      },
      pids: this.#pids,
    };
    writeRunFile(this.#layout, this.#run);
    return this.#run;
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#stopAll();
    return this.#stopping;
  }

  async #stopAll(): Promise<void> {
    for (let stop = this.#stops.pop(); stop !== undefined; stop = this.#stops.pop()) await stop();
  }

  #checkDisk(): void {
    const { root } = this.#layout;
    try {
      mkdirSync(root, { recursive: true });
      accessSync(root, constants.W_OK);
    } catch (error) {
      throw new EngineError(
        `The data folder ${root} cannot be written. Give this user the right to, or set TALLYLINE_DATA to a folder that is yours.`,
        { cause: error },
      );
    }
    const disk = statfsSync(root);
    const free = disk.bavail * disk.bsize;
    if (free < freeBytesMin) {
      throw new EngineError(
        `The disk that holds ${root} has only ${Math.floor(free / 1024 ** 2)} MiB left, and the engines need 512 MiB to start with. Free some space, or set TALLYLINE_DATA to another disk.`,
      );
    }
  }

  #ownStripe(): boolean {
    return (this.#env['STRIPE_API_KEY'] ?? '') === '';
  }

  async #startEngines(ports: Ports): Promise<Addresses> {
    const { cache, logs, nats, postgres, clickhouse: clickhouseData } = this.#layout;
    const env = this.#env;
    const engine = async <E extends Engine>(
      name: string,
      variable: string,
      start: (log: (line: string) => void) => Promise<E>,
    ): Promise<E | null> => {
      if ((env[variable] ?? '') !== '') {
        this.#progress.note(`  ${name.padEnd(13)}     yours   from ${variable}`);
        return null;
      }
      const stream = openLog(logs, name.toLowerCase());
      const log = (line: string): void => void (stream.writable && stream.write(`${line}\n`));
      const started = await this.#progress.step(
        name,
        () => start(log),
        (one) => `version ${one.version}`,
      );
      this.#pids[started.name] = started.pid;
      this.#embedded.push(`${name} ${started.version}`);
      let asked = false;
      this.#stops.push(async () => {
        asked = true;
        await started.stop();
        stream.end();
      });
      void started.exited.then(() => {
        if (!asked && this.#stopping === null) {
          this.#onFailure(
            new EngineError(
              `${name} ended by itself. Its output is in ${logs}; start again to continue on the same data.`,
            ),
          );
        }
      });
      return started;
    };
    const starting = [
      engine('NATS', 'NATS_URL', (log) =>
        startNats({ dataDir: nats, port: ports.nats, cacheDir: cache, log }),
      ),
      engine('Postgres', 'DATABASE_URL', (log) =>
        startPostgres({ dataDir: postgres, port: ports.postgres, log }),
      ),
      engine('ClickHouse', 'CLICKHOUSE_URL', (log) =>
        startClickHouse({ dataDir: clickhouseData, port: ports.clickhouse, log }),
      ),
    ] as const;
    // All of them first, also when one fails: only what has started can be stopped.
    await Promise.allSettled(starting);
    const [natsEngine, postgresEngine, clickhouseEngine] = await Promise.all(starting);
    const clickhouse = clickhouseEngine?.url ?? env['CLICKHOUSE_URL'] ?? '';
    return {
      nats: natsEngine?.url ?? env['NATS_URL'] ?? '',
      database: postgresEngine?.url ?? env['DATABASE_URL'] ?? '',
      clickhouse,
      clickhouseReader: clickhouseEngine?.readerUrl ?? env['CLICKHOUSE_READER_URL'] ?? clickhouse,
    };
  }

  async #startStages(ports: Ports, addresses: Addresses, secrets: Secrets): Promise<void> {
    const shared = {
      NATS_URL: addresses.nats,
      CLICKHOUSE_URL: addresses.clickhouse,
      CLICKHOUSE_READER_URL: addresses.clickhouseReader,
      DATABASE_URL: addresses.database,
    };
    const stripeUrl = `http://127.0.0.1:${ports.stripe}`;
    const stripeKey = this.#ownStripe() ? secrets.stripeKey : (this.#env['STRIPE_API_KEY'] ?? '');
    const webhookSecret = this.#env['STRIPE_WEBHOOK_SECRET'] ?? secrets.webhookSecret;

    const stripe = this.#ownStripe()
      ? this.#stage('stripe', 'local/stripe/main.js', ports.stripe, {
          TALLYLINE_STRIPE_PORT: String(ports.stripe),
          TALLYLINE_STRIPE_DATA: this.#layout.stripe,
          TALLYLINE_STRIPE_KEY: secrets.stripeKey,
          TALLYLINE_STRIPE_WEBHOOK_URL: `http://127.0.0.1:${ports.webhook}/webhooks/stripe`,
          TALLYLINE_STRIPE_WEBHOOK_SECRET: webhookSecret,
        })
      : Promise.resolve();
    const aggregator = this.#stage('aggregator', 'aggregator/main.js', ports.aggregatorOps, {
      ...shared,
      TALLYLINE_OPS_PORT: String(ports.aggregatorOps),
      // Started again under its name, it takes its shards at once.
      TALLYLINE_AGGREGATOR_NAME: 'aggregator',
    });
    const ledger = this.#stage('ledger', 'ledger/main.js', ports.api, {
      ...shared,
      TALLYLINE_OPS_PORT: String(ports.ledgerOps),
      TALLYLINE_API_PORT: String(ports.api),
      TALLYLINE_BOOTSTRAP_TENANT: DEMO_TENANT,
      TALLYLINE_BOOTSTRAP_KEY: secrets.key,
      TALLYLINE_BOOTSTRAP_ADMIN_KEY: secrets.adminKey,
    });
    await this.#all([stripe, aggregator, ledger]);
    await this.#all([
      this.#stage('billing-sync', 'billing-sync/main.js', ports.webhook, {
        ...shared,
        TALLYLINE_OPS_PORT: String(ports.billingSyncOps),
        TALLYLINE_WEBHOOK_PORT: String(ports.webhook),
        STRIPE_API_KEY: stripeKey,
        STRIPE_WEBHOOK_SECRET: webhookSecret,
        // What a killed process was at is taken up again this soon.
        TALLYLINE_BILLING_LEASE_SECONDS: '10',
        TALLYLINE_BILLING_STRIPE_TIMEOUT_MS: '3000',
        ...(this.#ownStripe() ? { STRIPE_API_BASE: stripeUrl } : {}),
      }),
      this.#stage('ingest', 'ingest/main.js', ports.edge, {
        ...shared,
        TALLYLINE_OPS_PORT: String(ports.ingestOps),
        TALLYLINE_EDGE_PORT: String(ports.edge),
        TALLYLINE_IDENTITY_KEY: secrets.identityKey,
      }),
    ]);
  }

  /** Waits for all. When one fails the others are given up, so that nothing goes on starting behind a stop. */
  async #all(parts: readonly Promise<void>[]): Promise<void> {
    try {
      await Promise.all(parts);
    } catch (error) {
      await this.#stopAll();
      await Promise.allSettled(parts);
      throw error;
    }
  }

  async #stage(name: StageName, entry: string, port: number, env: Record<string, string>): Promise<void> {
    const stage = new SupervisedStage({
      name,
      entry: compiled(entry),
      env,
      port,
      dataDir: this.#layout.root,
      logs: this.#layout.logs,
      onRestart: (pid) => {
        this.#pids[name] = pid;
        this.#progress.note(
          `  ${name} ended and was started again (pid ${pid}); its log is in ${this.#layout.logs}`,
        );
        if (this.#run !== null) writeRunFile(this.#layout, this.#run);
      },
      onGaveUp: (error) => this.#onFailure(error),
    });
    this.#stops.push(() => stage.stop());
    await this.#progress.step(
      name,
      () => stage.start(),
      () => `port ${port}`,
    );
    this.#pids[name] = stage.pid;
  }
}

function compiled(entry: string): string {
  return fileURLToPath(new URL(`../${entry}`, import.meta.url));
}
