/**
 * The way of a meter, and of each later version, from Postgres into the logs.
 *
 * 1. The row, as `publishing`. From here on the number means this definition, whatever happens.
 * 2. The definition in every shard's log, and all versions in the bucket of the edges. After a crash the next start,
 *    or the same request, does it again.
 * 3. The row becomes `active`, and only then is the request answered.
 *
 * A later version must be stored by the logs well before its first hour (METER_LIMITS.versionLeadMs), or they refuse
 * it. When step 2 was not done by then, the version is `missed`: it is told to nobody any more. Shards that have it
 * count by it; that some have it and others do not is for people to hear of, and the way out is another version.
 */
import { effectiveFromOf, METER_LIMITS, versionOf } from '../contract/meter.ts';
import type { Db } from '../runtime/postgres.ts';
import { activateMeter, missMeterVersion, type StoredMeter } from './meters.ts';
import type { Publisher } from './publish.ts';

/** Does steps 2 and 3 for the newest version. Throws PublishFailed. */
export async function publishMeter(
  db: Db,
  publisher: Pick<Publisher, 'publishMeter'>,
  meter: StoredMeter,
  nowMs: number,
): Promise<'active' | 'missed'> {
  const { tenant, key, versions } = meter;
  const version = versionOf(meter);
  if (version > 1 && effectiveFromOf(meter) < nowMs + METER_LIMITS.versionLeadMs) {
    await missMeterVersion(db, tenant, key, version);
    return 'missed';
  }
  await publisher.publishMeter(tenant, versions);
  await activateMeter(db, tenant, key, version);
  return 'active';
}
