/** The rules by which events count, worked out anew where a definition or a backfill changed them. */
import { guardPredicate, type ClickHouse, type Guard } from '../runtime/clickhouse.ts';

const REFRESH = `
  INSERT INTO rule_sets
  SELECT * FROM derived_rules
  WHERE shard = {shard:UInt16} AND (tenant, meter, version, changes) NOT IN (
    SELECT tenant, meter, version, changes FROM rule_sets WHERE shard = {shard:UInt16}
  ) AND FENCE`;

/** Those of a shard that are older than what `meters` and `backfills` say. Repeating it changes nothing. */
export async function refreshRules(ch: ClickHouse, shard: number, fence: Guard): Promise<void> {
  await ch.command(REFRESH.replace('FENCE', guardPredicate(fence)), { shard, ...fence.params });
}
