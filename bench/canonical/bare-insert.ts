/**
 * What ClickHouse alone takes: the rows that the pipeline has just written, raw and rollups, in Native columns that
 * were encoded beforehand, in inserts as large as what comes in a second, into empty tables of the same schema.
 *
 * The rows are taken from the tables themselves, in the order of their logs. A rollup row is written anew by every
 * flush that changes it, and its table keeps the last one only; so they are added up again over the events of one
 * flush, which gives as many rows with the same keys.
 */
import type { Readable } from 'node:stream';
import type { ClickHouse } from '../../runtime/clickhouse.ts';
import { measured, type Ceiling } from './ceiling.ts';
import { EVENT_TYPE, MODELS, TENANT } from './workload.ts';
import type { World } from './world.ts';

/** About what the aggregator has in a flush when it is busy. */
const FLUSH_EVENTS = 200_000;
const EVENTS_MAX = 1_000_000;
const SETTINGS = { async_insert: 0, optimize_on_insert: 0, max_partitions_per_insert_block: 0 };
const QUIET_WITHIN_MS = 30_000;
const QUIET_STEP_MS = 250;

const SAMPLE = 'bench_sample';
const RAW = 'bench_events';
const ROLLUPS = 'bench_rollups';

/** What each event of the workload adds to which meter, as tuples of meter, dimensions and quantity. */
const CONTRIBUTIONS = `arrayConcat(
  [('input_tokens', [data['model']], data['input_tokens']), ('output_tokens', [data['model']], data['output_tokens']),
   ('largest_input', [], data['input_tokens']), ('users', [], '1')],
  if(data['model'] = '${MODELS[0]}', [], [('requests', [], '1')]))`;

/** By column of rollup_hour; another column gets its type's default. */
const ROLLUP_VALUES: Readonly<Record<string, string>> = {
  tenant: 'tenant',
  meter: 'c.1',
  subject: 'subject',
  hour: 'hour',
  dimensions: 'c.2',
  shard: 'shard',
  value_count: 'count()',
  value_sum: 'sum(toDecimal128(c.3, 9))',
  value_min: 'min(toDecimal128(c.3, 9))',
  value_max: 'max(toDecimal128(c.3, 9))',
  value_latest: 'argMax(toDecimal128(c.3, 9), (time, position))',
  latest_time: 'max(time)',
  latest_position: 'max(position)',
  position: 'max(position)',
};

interface Insert {
  readonly columns: readonly string[];
  readonly body: Uint8Array;
  readonly rows: number;
}

interface Column {
  readonly name: string;
  readonly type: string;
}

export interface BareInsert extends Ceiling {
  /** Rollup rows an event, in flushes of the largest size. */
  readonly rollupRowsPerEvent: number;
  readonly flushEvents: number;
}

