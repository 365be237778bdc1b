// The aggregator as a process, on real NATS and ClickHouse, with a log to publish into and a model of what must
// come of it.
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import pino from 'pino';
import { expect } from 'vitest';
import { CHECKS, checkFile, type CheckName } from '../aggregator/checks.ts';
import { unpackPosition } from '../contract/position.ts';
import { streamName, streamSubject } from '../contract/subjects.ts';
import { connectClickHouse, type ClickHouse } from '../runtime/clickhouse.ts';
import { connectNats, ensureStream, type NatsLink } from '../runtime/nats.ts';
import { startEngines, type Engines } from './engines.ts';
import { nano, UsageLog, type ModelRow, type Sent } from './usage-log.ts';

const HOUR_MS = 3_600_000;
/** Two hours before a month, and a partition, ends. */
export const START_MS = Date.UTC(2026, 9, 31, 22);

export interface Aggregator {
  readonly process: ChildProcess;
  /** Its URL of metrics and health; '' when it ended before it was ready. */
  readonly ops: string;
  readonly exited: Promise<number | null>;
  readonly output: string[];
}

export class AggregatorWorld {
  readonly shards: number;
  readonly engines: Engines;
  readonly link: NatsLink;
  readonly ch: ClickHouse;
  readonly log: UsageLog;
  running: Aggregator | undefined;

  /** On engines of its own, or on those of another world, which has the streams already. */
  static async start(shards: number, others?: Engines): Promise<AggregatorWorld> {
    const engines = others ?? (await startEngines({ nats: true, clickhouse: true }));
    const link = await connectNats({ url: engines.natsUrl, name: 'test', log: pino({ level: 'silent' }) });
    const ch = connectClickHouse({ url: engines.clickhouseUrl, name: 'test', requestTimeoutMs: 30_000 });
    const world = new AggregatorWorld(shards, engines, link, ch);
    if (others !== undefined) return world;
    for (let shard = 0; shard < shards; shard++) await world.makeStream(shard);
    return world;
  }

  private constructor(shards: number, engines: Engines, link: NatsLink, ch: ClickHouse) {
    this.shards = shards;
    this.engines = engines;
    this.link = link;
    this.ch = ch;
    this.log = new UsageLog(link, shards);
  }

  async close(): Promise<void> {
    await this.end('SIGKILL');
    this.log.close();
    await this.link.close();
    await this.ch.close();
    await this.engines.stop();
  }

  async makeStream(shard: number): Promise<void> {
    await ensureStream(this.link, {
      name: streamName(shard),
      subjects: [streamSubject(shard)],
      maxBytes: 1024 ** 3,
      replicas: 1,
    });
  }

  /** Resolves when it is ready, or has ended. */
  async launch(env: Record<string, string> = {}): Promise<Aggregator> {
    const { ready, ...aggregator } = this.spawn(env);
    return { ...aggregator, ops: await ready };
  }

