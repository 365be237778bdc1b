// Raw and refused events as rows that a test makes up, with `id` and `data` as they are read. The tables keep these in
// other columns (aggregator/schema/0010-narrow-events.sql), and a row of JSON cannot hold the byte that ends a value.
import type { ClickHouse } from '../runtime/clickhouse.ts';

const TYPES: Readonly<Record<string, string>> = {
  tenant: 'String',
  verdict: 'String',
  code: 'String',
  hour: "DateTime('UTC')",
  type: 'String',
  subject: 'String',
  time: "DateTime64(3, 'UTC')",
  identity: 'UUID',
  source: 'String',
  id: 'String',
  data: 'Map(String, String)',
  payload_hash: 'UInt64',
  accepted_at: "DateTime64(3, 'UTC')",
  shard: 'UInt16',
  position: 'UInt64',
};

/** The columns that a column is kept in, and what each of them is made of. */
const KEPT: Readonly<Record<string, readonly (readonly [string, string])[]>> = {
  id: [['id_text', 'id']],
  data: [
    ['data_paths', "arrayStringConcat(arrayMap(path -> concat(path, '\\xFF'), mapKeys(data)))"],
    ['data_values', "arrayStringConcat(arrayMap(value -> concat(value, '\\xFF'), mapValues(data)))"],
  ],
};

/** Inserts rows with any of the columns above. */
export async function insertEventRows(
  ch: Pick<ClickHouse, 'command'>,
  table: 'events' | 'refused_events',
  rows: readonly object[],
): Promise<void> {
  if (rows.length === 0) return;
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const kept = names.flatMap((name) => KEPT[name] ?? [[name, name] as const]);
  const lines = rows.map((row) =>
    JSON.stringify(row, (_, value: unknown) => (typeof value === 'bigint' ? value.toString() : value)),
  );
  const structure = names.map((name) => `${name} ${TYPES[name]!}`).join(', ');
  const hex = Buffer.from(lines.join('\n')).toString('hex');
  await ch.command(
    `INSERT INTO ${table} (${kept.map(([column]) => column).join(', ')})
     SELECT ${kept.map(([, from]) => from).join(', ')}
     FROM format(JSONEachRow, '${structure.replaceAll("'", "''")}', unhex('${hex}'))
     SETTINGS max_query_size = 100000000`,
  );
}
