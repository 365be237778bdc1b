/** The third tier: identities that the filters did not rule out, asked for in `events`. Exact at any size. */
import { formatIdentity, parseIdentity } from '../../contract/identity.ts';
import type { ClickHouse } from '../../runtime/clickhouse.ts';
import { seenFrom } from '../position-in-shard.ts';
import type { DedupeIndex } from './index.ts';

/** Identities asked for at a time: a query's text has a limit. */
const LOOKUP_IDENTITIES = 2_000;

const QUERY = (list: string): string =>
  `SELECT toString(identity) AS id, toString(min(events.position)) AS first,
     argMin(payload_hash, events.position) AS payload
   FROM events WHERE shard = {shard:UInt16} AND identity IN (${list}) GROUP BY identity
   SETTINGS max_query_size = 1000000`;

/** Enters what is there of these events' identities into the index. */
export async function lookUpIdentities(
  ch: ClickHouse,
  shard: number,
  incarnation: number,
  identities: Uint32Array,
  events: readonly number[],
  index: DedupeIndex,
): Promise<void> {
  for (let from = 0; from < events.length; from += LOOKUP_IDENTITIES) {
    // Only digits and hyphens of our own making stand in the text.
    const list = events
      .slice(from, from + LOOKUP_IDENTITIES)
      .map((event) => `'${formatIdentity(identities, event * 4)}'`)
      .join(',');
    const rows = await ch.rows<{ id: string; first: string; payload: string }>(QUERY(list), { shard });
    for (const { id, first, payload } of rows) {
      const hash = BigInt(payload);
      const words = Uint32Array.of(Number(hash & 0xffff_ffffn), Number(hash >> 32n));
      index.put(parseIdentity(id), 0, seenFrom(incarnation, BigInt(first)), words, 0);
    }
  }
}