  spawn(env: Record<string, string> = {}): Omit<Aggregator, 'ops'> & { readonly ready: Promise<string> } {
    const main = fileURLToPath(new URL('../dist/aggregator/main.js', import.meta.url));
    const child = spawn(process.execPath, [main], {
      env: {
        PATH: process.env['PATH'],
        NATS_URL: this.engines.natsUrl,
        CLICKHOUSE_URL: this.engines.clickhouseUrl,
        TALLYLINE_SHARDS: String(this.shards),
        TALLYLINE_STOP_WITH_PARENT: '1',
        TALLYLINE_LOG_LEVEL: 'warn',
        TALLYLINE_AGGREGATOR_THREADS: '1',
        // One that is started again takes the shards of the one before it at once.
        TALLYLINE_AGGREGATOR_NAME: 'test',
        ...env,
      },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    const output: string[] = [];
    const exited = once(child, 'exit').then(([code]) => code as number | null);
    child.stderr.on('data', (text: Buffer) => output.push(text.toString()));
    const ready = new Promise<string>((resolve) => {
      let text = '';
      child.stdout.on('data', (chunk: Buffer) => {
        output.push(chunk.toString());
        text += chunk.toString();
        const line = text.split('\n').find((one) => one.includes('"ready":true') && one.endsWith('}'));
        if (line !== undefined) resolve((JSON.parse(line) as { ops: string }).ops);
      });
      void exited.then(() => resolve(''));
    });
    return { process: child, exited, output, ready };
  }

  /** Starts the aggregator, instead of one that runs. */
  async start(env: Record<string, string> = {}): Promise<Aggregator> {
    await this.end('SIGKILL');
    this.running = await this.launch(env);
    if (this.running.ops === '')
      throw new Error(`the aggregator did not start:\n${this.running.output.join('')}`);
    return this.running;
  }

  async end(signal: 'SIGKILL' | 'SIGTERM'): Promise<number | null> {
    const ended = this.running;
    this.running = undefined;
    ended?.process.kill(signal);
    return (await ended?.exited) ?? null;
  }

  async eventually(what: string, condition: () => Promise<boolean>, withinMs = 30_000): Promise<void> {
    const deadline = performance.now() + withinMs;
    while (!(await condition().catch(() => false))) {
      if (performance.now() > deadline) {
        throw new Error(
          `${what} did not happen within ${withinMs} ms\n${this.running?.output.slice(-20).join('') ?? ''}`,
        );
      }
      await delay(20);
    }
  }

  /** The value of a metric of the running process, the sum of its series. */
  async metric(name: string): Promise<number> {
    const text = await (await fetch(`${this.running!.ops}/metrics`)).text();
    return [...text.matchAll(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, 'gm'))].reduce(
      (sum, match) => sum + Number(match[1]),
      0,
    );
  }

  async watermarks(): Promise<Map<number, { incarnation: number; sequence: number }>> {
    const rows = await this.ch.rows<{ shard: number; position: string }>(
      'SELECT shard, position FROM watermark',
    );
    return new Map(rows.map(({ shard, position }) => [shard, unpackPosition(BigInt(position))]));
  }

  /** Waits until the watermarks of the newest incarnations have reached the end of the log. */
  async drained(): Promise<void> {
    await this.log.acknowledged();
    await this.eventually('draining', async () => {
      const marks = await this.watermarks();
      return this.log.lastSequences.every((last, shard) => (marks.get(shard)?.sequence ?? 0) >= last);
    });
  }

  async storedRows(): Promise<Map<string, ModelRow>> {
    const rows = await this.ch.rows<UsageRow>('SELECT * FROM usage_rows');
    return new Map(
      rows.map((row) => [
        JSON.stringify([row.shard, row.tenant, row.meter, row.subject, instant(row.hour), row.dimensions]),
        {
          count: BigInt(row.value_count),
          sum: nano(row.value_sum)!,
          min: nano(row.value_min)!,
          max: nano(row.value_max)!,
          latest: nano(row.value_latest)!,
          latestMs: instant(row.latest_time),
        },
      ]),
    );
  }

  check(name: CheckName): Promise<unknown[]> {
    return this.ch.rows(readFileSync(checkFile(name), 'utf8'));
  }

  async expectChecks(): Promise<void> {
    for (const name of CHECKS) expect([name, await this.check(name)]).toEqual([name, []]);
  }

  /** Events by "tenant verdict code". */
  async storedVerdicts(): Promise<Map<string, number>> {
    const verdicts = await this.ch.rows<{ tenant: string; verdict: string; code: string; n: string }>(
      'SELECT tenant, verdict, code, sum(count) AS n FROM verdicts GROUP BY tenant, verdict, code',
    );
    return new Map(
      verdicts.map(({ tenant, verdict, code, n }) => [`${tenant} ${verdict} ${code}`.trim(), Number(n)]),
    );
  }

  /** The rollups say what the model says, the number of counted events too, and every check agrees. */
  async expectTotals(): Promise<void> {
    await this.drained();
    const [rows, stored] = [this.log.rows, await this.storedRows()];
    const differing = [...rows].filter(([key, row]) => {
      const other = stored.get(key);
      return other === undefined || JSON.stringify(other, digits) !== JSON.stringify(row, digits);
    });
    expect(differing.slice(0, 3).map(([key, row]) => [key, row, stored.get(key)])).toEqual([]);
    expect(stored.size).toBe(rows.size);
    const counted = (verdicts: ReadonlyMap<string, number>): [string, number][] =>
      [...verdicts].filter(([verdict]) => verdict.endsWith(' counted')).sort();
    expect(counted(await this.storedVerdicts())).toEqual(counted(this.log.verdicts));
    await this.expectChecks();
  }

  /** The same, and all counters. */
  async expectExact(): Promise<void> {
    await this.expectTotals();
    const unreadable =
      this.log.unreadable > 0 ? [['rejected block_unreadable', this.log.unreadable] as const] : [];
    expect(await this.storedVerdicts()).toEqual(
      new Map<string, number>([...this.log.verdicts, ...unreadable]),
    );
    const [received] = await this.ch.rows<{ n: string }>('SELECT sum(count) AS n FROM received');
    expect(Number(received!.n)).toBe(this.log.received + this.log.unreadable);
  }
}

interface UsageRow {
  shard: number;
  tenant: string;
  meter: string;
  subject: string;
  hour: string;
  dimensions: string[];
  value_count: string;
  value_sum: string;
  value_min: string;
  value_max: string;
  value_latest: string;
  latest_time: string;
}

const instant = (text: string): number => Date.parse(`${text.replace(' ', 'T')}Z`);
const digits = (_: string, value: unknown): unknown => (typeof value === 'bigint' ? value.toString() : value);

/** A small generator of its own, so that a failure can be run again: TALLYLINE_TEST_SEED. */
export class EventSource {
  /** The newest that were made. */
  readonly past: Sent[] = [];
  #seed = Number(process.env['TALLYLINE_TEST_SEED'] ?? Math.floor(performance.timeOrigin) % 1_000_000);
  #nextId = 0;

