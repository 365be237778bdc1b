// The part of Tallyline that an event crosses on its way to being counted, as real processes that can be killed:
// NATS and ClickHouse, an aggregator, an edge on a port that it keeps.
import { createHash, randomBytes } from 'node:crypto';
import { cp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { encodeMeterDefined } from '../../contract/control.ts';
import { makeKey, type KeyRecord } from '../../contract/key.ts';
import { BUCKET_KEYS, streamSubject } from '../../contract/subjects.ts';
import { freePorts } from '../../local/engines/ports.ts';
import { connectClickHouse, type ClickHouse } from '../../runtime/clickhouse.ts';
import { createLog } from '../../runtime/log.ts';
import { connectNats, openKeyValue, PublishPipeline } from '../../runtime/nats.ts';
import { startEngines, type Engines } from '../../test/engines.ts';
import { start, type Running } from '../process.ts';

export const TENANT = 'faults';
export const EVENT_TYPE = 'fault.event';
export const METER = 'amount';
const SHARDS = 2;

export class World {
  readonly key: string;
  readonly engines: Engines;
  readonly ch: ClickHouse;
  readonly #env: Record<string, string>;
  readonly #port: number;
  readonly #journal: boolean;
  #edge: Running | undefined;
  #ops = '';
  #aggregator: Running | undefined;

  private constructor(engines: Engines, o: { key: string; port: number; journal: boolean }) {
    this.engines = engines;
    this.key = o.key;
    this.#port = o.port;
    this.#journal = o.journal;
    this.ch = connectClickHouse({ url: engines.clickhouseUrl, name: 'faults', requestTimeoutMs: 60_000 });
    this.#env = {
      NATS_URL: engines.natsUrl,
      CLICKHOUSE_URL: engines.clickhouseUrl,
      TALLYLINE_SHARDS: String(SHARDS),
      TALLYLINE_IDENTITY_KEY: '00112233445566778899aabbccddeeff',
      TALLYLINE_LOG_LEVEL: 'warn',
    };
  }

  static async start(o: { journal: boolean }): Promise<World> {
    const engines = await startEngines({ nats: true, clickhouse: true });
    try {
      const [port = 0] = await freePorts(1);
      const { key, id, secret } = makeKey(randomBytes(96));
      const world = new World(engines, { key, port, journal: o.journal });
      await world.#tellKey({
        id,
        tenant: TENANT,
        scopes: ['ingest'],
        secretHash: createHash('sha256').update(secret).digest('hex'),
        expiresAtMs: null,
      });
      await world.startEdge();
      await world.#defineMeter();
      await world.startAggregator();
      return world;
    } catch (error) {
      await engines.stop();
      throw error;
    }
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  async startEdge(): Promise<void> {
    const journal = this.#journal ? { TALLYLINE_EDGE_JOURNAL: join(this.engines.dir, 'journal') } : {};
    this.#edge = start('ingest/main.js', [], {
      ...this.#env,
      ...journal,
      TALLYLINE_EDGE_PORT: String(this.#port),
    });
    this.#ops = String((await this.#edge.line((line) => line['ready'] === true))['ops']);
  }

  /**
   * Whether the log has everything that was acknowledged: with a journal, events are taken while NATS is away, and
   * a NATS that is cut back before it has them would lose nothing.
   */
  async isSettled(): Promise<boolean> {
    if (!this.#journal) return true;
    const metrics = await (await fetch(`${this.#ops}/metrics`)).text();
    const value = (name: string): number =>
      Number(new RegExp(`^${name}(?:\\{[^}]*\\})? (.+)$`, 'm').exec(metrics)?.[1]);
    return (
      value('tallyline_edge_journal_alone_shards') === 0 &&
      value('tallyline_edge_journal_waiting_blocks') === 0
    );
  }

  async startAggregator(): Promise<void> {
    this.#aggregator = start('aggregator/main.js', [], {
      ...this.#env,
      TALLYLINE_AGGREGATOR_THREADS: '1',
      // The engine of this run is thrown away; only crashes of processes are tried, not of the machine.
      TALLYLINE_CLICKHOUSE_FSYNC: '0',
    });
    await this.#aggregator.line((line) => line['ready'] === true);
  }

  async killEdge(): Promise<void> {
    await crash(this.#edge);
  }

  async killAggregator(): Promise<void> {
    await crash(this.#aggregator);
  }

  /** The store of NATS as it is now; NATS must not run. */
  async keepStore(): Promise<void> {
    await rm(this.#kept, { recursive: true, force: true });
    await cp(this.#store, this.#kept, { recursive: true });
  }

  /** Cuts the store of NATS back to what was kept; NATS must not run. */
  async cutBack(): Promise<void> {
    await rm(this.#store, { recursive: true, force: true });
    await cp(this.#kept, this.#store, { recursive: true });
  }

  get #store(): string {
    return join(this.engines.dir, 'nats', 'store');
  }

  get #kept(): string {
    return join(this.engines.dir, 'nats-kept');
  }

  async stop(): Promise<void> {
    await Promise.all([this.#edge?.stop(), this.#aggregator?.stop()]);
    await this.ch.close();
    await this.engines.stop();
  }

  async #tellKey(record: KeyRecord): Promise<void> {
    const link = await connectNats({
      url: this.engines.natsUrl,
      name: 'faults',
      log: createLog('faults', 'silent'),
    });
    await (await openKeyValue(link, BUCKET_KEYS)).put(record.id, JSON.stringify(record));
    await link.close();
  }

  async #defineMeter(): Promise<void> {
    const link = await connectNats({
      url: this.engines.natsUrl,
      name: 'faults',
      log: createLog('faults', 'silent'),
    });
    const pipeline = new PublishPipeline(link, {
      maxInFlight: 16,
      maxInFlightBytes: 1e6,
      ackTimeoutMs: 5_000,
    });
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
    pipeline.close();
    await link.close();
  }
}

async function crash(running: Running | undefined): Promise<void> {
  running?.child.kill('SIGKILL');
  await running?.exited;
}
