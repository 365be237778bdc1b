/**
 * What the ledger tells the other stages: meters into every shard's log, meters, keys and quotas into NATS
 * buckets. Postgres is the master of all; all of this can be told again at any time.
 *
 * A meter's definition stands in the log of every shard, because a shard's log alone decides what its events
 * count for. Only when all of them have acknowledged it may the API answer, so that an event sent after the
 * answer meets its meter. A repeated definition changes nothing for the aggregator.
 */
import {
  encodeBackfillChanged,
  encodeMeterDefined,
  formatMeterVersions,
  type BackfillChanged,
} from '../contract/control.ts';
import type { KeyRecord } from '../contract/key.ts';
import { definitionOf, type Meter } from '../contract/meter.ts';
import { BUCKET_KEYS, BUCKET_METERS, SHARDS_MAX, streamSubject } from '../contract/subjects.ts';
import { openKeyValue, PublishPipeline, type NatsLink } from '../runtime/nats.ts';
import { Mirror, PublishFailed, told } from './mirror.ts';
import { openQuotaMirror } from './quotas.ts';

const ACK_TIMEOUT_MS = 5_000;
const IN_FLIGHT_BYTES_MAX = 16 * 1024 * 1024;

export interface Publisher {
  /**
   * Resolves when every shard's log has the newest of the versions and the edges can see all of them. Throws
   * {@link PublishFailed}.
   */
  publishMeter(tenant: string, versions: readonly Meter[]): Promise<void>;
  /** Resolves when every shard's log has the change. Throws {@link PublishFailed}. */
  publishBackfill(changed: BackfillChanged): Promise<void>;
  /** How many logs there are. */
  readonly shards: number;
  /** Tells the edges of one key, as it is now: `read` is null when it is not valid. Throws {@link PublishFailed}. */
  tellKey(id: string, read: () => Promise<KeyRecord | null>): Promise<void>;
  /** Makes the bucket hold exactly the active keys; see {@link Mirror.sync}. */
  syncKeys(readActive: () => Promise<readonly KeyRecord[]>): Promise<number>;
  /** The same for the quotas, by tenant. */
  syncQuotas(read: () => Promise<ReadonlyMap<string, string>>): Promise<number>;
  close(): Promise<void>;
}

export { PublishFailed };

export async function openPublisher(link: NatsLink, o: { shards: number }): Promise<Publisher> {
  const meters = await openKeyValue(link, BUCKET_METERS);
  const keys = new Mirror(await openKeyValue(link, BUCKET_KEYS), 'the keys');
  const quotas = await openQuotaMirror(link);
  const pipeline = new PublishPipeline(link, {
    maxInFlight: SHARDS_MAX,
    maxInFlightBytes: IN_FLIGHT_BYTES_MAX,
    ackTimeoutMs: ACK_TIMEOUT_MS,
  });
  const tellAll = async (message: Uint8Array): Promise<void> => {
    const shards = Array.from({ length: o.shards }, (_, shard) => shard);
    await Promise.all(shards.map((shard) => pipeline.publish(streamSubject(shard), message)));
  };
  return {
    shards: o.shards,
    publishBackfill: (changed) => told('the backfill', () => tellAll(encodeBackfillChanged(changed))),
    publishMeter: (tenant, versions) =>
      told('the meter', async () => {
        const meter = definitionOf(versions.at(-1)!);
        await tellAll(encodeMeterDefined({ tenant, meter }));
        await meters.put(`${tenant}.${meter.key}`, formatMeterVersions({ tenant, versions }));
      }),
    tellKey: (id, read) =>
      keys.tell(id, async () => {
        const record = await read();
        return record === null ? null : keyText(record);
      }),
    syncKeys: (readActive) =>
      keys.sync(async () => new Map((await readActive()).map((record) => [record.id, keyText(record)]))),
    syncQuotas: (read) => quotas.sync(read),
    async close() {
      await Promise.all([keys.settled(), quotas.settled()]);
      await pipeline.drain();
      pipeline.close();
    },
  };
}

/** The fields of {@link KeyRecord} and no other, always in this order, so that equal records are equal text. */
function keyText({ id, tenant, scopes, secretHash, expiresAtMs }: KeyRecord): string {
  return JSON.stringify({ id, tenant, scopes, secretHash, expiresAtMs } satisfies KeyRecord);
}
