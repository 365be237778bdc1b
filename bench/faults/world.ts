// The part of Tallyline that an event crosses on its way to being counted, as real processes that can be killed:
// NATS and ClickHouse, an aggregator, an edge on a port that it keeps; between them, where a row asks for it, proxies
// that misbehave, and disks that can be full.
import { createHash, randomBytes } from 'node:crypto';
import { appendFileSync, cpSync, existsSync, lstatSync, mkdirSync, rmSync } from 'node:fs';
import { cp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { decodeBlock } from '../../contract/block.ts';
import { encodeMeterDefined } from '../../contract/control.ts';
import { makeKey, type KeyRecord } from '../../contract/key.ts';
import { BUCKET_KEYS, streamName, streamSubject } from '../../contract/subjects.ts';
import { freePorts } from '../../local/engines/ports.ts';
import { connectClickHouse, type ClickHouse } from '../../runtime/clickhouse.ts';
import { createLog } from '../../runtime/log.ts';
import { connectNats, openKeyValue, PublishPipeline, type NatsLink } from '../../runtime/nats.ts';
import { startEngines, type Engines } from '../../test/engines.ts';
import { until } from '../../test/until.ts';
import { poisonAlone, type Poison } from './poison.ts';
import { Proxy } from './proxy.ts';
import { seededRandom } from './random.ts';
import { SmallDisk } from './small-disk.ts';
import { StageProcess } from './stage.ts';
import { streamFolder } from './storage.ts';

export const TENANT = 'faults';
export const EVENT_TYPE = 'fault.event';
export const METER = 'amount';
export const SHARDS = 2;

const METER_DEADLINE_MS = 60_000;
/** Small, so that a test of the bound comes to it. One block more may be read. */
const BACKLOG_BYTES_MAX = 8 * 1_048_576;
/** So that a NATS that does not answer is given up within a round. */
const ACK_TIMEOUT_MS = 2_000;
/** So that a ClickHouse that does not answer is asked again within a round. */
const CLICKHOUSE_TIMEOUT_MS = 3_000;
/** So that another aggregator takes over within a round. */
const LEASE_TTL_MS = 1_000;
const SMALL_DISK_BYTES = 48 * 1_048_576;
const JOURNAL_BYTES_MAX = 16 * 1_048_576;
const JOURNAL_SEGMENT_BYTES = 1_048_576;

/** Which two processes a proxy stands between. */
export const LINKS = ['edge to NATS', 'aggregator to NATS', 'aggregator to ClickHouse'] as const;
export type Link = (typeof LINKS)[number];

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
  /** Messages that were published into the logs beside the edge, and must be kept as they are. */
  readonly poison: { readonly shard: number; readonly poison: Poison }[] = [];
  readonly proxies = new Map<Link, Proxy>();
  disk: SmallDisk | undefined;
  readonly #port: number;
  readonly #random: () => number;
  readonly #stages = new Map<string, StageProcess>();
  readonly #ended: StageProcess[] = [];
  #link: NatsLink | undefined;
  #pipeline: PublishPipeline | undefined;

  private constructor(engines: Engines, o: { key: string; port: number; options: WorldOptions }) {
    this.engines = engines;
    this.key = o.key;
    this.options = o.options;
    this.#port = o.port;
    this.#random = seededRandom(o.options.seed ?? 1);
    this.ch = connectClickHouse({ url: engines.clickhouseUrl, name: 'faults', requestTimeoutMs: 60_000 });
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
      await world.#tellKey({
        id,
        tenant: TENANT,
        scopes: ['ingest'],
        secretHash: createHash('sha256').update(secret).digest('hex'),
        expiresAtMs: null,
      });
      await world.startEdge();
      if (options.poisonFirst === true) {
        for (let shard = 0; shard < SHARDS; shard++)
          await world.publishPoison(shard, poisonAlone(world.#random));
      }
      await world.#defineMeter();
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
    return this.#stage('edge');
  }

  get aggregator(): StageProcess {
    return this.#stage('aggregator');
  }

  get stages(): readonly StageProcess[] {
    return [...this.#stages.values(), ...this.#ended];
  }

  get logFolder(): string {
    return join(this.engines.dir, 'logs');
  }

  /** Where NATS keeps its streams. */
  get store(): string {
    return join(this.engines.dir, 'nats', 'store');
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
    await this.#start('edge', 'ingest/main.js', {
      ...this.#env,
      ...journal,
      NATS_URL: this.#through('edge to NATS', this.engines.natsUrl),
      TALLYLINE_EDGE_PORT: String(this.#port),
      TALLYLINE_EDGE_ACK_TIMEOUT_MS: String(ACK_TIMEOUT_MS),
    });
  }

  /**
   * Another name is a second process that counts the same shards. `member` is what it calls itself among the
   * aggregators: two that run must not have the same.
   */
  async startAggregator(name = 'aggregator', member = name): Promise<StageProcess> {
    return this.#start(name, 'aggregator/main.js', {
      ...this.#env,
      NATS_URL: this.#through('aggregator to NATS', this.engines.natsUrl),
      CLICKHOUSE_URL: this.#through('aggregator to ClickHouse', this.engines.clickhouseUrl),
      TALLYLINE_AGGREGATOR_THREADS: '1',
      TALLYLINE_LEASE_TTL_MS: String(LEASE_TTL_MS),
      // Started again under its name, it takes its shards at once, and not after the TTL of its lease.
      TALLYLINE_AGGREGATOR_NAME: member,
      TALLYLINE_AGGREGATOR_BACKLOG_BYTES_MAX: String(this.options.backlogBytesMax ?? BACKLOG_BYTES_MAX),
      TALLYLINE_CLICKHOUSE_TIMEOUT_MS: String(CLICKHOUSE_TIMEOUT_MS),
      TALLYLINE_CLICKHOUSE_FSYNC: this.options.fsync === true ? '1' : '0',
    });
  }

  async killEdge(): Promise<void> {
    await this.#kill('edge');
  }

  async killAggregator(name = 'aggregator'): Promise<void> {
    await this.#kill(name);
  }

  /** The process `from` is known as `to` from now on, instead of the one that was. */
  rename(from: string, to: string): void {
    this.#stages.set(to, this.#stage(from));
    this.#stages.delete(from);
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

  /** The store of NATS as it is now; NATS must not run. */
  async keepStore(): Promise<void> {
    await rm(this.#kept, { recursive: true, force: true });
    await cp(this.store, this.#kept, { recursive: true });
  }

  /** Cuts the store of NATS back to what was kept; NATS must not run. */
  async cutBack(): Promise<void> {
    await rm(this.store, { recursive: true, force: true });
    await cp(this.#kept, this.store, { recursive: true });
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
      this.#takeAway(Array.from({ length: SHARDS }, (_, shard) => shard));
      await this.engines.nats.restart();
    }
  }

  /**
   * What an operator has to do when NATS says that it has messages and cannot read them. NATS 2.9.10 does not cut the
   * damaged part off a file: it goes on behind it, acknowledges what it writes there, never finds it again (`no
   * message found`, over restarts too), and its consumers pass over it without a word. A purge may fail (`partial
   * cache`) or not answer. So the stream is taken away and made again, and what was in it comes from the journals.
   */
  async mendLogs(): Promise<void> {
    const unreadable: number[] = [];
    for (let shard = 0; shard < SHARDS; shard++) {
      const problem = await this.#unreadable(streamName(shard));
      if (problem === null) continue;
      this.note(`NATS cannot read the newest message of ${streamName(shard)}: ${problem}`);
      unreadable.push(shard);
    }
    if (unreadable.length === 0) return;
    await this.engines.nats.kill();
    this.#takeAway(unreadable);
    await this.engines.nats.restart();
  }

  #takeAway(shards: readonly number[]): void {
    for (const shard of shards) rmSync(streamFolder(this.store, shard), { recursive: true, force: true });
  }

  /** What NATS says instead of the newest message of a stream: an error of many kinds, or nothing for seconds. */
  async #unreadable(stream: string): Promise<string | null> {
    const { jsm } = await this.link();
    try {
      const { first_seq: first, last_seq: last } = (await jsm.streams.info(stream)).state;
      if (last >= first) await jsm.streams.getMessage(stream, { seq: last });
      return null;
    } catch (error) {
      return String(error);
    }
  }

  /** Publishes straight into a log, past the edge. Resolves when they are in it. */
  async publishPoison(shard: number, poisons: readonly Poison[]): Promise<void> {
    const pipeline = await this.#publisher();
    for (const poison of poisons) {
      const { sequence } = await pipeline.publish(streamSubject(shard), poison.bytes);
      this.poison.push({ shard, poison });
      this.note(`message ${sequence} of ${streamName(shard)} is ${poison.what}`);
    }
  }

  /** The newest block of a shard's log that an edge has published, to make poison from. */
  async newestBlock(shard: number): Promise<Uint8Array> {
    const { jsm } = await this.link();
    let sequence = (await jsm.streams.info(streamName(shard))).state.last_seq;
    for (; sequence > 0; sequence--) {
      const { data } = await jsm.streams.getMessage(streamName(shard), { seq: sequence });
      if (isBlock(data)) return data;
    }
    throw new Error(`${streamName(shard)} has no block yet`);
  }

  /** Bytes of a shard's log. */
  async logBytes(shard: number): Promise<number> {
    const { jsm } = await this.link();
    return (await jsm.streams.info(streamName(shard))).state.bytes;
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

  /** A connection of the harness to NATS, past the proxies. */
  async link(): Promise<NatsLink> {
    this.#link ??= await connectNats({
      url: this.engines.natsUrl,
      name: 'faults',
      log: createLog('faults', 'silent'),
    });
    return this.#link;
  }

  /** Ends every process, and leaves the data and the logs in `folder` when one is given. */
  async stop(keepIn?: string): Promise<void> {
    this.#pipeline?.close();
    const running = [...this.#stages.values()];
    // After a failure nobody waits for a process to drain into engines that may be gone.
    await Promise.all(running.map((stage) => (keepIn === undefined ? stage.stop() : stage.kill())));
    await this.#link?.nc.close();
    await Promise.all([...this.proxies.values()].map((proxy) => proxy.close()));
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

  get #kept(): string {
    return join(this.engines.dir, 'nats-kept');
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

  /** The URL, by way of the proxy where there is one. */
  #through(link: Link, url: string): string {
    const proxy = this.proxies.get(link);
    if (proxy === undefined) return url;
    const by = new URL(url);
    by.port = String(proxy.port);
    return by.href.replace(/\/$/, '');
  }

  async #openProxies(): Promise<void> {
    const ports: Record<Link, number> = {
      'edge to NATS': this.engines.nats.port,
      'aggregator to NATS': this.engines.nats.port,
      'aggregator to ClickHouse': this.engines.clickhouse.port,
    };
    for (const link of LINKS) this.proxies.set(link, await Proxy.open(ports[link], this.#random));
  }

  async #mountDisk(whose: 'nats' | 'journal'): Promise<void> {
    if (whose === 'journal') {
      this.disk = await SmallDisk.mount(join(this.engines.dir, 'journal'), SMALL_DISK_BYTES);
      return;
    }
    await this.engines.nats.stop();
    rmSync(this.store, { recursive: true, force: true });
    this.disk = await SmallDisk.mount(this.store, SMALL_DISK_BYTES);
    await this.engines.nats.restart();
  }

  #stage(name: string): StageProcess {
    const stage = this.#stages.get(name);
    if (stage === undefined) throw new Error(`no ${name} was started`);
    return stage;
  }

  async #start(name: string, file: string, env: Record<string, string>): Promise<StageProcess> {
    const before = this.#stages.get(name);
    if (before !== undefined && before.unexpectedEnd !== null) this.#ended.push(before);
    const stage = new StageProcess({ name, file, env, logFile: join(this.logFolder, `${name}.log`) });
    this.#stages.set(name, stage);
    return stage.ready();
  }

  async #kill(name: string): Promise<void> {
    const stage = this.#stage(name);
    const unexpected = stage.unexpectedEnd;
    if (unexpected !== null) throw new Error(unexpected);
    await stage.kill();
  }

  async #publisher(): Promise<PublishPipeline> {
    this.#pipeline ??= new PublishPipeline(await this.link(), {
      maxInFlight: 16,
      maxInFlightBytes: 1e6,
      ackTimeoutMs: 5_000,
    });
    return this.#pipeline;
  }

  async #tellKey(record: KeyRecord): Promise<void> {
    const link = await this.link();
    await (await openKeyValue(link, BUCKET_KEYS)).put(record.id, JSON.stringify(record));
  }

  async #defineMeter(): Promise<void> {
    const pipeline = await this.#publisher();
    const meter = {
      key: METER,
      eventType: EVENT_TYPE,
      aggregation: 'sum',
      valueProperty: 'amount',
      groupBy: [],
    } as const;
    for (let shard = 0; shard < SHARDS; shard++) {
      await pipeline.publish(streamSubject(shard), encodeMeterDefined({ tenant: TENANT, meter }));
    }
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

function isBlock(message: Uint8Array): boolean {
  try {
    decodeBlock(message);
    return true;
  } catch {
    return false;
  }
}
