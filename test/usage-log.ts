// What edges would publish, and a model of what must come of it that is too simple to be wrong: plain Maps, one
// event at a time, bigint arithmetic of its own.
import { BlockBuilder } from '../contract/block-builder.ts';
import { encodeBackfillChanged, encodeMeterDefined, type BackfillChanged } from '../contract/control.ts';
import { EventBatch } from '../contract/event-batch.ts';
import { IdentityHasher, ShardRule } from '../contract/identity.ts';
import type { Meter } from '../contract/meter.ts';
import { streamSubject } from '../contract/subjects.ts';
import type { Verdict } from '../contract/verdicts.ts';
import { PublishPipeline, type NatsLink, type PublishAck } from '../runtime/nats.ts';
import { addAll, batchOf, identityOf } from './event-batch.ts';

export interface Sent {
  readonly tenant: string;
  readonly id: string;
  readonly type: string;
  readonly subject: string;
  readonly timeMs: number;
  readonly data: Readonly<Record<string, string | number>>;
}

export interface ModelRow {
  count: bigint;
  sum: bigint;
  min: bigint;
  max: bigint;
  latest: bigint;
  latestMs: number;
}

interface ModelShard {
  readonly meters: { tenant: string; meter: Meter }[];
  readonly counted: Map<string, string>;
  lastSequence: number;
}

interface Model {
  readonly rows: Map<string, ModelRow>;
  readonly verdicts: Map<string, number>;
  readonly received: number;
  readonly unreadable: number;
  readonly shards: ModelShard[];
}

const HOUR_MS = 3_600_000;
const KEY = '0f0e0d0c0b0a09080706050403020100';

/** 10^-9 units of a decimal; null when it is none. */
export function nano(value: string | number): bigint | null {
  const match = /^(-?)(\d+)(?:\.(\d{1,9}))?$/.exec(String(value));
  if (match === null) return null;
  const units = BigInt(match[2]! + (match[3] ?? '').padEnd(9, '0'));
  return match[1] === '-' ? -units : units;
}

export class UsageLog {
  /** By JSON of [shard, tenant, meter, subject, hour ms, dimensions]. */
  readonly rows = new Map<string, ModelRow>();
  /** By "tenant verdict code". */
  readonly verdicts = new Map<string, number>();
  received = 0;
  unreadable = 0;
  readonly #shards: ModelShard[];
  readonly #pipeline: PublishPipeline;
  readonly #hasher = new IdentityHasher(KEY);
  readonly #builder = new BlockBuilder();
  readonly #batch = new EventBatch();
  readonly #acks: Promise<void>[] = [];

