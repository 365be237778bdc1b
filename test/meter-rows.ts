// Definitions of meters in ClickHouse without a log, with what the aggregator makes of them.
import { refreshRules } from '../aggregator/rules-store.ts';
import type { ClickHouse, Guard } from '../runtime/clickhouse.ts';

/** Nobody else writes. */
export const UNFENCED: Guard = { condition: '1', params: {} };

/** Rows of `meters`, and the rules that follow from them. */
export async function insertMeters(
  ch: ClickHouse,
  rows: readonly ({ readonly shard: number } & Readonly<Record<string, unknown>>)[],
): Promise<void> {
  await ch.insertJson('meters', rows);
  for (const shard of new Set(rows.map((row) => row.shard))) await refreshRules(ch, shard, UNFENCED);
}
