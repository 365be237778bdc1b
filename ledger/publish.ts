/**
 * What the ledger tells the other stages: meters into every shard's log, meters and keys into NATS buckets.
 * Postgres is the master of both; all of this can be told again at any time.
 *
 * A meter's definition stands in the log of every shard, because a shard's log alone decides what its events
 * count for. Only when all of them have acknowledged it may the API answer, so that an event sent after the
 * answer meets its meter. A repeated definition changes nothing for the aggregator.
 */
import { encodeMeterDefined, type MeterDefined } from '../contract/control.ts';
import type { KeyRecord } from '../contract/key.ts';
import type { Meter } from '../contract/meter.ts';
import { BUCKET_KEYS, BUCKET_METERS, SHARDS_MAX, streamSubject } from '../contract/subjects.ts';
import { openKeyValue, PublishPipeline, type KeyValue, type NatsLink } from '../runtime/nats.ts';

const ACK_TIMEOUT_MS = 5_000;
const IN_FLIGHT_BYTES_MAX = 16 * 1024 * 1024;

export interface Publisher {
  /** Resolves when every shard's log has the definition and the edges can see it. Throws {@link PublishFailed}. */
  publishMeter(tenant: string, meter: Meter): Promise<void>;
  /** Tells the edges of a new key. Throws {@link PublishFailed}. */
  putKey(record: KeyRecord): Promise<void>;
  /** Takes a revoked key from the edges. Throws {@link PublishFailed}. */
  deleteKey(id: string): Promise<void>;
  /**
   * Makes the bucket hold exactly the active keys; returns how many entries that changed. `readActive` is
   * called after the bucket was read, so that a key made meanwhile is not taken for a revoked one. Throws
   * {@link PublishFailed}.
   */
  syncKeys(readActive: () => Promise<readonly KeyRecord[]>): Promise<number>;
  close(): Promise<void>;
}

/** NATS could not be told, or did not say that it was. Telling it again is safe. */
export class PublishFailed extends Error {
  override readonly name = 'PublishFailed';
}

export async function openPublisher(link: NatsLink, o: { shards: number }): Promise<Publisher> {
  const meters = await openKeyValue(link, BUCKET_METERS);
  const keys = await openKeyValue(link, BUCKET_KEYS);
  const pipeline = new PublishPipeline(link, {
    maxInFlight: SHARDS_MAX,
    maxInFlightBytes: IN_FLIGHT_BYTES_MAX,
    ackTimeoutMs: ACK_TIMEOUT_MS,
  });
  // Changes of keys take turns: a sync that read a key before it was revoked must not put it back after.
  let turn: Promise<unknown> = Promise.resolve();
  const inTurn = <T>(change: () => Promise<T>): Promise<T> => {
    const mine = turn.then(change);
    turn = mine.catch(() => {});
    return mine;
  };
  return {
    publishMeter: (tenant, meter) =>
      told('the meter', async () => {
        const record = meterRecord(tenant, meter);
        const message = encodeMeterDefined(record);
        const shards = Array.from({ length: o.shards }, (_, shard) => shard);
        await Promise.all(shards.map((shard) => pipeline.publish(streamSubject(shard), message)));
        await meters.put(`${tenant}.${meter.key}`, JSON.stringify(record));
      }),
    putKey: (record) =>
      inTurn(() =>
        told('the key', async () => {
          await keys.put(record.id, keyText(record));
        }),
      ),
    deleteKey: (id) => inTurn(() => told('the revoked key', () => keys.delete(id))),
    syncKeys: (readActive) => inTurn(() => told('the keys', () => syncKeys(keys, readActive))),
    async close() {
      await turn;
      await pipeline.drain();
      pipeline.close();
    },
  };
}

/** The definition and nothing else: what is stored beside it is no business of the log. */
function meterRecord(tenant: string, meter: Meter): MeterDefined {
  const { key, eventType, aggregation, valueProperty, groupBy } = meter;
  return { tenant, meter: { key, eventType, aggregation, valueProperty, groupBy } };
}

/** The fields of {@link KeyRecord} and no other, always in this order, so that equal records are equal text. */
function keyText({ id, tenant, scopes, secretHash }: KeyRecord): string {
  return JSON.stringify({ id, tenant, scopes, secretHash } satisfies KeyRecord);
}

async function syncKeys(keys: KeyValue, readActive: () => Promise<readonly KeyRecord[]>): Promise<number> {
  const present = new Map<string, string>();
  const enough = new AbortController();
  try {
    await keys.watch((id, value) => {
      if (value === null) present.delete(id);
      else present.set(id, value);
    }, enough.signal);
  } finally {
    enough.abort();
  }
  const wanted = new Map((await readActive()).map((record) => [record.id, keyText(record)]));
  let changed = 0;
  for (const [id, text] of wanted) {
    if (present.get(id) === text) continue;
    await keys.put(id, text);
    changed += 1;
  }
  for (const id of present.keys()) {
    if (wanted.has(id)) continue;
    await keys.delete(id);
    changed += 1;
  }
  return changed;
}

async function told<T>(what: string, tell: () => Promise<T>): Promise<T> {
  try {
    return await tell();
  } catch (error) {
    throw new PublishFailed(`could not tell ${what} to NATS`, { cause: error });
  }
}
