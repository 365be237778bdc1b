import { parseObject } from './record.ts';

/**
 * What a tenant may send to one edge, a second. JSON under the tenant's name in the bucket of quotas; a tenant
 * without an entry has the defaults of the edge's configuration.
 */
export interface Quota {
  /** Null: no limit. */
  readonly eventsPerSecond: number | null;
  /** Body bytes as they came over the wire or out of their compression, whichever is more. Null: no limit. */
  readonly bytesPerSecond: number | null;
}

/** Null when it is not sound. */
export function parseQuota(text: string): Quota | null {
  const value = parseObject(text);
  if (value === null) return null;
  const { eventsPerSecond = null, bytesPerSecond = null } = value as Partial<Record<keyof Quota, unknown>>;
  return isRate(eventsPerSecond) && isRate(bytesPerSecond) ? { eventsPerSecond, bytesPerSecond } : null;
}

function isRate(value: unknown): value is number | null {
  return value === null || (Number.isSafeInteger(value) && (value as number) > 0);
}
