// The part of Tallyline that an event crosses on its way to being counted, as real processes that can be killed:
// NATS and ClickHouse, an aggregator, an edge on a port that it keeps; between them, where a row asks for it, proxies
// that misbehave, and disks that can be full.
import { createHash, randomBytes } from 'node:crypto';
import { appendFileSync, cpSync, existsSync, lstatSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { makeKey } from '../../contract/key.ts';
import { freePorts } from '../../local/engines/ports.ts';
import { connectClickHouse, type ClickHouse } from '../../runtime/clickhouse.ts';
import { startEngines, type Engines } from '../../test/engines.ts';
import { until } from '../../test/until.ts';
import { Logs } from './logs.ts';
import { NatsStore } from './nats-store.ts';
import { poisonAlone } from './poison.ts';
import { Proxies } from './proxies.ts';
import { seededRandom } from './random.ts';
import { SmallDisk } from './small-disk.ts';
import type { StageProcess } from './stage.ts';
import { Stages } from './stages.ts';

export const TENANT = 'faults';
export const EVENT_TYPE = 'fault.event';
export const METER = 'amount';
export const SHARDS = 2;

const METER_DEFINED = {
  key: METER,
  eventType: EVENT_TYPE,
  aggregation: 'sum',
  valueProperty: 'amount',
  groupBy: [],
} as const;

const METER_DEADLINE_MS = 60_000;
/** Small, so that a test of the bound comes to it. One block more may be read. */
const BACKLOG_BYTES_MAX = 8 * 1_048_576;
/** So that a NATS that does not answer is given up within a round. */
const ACK_TIMEOUT_MS = 2_000;
/** So that a ClickHouse that does not answer is asked again within a round. */
const CLICKHOUSE_TIMEOUT_MS = 3_000;
/** So that another aggregator takes over within a round. */
const LEASE_TTL_MS = 1_000;
/** So that a log that does not deliver is found within a round. */
const LOG_SILENCE_MS = 1_000;
/** What 25 rounds put into the logs, and room: a disk that fills by itself is another fault. */
const SMALL_DISK_BYTES = 96 * 1_048_576;
const JOURNAL_BYTES_MAX = 16 * 1_048_576;
const JOURNAL_SEGMENT_BYTES = 1_048_576;

/** Rows with the same options may share a world. */
export interface WorldOptions {
  /** Whether the edge keeps a journal. */
  readonly journal: boolean;
  /** Whether the processes talk through proxies. */
  readonly proxied?: boolean;
  /** Whether ClickHouse syncs what it inserts to the disk; off by default, since no world loses its power. */
  readonly fsync?: boolean;
  /** Bytes of one shard's log. */
  readonly streamBytesMax?: number;
  readonly backlogBytesMax?: number;
  /** Whose folder lies on a disk that can be full. */
  readonly smallDisk?: 'nats' | 'journal';
  /** Whether the first messages of each log are ones that nobody can decode. */
  readonly poisonFirst?: boolean;
  /** For the choices of the proxies and of the poison. */
  readonly seed?: number;
}

export class World {
  readonly key: string;
  readonly engines: Engines;
  readonly ch: ClickHouse;
  readonly options: WorldOptions;
  readonly logs: Logs;
  readonly store: NatsStore;
  readonly proxies = new Proxies();
  disk: SmallDisk | undefined;
  readonly #port: number;
  readonly #random: () => number;
  readonly #stages: Stages;

  private constructor(engines: Engines, o: { key: string; port: number; options: WorldOptions }) {
    this.engines = engines;
    this.key = o.key;
    this.options = o.options;
    this.#port = o.port;
    this.#random = seededRandom(o.options.seed ?? 1);
    this.ch = connectClickHouse({ url: engines.clickhouseUrl, name: 'faults', requestTimeoutMs: 60_000 });
    this.#stages = new Stages(this.logFolder);
    this.store = new NatsStore(engines.dir);
    const { natsUrl } = engines;
    this.logs = new Logs({ natsUrl, ch: this.ch, shards: SHARDS, note: (text) => this.note(text) });
    mkdirSync(this.logFolder, { recursive: true });
  }

  /** @throws SmallDiskUnavailable when the options ask for one that cannot be had. */
  static async start(options: WorldOptions): Promise<World> {
    const engines = await startEngines({ nats: true, clickhouse: true });
    const [port = 0] = await freePorts(1);
    const { key, id, secret } = makeKey(randomBytes(96));
    const world = new World(engines, { key, port, options });
    try {
      if (options.smallDisk !== undefined) await world.#mountDisk(options.smallDisk);
      if (options.proxied === true) await world.#openProxies();
      await world.logs.tellKey({
        id,
        tenant: TENANT,
        scopes: ['ingest'],
        secretHash: createHash('sha256').update(secret).digest('hex'),
        expiresAtMs: null,
      });
      await world.startEdge();
      if (options.poisonFirst === true) {
        for (let shard = 0; shard < SHARDS; shard++)
          await world.logs.publishPoison(shard, poisonAlone(world.#random));
      }
      await world.logs.defineMeter({ tenant: TENANT, meter: METER_DEFINED });
      await world.startAggregator();
      await world.#meterIsKnown();
      return world;
    } catch (error) {
      await world.stop();
      throw error;
    }
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  get edge(): StageProcess {
    return this.#stages.get('edge');
  }

  get aggregator(): StageProcess {
    return this.#stages.get('aggregator');
  }

  get stages(): readonly StageProcess[] {
    return this.#stages.all;
  }

  get logFolder(): string {
    return join(this.engines.dir, 'logs');
  }

  /** Writes down what was done to the world, beside what its processes print. */
  note(text: string): void {
    appendFileSync(join(this.logFolder, 'faults.log'), `${new Date().toISOString()} ${text}\n`);
  }

  async startEdge(): Promise<void> {
    const journal = this.options.journal
      ? {
          TALLYLINE_EDGE_JOURNAL: join(this.engines.dir, 'journal', 'edge'),
          TALLYLINE_EDGE_JOURNAL_BYTES_MAX: String(JOURNAL_BYTES_MAX),
          TALLYLINE_EDGE_JOURNAL_SEGMENT_BYTES: String(JOURNAL_SEGMENT_BYTES),
        }
      : {};
    if (this.options.journal) mkdirSync(join(this.engines.dir, 'journal'), { recursive: true });
    await this.#stages.start('edge', 'ingest/main.js', {
      ...this.#env,
      ...journal,
      NATS_URL: this.proxies.through('edge to NATS', this.engines.natsUrl),
      TALLYLINE_EDGE_PORT: String(this.#port),
      TALLYLINE_EDGE_ACK_TIMEOUT_MS: String(ACK_TIMEOUT_MS),
    });
  }

  /**
   * Another name is a second process that counts the same shards. `member` is what it calls itself among the
   * aggregators: two that run must not have the same.
   */
  async startAggregator(name = 'aggregator', member = name): Promise<StageProcess> {
    return this.#stages.start(name, 'aggregator/main.js', {
      ...this.#env,
      NATS_URL: this.proxies.through('aggregator to NATS', this.engines.natsUrl),
      CLICKHOUSE_URL: this.proxies.through('aggregator to ClickHouse', this.engines.clickhouseUrl),
      TALLYLINE_AGGREGATOR_THREADS: '1',
      TALLYLINE_LEASE_TTL_MS: String(LEASE_TTL_MS),
      // Started again under its name, it takes its shards at once, and not after the TTL of its lease.
      TALLYLINE_AGGREGATOR_NAME: member,
      TALLYLINE_AGGREGATOR_BACKLOG_BYTES_MAX: String(this.options.backlogBytesMax ?? BACKLOG_BYTES_MAX),
      TALLYLINE_AGGREGATOR_LOG_SILENCE_MS: String(LOG_SILENCE_MS),
      TALLYLINE_CLICKHOUSE_TIMEOUT_MS: String(CLICKHOUSE_TIMEOUT_MS),
      TALLYLINE_CLICKHOUSE_FSYNC: this.options.fsync === true ? '1' : '0',
    });
  }

  async killEdge(): Promise<void> {
    await this.#stages.kill('edge');
  }

  async killAggregator(name = 'aggregator'): Promise<void> {
    await this.#stages.kill(name);
  }

  /** The process `from` is known as `to` from now on, instead of the one that was. */
  rename(from: string, to: string): void {
    this.#stages.rename(from, to);
  }

  /**
   * Whether the log has everything that was acknowledged: with a journal, events are taken while NATS is away, and
   * a NATS that is cut back before it has them would lose nothing.
   */
  async isSettled(): Promise<boolean> {
    if (!this.options.journal) return true;
    const [alone, waiting] = await Promise.all([
      this.edge.metric('tallyline_edge_journal_alone_shards'),
      this.edge.metric('tallyline_edge_journal_waiting_blocks'),
    ]);
    return alone === 0 && waiting === 0;
  }

  /**
   * Starts NATS on a store that was damaged. If it does not start, the streams of the logs are taken from it, as an
   * operator would have to: what they held comes from the journals again.
   */
  async restartDamagedNats(): Promise<void> {
    try {
      await this.engines.nats.restart();
    } catch (error) {
      this.note(`NATS does not start on the damaged store: ${String(error)}`);
      this.store.takeAway(Array.from({ length: SHARDS }, (_, shard) => shard));
      await this.engines.nats.restart();
    }
  }

  /** Does what an operator has to do where a log does not deliver. */
  async mendLogs(): Promise<void> {
    await this.logs.mend(async (shard) => {
      await this.engines.nats.kill();
      this.store.takeAway([shard]);
      await this.engines.nats.restart();
    });
  }

  /** The position of each shard's watermark. */
  async watermarks(): Promise<bigint[]> {
    const rows = await this.ch.rows<{ shard: number; position: string }>(
      'SELECT shard, position FROM watermark',
    );
    return Array.from({ length: SHARDS }, (_, shard) => {
      const row = rows.find((one) => one.shard === shard);
      return BigInt(row?.position ?? 0);
    });
  }

  /** Ends every process, and leaves the data and the logs in `folder` when one is given. */
  async stop(keepIn?: string): Promise<void> {
    // After a failure nobody waits for a process to drain into engines that may be gone.
    await Promise.all(
      this.#stages.running.map((stage) => (keepIn === undefined ? stage.stop() : stage.kill())),
    );
    await this.logs.close();
    await this.proxies.close();
    await this.ch.close();
    if (keepIn !== undefined) {
      this.note(
        `NATS printed:\n${this.engines.nats.output()}\nClickHouse printed:\n${this.engines.clickhouse.output()}`,
      );
      await Promise.all([this.engines.nats.stop(), this.engines.clickhouse.stop()]);
      // Sockets and pipes, such as the lock of a journal, cannot be copied.
      const filter = (path: string): boolean => {
        const file = lstatSync(path);
        return file.isFile() || file.isDirectory();
      };
      if (existsSync(this.engines.dir)) cpSync(this.engines.dir, keepIn, { recursive: true, filter });
    } else if (this.disk !== undefined) {
      await this.engines.nats.stop();
    }
    await this.disk?.unmount();
    await this.engines.stop();
  }

  get #env(): Record<string, string> {
    return {
      TALLYLINE_SHARDS: String(SHARDS),
      TALLYLINE_IDENTITY_KEY: '00112233445566778899aabbccddeeff',
      TALLYLINE_LOG_LEVEL: 'info',
      ...(this.options.streamBytesMax === undefined
        ? {}
        : { TALLYLINE_STREAM_BYTES_MAX: String(this.options.streamBytesMax) }),
    };
  }

  async #openProxies(): Promise<void> {
    const { nats, clickhouse } = this.engines;
    const ports = {
      'edge to NATS': nats.port,
      'aggregator to NATS': nats.port,
      'aggregator to ClickHouse': clickhouse.port,
    };
    await this.proxies.open(ports, this.#random);
  }

  async #mountDisk(whose: 'nats' | 'journal'): Promise<void> {
    if (whose === 'journal') {
      this.disk = await SmallDisk.mount(join(this.engines.dir, 'journal'), SMALL_DISK_BYTES);
      return;
    }
    await this.engines.nats.stop();
    rmSync(this.store.folder, { recursive: true, force: true });
    this.disk = await SmallDisk.mount(this.store.folder, SMALL_DISK_BYTES);
    await this.engines.nats.restart();
  }

  /** Definitions come past the journal: a log may only lose them when ClickHouse has them. */
  async #meterIsKnown(): Promise<void> {
    await until(
      'the meter is known to every shard',
      async () => {
        const [row] = await this.ch.rows<{ n: string }>(
          `SELECT toString(count()) AS n FROM meter_definitions WHERE meter = '${METER}'`,
        );
        return row?.n === String(SHARDS);
      },
      METER_DEADLINE_MS,
    );
  }
}
