/**
 * Usage queries over a month of raw events and their rollups: how long an answer takes, what is read for it, and what it
 * costs ClickHouse. Each kind of question is asked again and again, of one subject after the other, on its own and with
 * nothing else going on. The API's own work (key, JSON) is not in it.
 *
 * Where raw events and rollups answer the same question, or rollups before and after they were merged, the answers are
 * compared: one that differs is an error.
 */
import { connectClickHouse, QueryError, type ClickHouse } from '../../runtime/clickhouse.ts';
import { migrateClickHouse } from '../../runtime/migrate.ts';
import { usagePage, type UsageRow } from '../../ledger/api/usage/query.ts';
import { startEngines } from '../../test/engines.ts';
import { treeCpuMs } from '../canonical/processes.ts';
import type { QueriesFigure, QueryFigure } from './figures.ts';
import { letMonthRest, loadMonth } from './month.ts';
import type { Month } from './month-sql.ts';
import { queryKinds, unmergedKinds, type QueryKind } from './query-kinds.ts';

/** As GET /v1/usage bounds a query by default; here one may take longer, and it is told how long. */
const QUERY_SECONDS_MAX = 60;
const REQUEST_TIMEOUT_MS = 900_000;
const PAGE_ROWS = 1_000;

export interface QueryRun {
  readonly month: Month;
  /** Of each kind. */
  readonly runs: number;
  /** After which a kind is asked no more, once it has an answer. */
  readonly secondsMax: number;
  readonly onProgress: (text: string) => void;
  /** What ends the engines before their time. */
  readonly onEngines: (stop: () => Promise<void>) => void;
}

export async function runQueries(o: QueryRun): Promise<QueriesFigure> {
  const { month, onProgress } = o;
  const engines = await startEngines({ clickhouse: true });
  o.onEngines(() => engines.stop());
  const url = engines.clickhouseUrl;
  const ch = connectClickHouse({ url, name: 'bench', requestTimeoutMs: REQUEST_TIMEOUT_MS });
  const asking = connectClickHouse({
    url,
    name: 'bench',
    requestTimeoutMs: REQUEST_TIMEOUT_MS,
    settings: { max_execution_time: QUERY_SECONDS_MAX },
  });
  try {
    const directory = new URL('../../aggregator/schema/', import.meta.url);
    await migrateClickHouse(ch, { directory, component: 'aggregator' });
    const began = performance.now();
    await loadMonth(ch, month, onProgress);
    const loadSeconds = (performance.now() - began) / 1_000;
    const cpu = (): number => treeCpuMs(engines.clickhouse.engine().pid);
    const queries: QueryFigure[] = [];
    const answers = new Map<string, readonly string[]>();
    const askAll = async (kinds: readonly QueryKind[]): Promise<void> => {
      for (const kind of kinds) {
        onProgress(`${kind.name}, ${kind.reads}`);
        const { figure, answered } = await ask(asking, kind, cpu, o);
        queries.push(figure);
        compare(kind, answered, answers);
        answers.set(`${kind.name}, ${kind.reads}`, answered);
      }
    };
    await askAll(unmergedKinds(month));
    await letMonthRest(ch, onProgress);
    await askAll(queryKinds(month));
    const { events, subjects } = month;
    return { events, subjects, ...(await sizesOf(ch)), loadSeconds, queries };
  } finally {
    await Promise.allSettled([ch.close(), asking.close()]);
    await engines.stop();
  }
}

interface Asked {
  readonly figure: QueryFigure;
  /** By query of the kind, as far as it was asked. */
  readonly answered: readonly string[];
}

async function ask(
  ch: ClickHouse,
  { name, reads, queries }: QueryKind,
  cpu: () => number,
  { runs, secondsMax }: QueryRun,
): Promise<Asked> {
  const took: number[] = [];
  const answered: string[] = [];
  let [rowsRead, answerRows] = [0, 0];
  const head = { name, reads };
  try {
    // The first is not measured: it reads what others then find in memory.
    await answerOf(ch, queries[0]!);
    const [cpuBefore, began] = [cpu(), performance.now()];
    for (let run = 0; run < runs; run++) {
      if (run > 0 && performance.now() - began > secondsMax * 1_000) break;
      // A stride that is no divisor of any number of queries: also a run that is cut short asks of all sizes.
      const which = (run * 7) % queries.length;
      const answer = await answerOf(ch, queries[which]!);
      took.push(answer.ms);
      rowsRead += answer.rowsRead;
      answerRows = Math.max(answerRows, answer.rows.length);
      answered[which] = JSON.stringify(answer.rows);
    }
    const cpuMs = (cpu() - cpuBefore) / took.length;
    took.sort((a, b) => a - b);
    const rank = (part: number): number => took[Math.ceil(took.length * part) - 1]!;
    const means = { rowsRead: rowsRead / took.length, cpuMs };
    const figure = { ...head, runs: took.length, answerRows, p50Ms: rank(0.5), p99Ms: rank(0.99), ...means };
    return { figure: { ...figure, refused: '' }, answered };
  } catch (error) {
    if (!(error instanceof QueryError)) throw error;
    const refused = `code ${error.code} of ClickHouse`;
    const none = { runs: 0, answerRows: 0, p50Ms: null, p99Ms: null, rowsRead: 0, cpuMs: 0 };
    return { figure: { ...head, ...none, refused }, answered: [] };
  }
}

interface Answer {
  readonly data: readonly UsageRow[];
  readonly statistics: { readonly rows_read: number };
}

async function answerOf(
  ch: ClickHouse,
  query: QueryKind['queries'][number],
): Promise<{ ms: number; rowsRead: number; rows: readonly UsageRow[] }> {
  const { sql, params } = usagePage(query, null, PAGE_ROWS);
  const began = performance.now();
  const chunks: Buffer[] = [];
  for await (const chunk of await ch.stream(sql, params, 'JSON')) chunks.push(chunk as Buffer);
  const { data, statistics } = JSON.parse(Buffer.concat(chunks).toString()) as Answer;
  return { ms: performance.now() - began, rowsRead: statistics.rows_read, rows: data };
}

/** Answers to the same queries from raw events, or from rollups in one part, and from rollups, as far as both were asked. */
function compare(
  { name, reads, equals }: QueryKind,
  answered: readonly string[],
  answers: ReadonlyMap<string, readonly string[]>,
): void {
  if (equals === undefined) return;
  const others = answers.get(`${equals}, rollup`) ?? [];
  answered.forEach((answer, at) => {
    const other = others[at];
    if (other !== undefined && other !== answer)
      throw new Error(`${name}: ${reads} rows say ${answer}, and '${equals}' says ${other}`);
  });
}

async function sizesOf(ch: ClickHouse): Promise<Pick<QueriesFigure, 'rollupRows' | 'parts' | 'diskBytes'>> {
  const rows = await ch.rows<{ table: string; count: string; parts: string; bytes: string }>(
    `SELECT table, toString(sum(rows)) AS count, toString(count()) AS parts, toString(sum(bytes_on_disk)) AS bytes
     FROM system.parts WHERE active AND database = currentDatabase() AND table IN ('events', 'rollup_hour')
     GROUP BY table`,
  );
  const of = (table: string, column: 'count' | 'parts' | 'bytes'): number =>
    Number(rows.find((row) => row.table === table)?.[column] ?? 0);
  return {
    rollupRows: of('rollup_hour', 'count'),
    parts: { events: of('events', 'parts'), rollups: of('rollup_hour', 'parts') },
    diskBytes: { events: of('events', 'bytes'), rollups: of('rollup_hour', 'bytes') },
  };
}
