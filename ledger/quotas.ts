/**
 * Quotas of tenants: what each may send to one edge a second, where that is not the default of the edges. Only
 * the operator changes them, by a command; a tenant's keys can read its own and no more.
 */
import { BUCKET_QUOTAS } from '../contract/subjects.ts';
import type { Quota } from '../contract/quota.ts';
import { formatInstant } from '../contract/window.ts';
import { openKeyValue, type NatsLink } from '../runtime/nats.ts';
import type { Db } from '../runtime/postgres.ts';
import { appendAudit } from './audit.ts';
import { Mirror } from './mirror.ts';

export interface StoredQuota extends Quota {
  readonly updatedAtMs: number;
}

/** In the audit log, in the place of an API key. */
const OPERATOR = 'operator';

/** Null: the tenant has none of its own. Undefined: there is no such tenant. */
export async function quotaOf(db: Db, tenant: string): Promise<StoredQuota | null | undefined> {
  const [row] = await db.query<{ [K in keyof QuotaRow]: QuotaRow[K] | null }>(
    `SELECT ${QUOTA_COLUMNS} FROM ledger.tenants LEFT JOIN ledger.quotas USING (tenant) WHERE tenant = $1`,
    [tenant],
  );
  if (row === undefined) return undefined;
  return row.updated_at === null ? null : storedQuotaOf({ ...row, updated_at: row.updated_at });
}

/** Those of all tenants, as the bucket has them. */
export async function quotaTexts(db: Db): Promise<Map<string, string>> {
  const rows = await db.query<QuotaRow & { tenant: string }>(
    `SELECT tenant, ${QUOTA_COLUMNS} FROM ledger.quotas ORDER BY tenant`,
  );
  return new Map(rows.map((row) => [row.tenant, quotaText(storedQuotaOf(row))]));
}

/** Of a tenant that there is. Null takes its own quota away, so that the default holds. */
export async function setQuota(
  tx: Db,
  o: { tenant: string; quota: Quota | null; nowMs: number },
): Promise<void> {
  const { tenant, quota, nowMs } = o;
  if (quota === null) await tx.query('DELETE FROM ledger.quotas WHERE tenant = $1', [tenant]);
  else {
    const values = [tenant, quota.eventsPerSecond, quota.bytesPerSecond, formatInstant(nowMs)];
    await tx.query(UPSERT_QUOTA, values);
  }
  await appendAudit(
    tx,
    { tenant, keyId: OPERATOR },
    quota === null ? 'quota.remove' : 'quota.set',
    'quota',
    nowMs,
  );
}

export async function openQuotaMirror(link: NatsLink): Promise<Mirror> {
  return new Mirror(await openKeyValue(link, BUCKET_QUOTAS), 'the quotas');
}

/** Tells the edges of one tenant's. Throws {@link PublishFailed}. */
export function tellQuota(mirror: Mirror, db: Db, tenant: string): Promise<void> {
  return mirror.tell(tenant, async () => {
    const quota = await quotaOf(db, tenant);
    return quota == null ? null : quotaText(quota);
  });
}

/** Always in this order, so that equal quotas are equal text. */
function quotaText({ eventsPerSecond, bytesPerSecond }: Quota): string {
  return JSON.stringify({ eventsPerSecond, bytesPerSecond } satisfies Quota);
}

interface QuotaRow {
  events_per_second: bigint | null;
  bytes_per_second: bigint | null;
  updated_at: number;
}

const QUOTA_COLUMNS = 'events_per_second, bytes_per_second, updated_at';

const UPSERT_QUOTA = `
  INSERT INTO ledger.quotas (tenant, events_per_second, bytes_per_second, updated_at) VALUES ($1, $2, $3, $4)
  ON CONFLICT (tenant) DO UPDATE SET events_per_second = excluded.events_per_second,
    bytes_per_second = excluded.bytes_per_second, updated_at = excluded.updated_at`;

function storedQuotaOf(row: QuotaRow): StoredQuota {
  // The table keeps them below 2^53.
  const rate = (value: bigint | null): number | null => (value === null ? null : Number(value));
  return {
    eventsPerSecond: rate(row.events_per_second),
    bytesPerSecond: rate(row.bytes_per_second),
    updatedAtMs: row.updated_at,
  };
}