export async function bareInsert(world: World): Promise<BareInsert> {
  const { ch } = world;
  const drop = async (): Promise<void> => {
    for (const table of [SAMPLE, RAW, ROLLUPS]) await ch.command(`DROP TABLE IF EXISTS ${table} SYNC`);
  };
  await drop();
  const raw = await columnsOf(ch, 'events');
  const rollups = await columnsOf(ch, 'rollup_hour');
  await takeSample(world, raw);
  const [count] = await ch.rows<{ total: string }>(`SELECT toString(count()) AS total FROM ${SAMPLE}`);
  const total = Number(count!.total);
  const flushes = Math.max(1, Math.round(total / FLUSH_EVENTS));
  const inserts: { raw: Insert; rollups: Insert }[] = [];
  for (let flush = 0; flush < flushes; flush++) {
    const where = `WHERE flush % ${flushes} = ${flush}`;
    const names = raw.map(({ name }) => name).join(', ');
    const values = rollups.map(({ name, type }) =>
      name in ROLLUP_VALUES
        ? `${ROLLUP_VALUES[name]} AS r_${name}`
        : `defaultValueOfTypeName('${type}') AS r_${name}`,
    );
    inserts.push({
      raw: await encode(ch, raw, `SELECT ${names} FROM ${SAMPLE} ${where} ORDER BY shard, position`),
      rollups: await encode(
        ch,
        rollups,
        `SELECT ${rollups.map(({ name }) => `r_${name} AS ${name}`).join(', ')} FROM (
           SELECT ${values.join(', ')} FROM ${SAMPLE} ARRAY JOIN ${CONTRIBUTIONS} AS c ${where}
           GROUP BY tenant, c.1, subject, hour, c.2, shard)`,
      ),
    });
  }
  await ch.command(`DROP TABLE ${SAMPLE} SYNC`);
  await ch.command(`CREATE TABLE ${RAW} AS events`);
  await ch.command(`CREATE TABLE ${ROLLUPS} AS rollup_hour`);
  await quiet(ch);
  const pids = { own: process.pid, clickhouse: world.engines.clickhouse.engine().pid };
  const ceiling = await measured('insert', pids, async () => {
    for (const flush of inserts)
      await Promise.all(
        (
          [
            [RAW, flush.raw],
            [ROLLUPS, flush.rollups],
          ] as const
        ).map(([table, { columns, body, rows }]) => ch.insertNative(table, columns, body, rows, SETTINGS)),
      );
    return total;
  });
  await drop();
  const rollupRows = inserts.reduce((sum, flush) => sum + flush.rollups.rows, 0);
  return { ...ceiling, rollupRowsPerEvent: rollupRows / total, flushEvents: Math.round(total / flushes) };
}

/** What an insert names: columns that ClickHouse does not fill in itself. */
async function columnsOf(ch: ClickHouse, table: string): Promise<Column[]> {
  return ch.rows<Column>(
    `SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = {table:String}
     AND default_kind NOT IN ('MATERIALIZED', 'ALIAS', 'EPHEMERAL') ORDER BY position`,
    { table },
  );
}

/** The last events of each log, numbered in runs of as many as one flush takes of it. */
async function takeSample({ ch, shards }: World, raw: readonly Column[]): Promise<void> {
  const names = raw.map(({ name }) => name).join(', ');
  const least: bigint[] = [];
  for (let shard = 0; shard < shards; shard++) {
    const [row] = await ch.rows<{ least: string }>(
      `SELECT toString(min(position)) AS least FROM (
         SELECT position FROM events WHERE shard = {shard:UInt16} ORDER BY position DESC LIMIT {limit:UInt32})`,
      { shard, limit: Math.ceil(EVENTS_MAX / shards) },
    );
    least.push(BigInt(row!.least));
  }
  await ch.command(
    `CREATE TABLE ${SAMPLE} ENGINE = Memory AS
     SELECT ${names}, data, toUInt32(intDiv(row_number() OVER (PARTITION BY shard ORDER BY position) - 1,
       ${Math.ceil(FLUSH_EVENTS / shards)})) AS flush
     FROM events
     WHERE tenant = '${TENANT}' AND type = '${EVENT_TYPE}' AND position >= [${least.join(', ')}][shard + 1]`,
  );
}

async function encode(ch: ClickHouse, columns: readonly Column[], query: string): Promise<Insert> {
  const stream = await ch.stream(query, {}, 'Native');
  const body = await bytesOf(stream);
  const [count] = await ch.rows<{ total: string }>(`SELECT toString(count()) AS total FROM (${query})`);
  return { columns: columns.map(({ name }) => name), body, rows: Number(count!.total) };
}

async function bytesOf(stream: Readable): Promise<Uint8Array> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

/** Waits for merges to end, so that they are not counted as the insert's; not for ever. */
async function quiet(ch: ClickHouse): Promise<void> {
  const deadlineMs = performance.now() + QUIET_WITHIN_MS;
  while (performance.now() < deadlineMs) {
    const [row] = await ch.rows<{ merges: string }>('SELECT toString(count()) AS merges FROM system.merges');
    if (row!.merges === '0') return;
    await new Promise((resolve) => setTimeout(resolve, QUIET_STEP_MS));
  }
}