  constructor(link: NatsLink, shards: number) {
    this.#pipeline = new PublishPipeline(link, {
      maxInFlight: 1_000,
      maxInFlightBytes: 64 * 1024 ** 2,
      ackTimeoutMs: 30_000,
    });
    this.#shards = Array.from({ length: shards }, () => ({
      meters: [],
      counted: new Map(),
      lastSequence: 0,
    }));
  }

  get lastSequences(): number[] {
    return this.#shards.map(({ lastSequence }) => lastSequence);
  }

  define(tenant: string, meter: Meter): void {
    this.#shards.forEach((shard, number) => {
      const known = shard.meters.some((one) => one.tenant === tenant && one.meter.key === meter.key);
      if (!known) shard.meters.push({ tenant, meter });
      this.#publish(number, encodeMeterDefined({ tenant, meter }));
    });
  }

  /** Tells all shards of a change of a backfill, of which the model knows nothing. */
  changeBackfill(changed: BackfillChanged): void {
    this.#shards.forEach((_, number) => this.#publish(number, encodeBackfillChanged(changed)));
  }

  /** Publishes one block for each shard that has any of the events. */
  send(events: readonly Sent[], acceptedAtMs: number): void {
    const byShard = this.#shards.map((): Sent[] => []);
    const rule = new ShardRule(this.#shards.length);
    for (const event of events) {
      byShard[rule.of(identityOf(this.#hasher, event.tenant, '', event.id))]!.push(event);
    }
    byShard.forEach((own, number) => {
      if (own.length === 0) return;
      this.#publish(number, this.#encode(own, acceptedAtMs));
      for (const event of own) this.#judge(number, event);
    });
  }

  /** Publishes bytes that are no message of ours. */
  sendRubbish(shard: number, message: Uint8Array): void {
    this.#publish(shard, message);
    this.unreadable += 1;
  }

  /** Publishes a message that another model knows of. */
  sendMessage(shard: number, message: Uint8Array): void {
    this.#publish(shard, message);
  }

  /** A sound block with one flipped bit. */
  sendBroken(shard: number, events: readonly Sent[]): void {
    const message = this.#encode(events, 0);
    message[message.length - 1]! ^= 0x10;
    this.sendRubbish(shard, message);
  }

  /** Waits until the log has everything. */
  async acknowledged(): Promise<void> {
    await Promise.all(this.#acks.splice(0));
  }

  /** What was judged so far. To be given to `restore` when what is sent from now on was lost and never read. */
  snapshot(): unknown {
    const { rows, verdicts, received, unreadable } = this;
    return structuredClone({ rows, verdicts, received, unreadable, shards: this.#shards });
  }

  restore(snapshot: unknown): void {
    const { rows, verdicts, received, unreadable, shards } = structuredClone(snapshot) as Model;
    this.rows.clear();
    for (const [key, row] of rows) this.rows.set(key, row);
    this.verdicts.clear();
    for (const [key, count] of verdicts) this.verdicts.set(key, count);
    [this.received, this.unreadable] = [received, unreadable];
    this.#shards.splice(0, this.#shards.length, ...shards);
  }

  /** The broker's log was cut back: it ends there now. */
  rewind(lastSequences: readonly number[]): void {
    this.#shards.forEach((shard, number) => (shard.lastSequence = lastSequences[number]!));
  }

  close(): void {
    this.#pipeline.close();
  }

  #encode(events: readonly Sent[], acceptedAtMs: number): Uint8Array<ArrayBuffer> {
    for (const sent of events) {
      const event = { ...sent, time: new Date(sent.timeMs).toISOString() };
      addAll(this.#builder, batchOf(sent.tenant, [event], this.#batch), this.#hasher);
    }
    return this.#builder.finish(acceptedAtMs);
  }

  #publish(shard: number, message: Uint8Array): void {
    const acknowledged = this.#pipeline.publish(streamSubject(shard), message).then((ack: PublishAck) => {
      this.#shards[shard]!.lastSequence = Math.max(this.#shards[shard]!.lastSequence, ack.sequence);
    });
    acknowledged.catch(() => {});
    this.#acks.push(acknowledged);
  }

  #judge(number: number, event: Sent): void {
    const shard = this.#shards[number]!;
    this.received += 1;
    const key = JSON.stringify([event.tenant, event.id]);
    const payload = JSON.stringify([event.type, event.subject, event.timeMs, event.data]);
    const known = shard.counted.get(key);
    if (known !== undefined) {
      this.#verdict(event.tenant, known === payload ? 'duplicate' : 'conflict');
      return;
    }
    const meters = shard.meters.filter(
      ({ tenant, meter }) => tenant === event.tenant && meter.eventType === event.type,
    );
    const values = meters.map(({ meter }) => {
      if (meter.valueProperty === null) return nano(1)!;
      const value = event.data[meter.valueProperty];
      return value === undefined ? 'meter_value_missing' : (nano(value) ?? 'meter_value_not_a_number');
    });
    const fault = values.find((value) => typeof value === 'string');
    if (fault !== undefined) {
      this.#verdict(event.tenant, 'rejected', fault);
      return;
    }
    shard.counted.set(key, payload);
    this.#verdict(event.tenant, 'counted');
    meters.forEach(({ meter }, at) => this.#add(number, event, meter, values[at] as bigint));
  }

  #add(shard: number, event: Sent, meter: Meter, value: bigint): void {
    const dimensions = meter.groupBy.map((path) => String(event.data[path] ?? ''));
    const hour = Math.floor(event.timeMs / HOUR_MS) * HOUR_MS;
    const key = JSON.stringify([shard, event.tenant, meter.key, event.subject, hour, dimensions]);
    const row = this.rows.get(key);
    if (row === undefined) {
      const latestMs = event.timeMs;
      this.rows.set(key, { count: 1n, sum: value, min: value, max: value, latest: value, latestMs });
      return;
    }
    row.count += 1n;
    row.sum += value;
    if (value < row.min) row.min = value;
    if (value > row.max) row.max = value;
    if (event.timeMs >= row.latestMs) [row.latest, row.latestMs] = [value, event.timeMs];
  }

  #verdict(tenant: string, verdict: Verdict, code = ''): void {
    const key = `${tenant} ${verdict} ${code}`.trim();
    this.verdicts.set(key, (this.verdicts.get(key) ?? 0) + 1);
  }
}
