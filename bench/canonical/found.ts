// Reads what the pipeline has come to: each total from the view that others read it by, and postings from the ledger's
// table. Subjects of the workload come as text, so that nothing that is compared was a float on its way.
import type { ClickHouse } from '../../runtime/clickhouse.ts';
import type { Postgres } from '../../runtime/postgres.ts';
import { PROBE, postingKey } from './customers.ts';
import type { FoundTotals, FoundValue } from './differences.ts';
import type { MeterKey } from './tally.ts';
import { TENANT } from './workload.ts';

// A sum of a count is its value_count, and so is what has no number.
const ROLLUPS = (value: string, group: string): string => `
  SELECT subject, ${group} AS model, toString(${value}) AS value
  FROM usage_rows WHERE tenant = '${TENANT}' AND meter = {meter:String} GROUP BY subject, model`;
const SUMS = ROLLUPS('sum(value_sum)', 'dimensions[1]');
const COUNTS = ROLLUPS('sum(value_count)', `''`);
const MAXIMA = ROLLUPS('max(value_max)', `''`);
const UNIQUE = `
  SELECT subject, '' AS model, toString(uniqExact(value)) AS value
  FROM contributions WHERE tenant = '${TENANT}' AND meter = {meter:String} GROUP BY subject`;

export async function readTotals(ch: ClickHouse, pg: Postgres): Promise<FoundTotals> {
  const values = (query: string, meter: MeterKey): Promise<FoundValue[]> => ch.rows(query, { meter });
  const [received] = await ch.rows<{ total: string }>(
    `SELECT toString(sum(count)) AS total FROM received WHERE tenant = '${TENANT}'`,
  );
  const verdicts = await ch.rows<{ verdict: string; total: string }>(
    `SELECT verdict, toString(sum(count)) AS total FROM verdicts WHERE tenant = '${TENANT}' GROUP BY verdict`,
  );
  return {
    received: BigInt(received!.total),
    verdicts: new Map(
      verdicts.filter(({ total }) => total !== '0').map(({ verdict, total }) => [verdict, BigInt(total)]),
    ),
    // One after the other: each of them reads all there is.
    meters: {
      input_tokens: await values(SUMS, 'input_tokens'),
      output_tokens: await values(SUMS, 'output_tokens'),
      requests: await values(COUNTS, 'requests'),
      largest_input: await values(MAXIMA, 'largest_input'),
      users: await values(UNIQUE, 'users'),
    },
    postings: await readPostings(pg),
  };
}

interface PostedRow {
  readonly customer: string;
  readonly price: MeterKey;
  readonly quantity: string;
  readonly cents: string;
}

export async function readPostings(pg: Postgres): Promise<FoundTotals['postings']> {
  const rows = await pg.query<PostedRow>(
    `SELECT customer, price_key AS price, trim_scale(sum(quantity))::text AS quantity, sum(amount)::text AS cents
     FROM ledger.usage_posted WHERE tenant = $1 AND price_key <> $2 GROUP BY customer, price_key`,
    [TENANT, PROBE],
  );
  return new Map(
    rows.map(({ customer, price, quantity, cents }) => [postingKey(customer, price), { quantity, cents }]),
  );
}