  constructor() {
    console.info(`TALLYLINE_TEST_SEED=${this.#seed}`);
  }

  random(below: number): number {
    this.#seed = (Math.imul(this.#seed, 1_103_515_245) + 12_345) & 0x7fff_ffff;
    return Math.floor((this.#seed / 0x8000_0000) * below);
  }

  /** Mostly new events; some sent again, some contradicting themselves, some that a meter refuses. */
  some(count: number): Sent[] {
    const { past } = this;
    return Array.from({ length: count }, () => {
      const dice = this.random(100);
      if (dice < 15 && past.length > 0) return past[this.random(past.length)]!;
      if (dice < 17 && past.length > 0)
        return { ...past[this.random(past.length)]!, subject: 'somebody else' };
      return this.#make(
        dice < 19
          ? { model: 'm0' }
          : dice < 21
            ? { tokens: 'lots' }
            : {
                model: `m${this.random(3)}`,
                tokens: this.#value(),
                ...(this.random(2) === 0 ? { region: 'eu' } : {}),
              },
      );
    });
  }

  /** New events that all count, each at a time of its own: what comes of them does not depend on their order. */
  fresh(count: number): Sent[] {
    return Array.from({ length: count }, () =>
      this.#make({ model: `m${this.random(3)}`, tokens: this.#value() }),
    );
  }

  /** New events that a meter refuses. */
  refused(count: number): Sent[] {
    return Array.from({ length: count }, () => ({
      ...this.#make({ tokens: 'lots' }),
      tenant: 'acme',
      type: 'llm',
    }));
  }

  #make(data: Record<string, string | number>): Sent {
    const number = this.#nextId++;
    const event: Sent = {
      tenant: this.random(4) === 0 ? 'rival' : 'acme',
      id: `event-${number}`,
      type: this.random(10) === 0 ? 'upload' : 'llm',
      subject: `customer-${this.random(20)}`,
      timeMs: START_MS + ((number * 7_919) % (4 * HOUR_MS)),
      data,
    };
    this.past.push(event);
    if (this.past.length > 5_000) this.past.shift();
    return event;
  }

  #value(): number | string {
    return [
      this.random(5_000),
      `${this.random(9)}.${1 + this.random(8)}`,
      '0.000000001',
      this.random(900) / 8 + 0.5,
    ][this.random(4)]!;
  }
}
