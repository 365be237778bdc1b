/**
 * Compares rollups with the raw events they are made of, without ever reading everything at once.
 *
 * 1. Note. Every flush moves the watermark of its shards. Hours of a tenant with a raw or rollup row between what
 *    was noted last and the watermark are put into `check_waiting`. A crash behind this notes them again.
 * 2. Compare. Waiting hours, the longest waiting first, as many as the budget lets. What differs is a finding and
 *    stays one until a later comparison of the same hour is clean; then the hour waits no more. A large hour is put
 *    off while it is being written to, a quarter of an hour at most: it would be compared again when it is over, and
 *    reading millions of rows beside those who write them costs both.
 * 3. Sweep. What is left of the budget goes into a comparison of all hours that are over, from the oldest on, which
 *    finds what changed without anybody having counted something: a lost part, a hand in the tables.
 *
 * No false alarm: both sides are read up to positions that were durable before the reading began. A rollup row from
 * beyond them is being written at this moment; its hour is noted again by the flush that writes it. The comparison
 * is by meter, subject and hour, over all groups and shards, in count, sum, least, greatest and latest value:
 * `aggregator/checks/rollup-equals-raw.sql` is the full form.
 *
 * Several processes may do this at once. That costs twice and changes nothing: a waiting hour is taken away only
 * under the revision that was compared, and cursors and the sweep only go forward.
 */
import type { ClickHouse } from '../runtime/clickhouse.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Db, Postgres } from '../runtime/postgres.ts';
import { formatInstant, HOUR_MS, hourStart } from '../contract/window.ts';
import { COMPARE, MOVING, NOTE, SPAN, WEIGH } from './rollup-check-sql.ts';
import { readWatermarks, type Positions } from './usage-totals.ts';

export interface CheckContext {
  readonly pg: Postgres;
  readonly ch: ClickHouse;
  readonly clock: Clock;
}

export interface CheckBudget {
  /** Raw rows to compare; the last step may go beyond it. */
  readonly rows: number;
  /** After so long no step is begun. */
  readonly ms: number;
}

export interface CheckDone {
  readonly rows: number;
  readonly hours: number;
}

/** Changed hours noted at once; more are left to the sweep, and the answer says so. */
const NOTED_MAX = 50_000;
/** Waiting hours of one tenant compared in one query, all of a month. */
const HOURS_MAX = 250;
/** Raw rows compared in one query, unless a single hour has more. */
const STEP_ROWS = 1_000_000;
/** An hour with more raw rows than this is put off until nothing was written to it for so long, or it waits too long. */
const LARGE_ROWS = 200_000;
const QUIET_MS = 60_000;
const PUT_OFF_MS_MAX = 900_000;
/** Findings kept of one query: with more, something is wrong at large, and these are where. */
const FINDINGS_MAX = 1_000;

/** Step 1. */
export async function noteChanges({ pg, ch, clock }: CheckContext): Promise<void> {
  const noted = new Map(
    (
      await pg.query<{ shard: number; position: string }>(
        'SELECT shard, position::text AS position FROM ledger.check_cursors',
      )
    ).map((row) => [row.shard, BigInt(row.position)]),
  );
  const ranges = (await readWatermarks(ch))
    .map(({ shard, position }) => ({ shard, after: noted.get(shard) ?? 0n, until: position }))
    .filter(({ after, until }) => until > after);
  if (ranges.length === 0) return;
  const hours = await ch.rows<{ tenant: string; at: number | string }>(NOTE, {
    shards: ranges.map((range) => range.shard),
    after: ranges.map((range) => range.after),
    until: ranges.map((range) => range.until),
    least: ranges.reduce((least, { after }) => (after < least ? after : least), ranges[0]!.after),
    most: ranges.reduce((most, { until }) => (until > most ? until : most), 0n),
    limit: NOTED_MAX + 1,
  });
  const now = formatInstant(clock.now());
  await pg.transaction(async (tx) => {
    if (hours.length > NOTED_MAX) await tx.query('UPDATE ledger.check_sweep SET skipped_at = $1', [now]);
    else if (hours.length > 0) {
      await tx.query(
        `INSERT INTO ledger.check_waiting AS w (tenant, hour, noted_at, changed_at)
         SELECT u.tenant, u.hour, $3, $3 FROM unnest($1::text[], $2::timestamptz[]) AS u (tenant, hour)
         ORDER BY u.tenant, u.hour
         ON CONFLICT (tenant, hour) DO UPDATE SET revision = w.revision + 1, changed_at = excluded.changed_at`,
        [hours.map((row) => row.tenant), hours.map((row) => formatInstant(Number(row.at) * 1_000)), now],
      );
    }
    await tx.query(
      `INSERT INTO ledger.check_cursors AS c (shard, position) SELECT * FROM unnest($1::integer[], $2::numeric[])
       ON CONFLICT (shard) DO UPDATE SET position = greatest(c.position, excluded.position)`,
      [ranges.map((range) => range.shard), ranges.map((range) => range.until.toString())],
    );
  });
}

/** All steps once, within a budget; changes come before the sweep. Returns the raw rows that were compared. */
export async function checkRollups(
  ctx: CheckContext,
  budget: CheckBudget,
  sweepEveryMs: number,
): Promise<number> {
  const startedMs = ctx.clock.now();
  await noteChanges(ctx);
  const { rows } = await checkWaiting(ctx, null, budget, { puttingOff: true });
  const left = { rows: budget.rows - rows, ms: budget.ms - (ctx.clock.now() - startedMs) };
  return rows + (await sweep(ctx, left, sweepEveryMs)).rows;
}

interface Waiting {
  readonly tenant: string;
  readonly hour: number;
  readonly revision: bigint;
  readonly noted_at: number;
  readonly changed_at: number;
}

/** Step 2, of one tenant or (null) of all. Whoever asks for a report has everything compared: nothing is put off. */
export async function checkWaiting(
  ctx: CheckContext,
  tenant: string | null,
  budget: CheckBudget,
  { puttingOff = false }: { readonly puttingOff?: boolean } = {},
): Promise<CheckDone> {
  const { pg, ch, clock } = ctx;
  const startedMs = clock.now();
  let done: CheckDone = { rows: 0, hours: 0 };
  while (done.rows < budget.rows && clock.now() - startedMs < budget.ms) {
    // The tenant and month that waits longest.
    const waiting = await pg.query<Waiting>(
      `WITH oldest AS (
         SELECT tenant, date_trunc('month', hour, 'UTC') AS month FROM ledger.check_waiting
         WHERE ($1::text IS NULL OR tenant = $1) AND ($3::timestamptz IS NULL OR put_off_until IS NULL OR put_off_until <= $3)
         ORDER BY coalesce(tried_at, noted_at), tenant, hour LIMIT 1)
       SELECT w.tenant, w.hour, w.revision, w.noted_at, coalesce(w.changed_at, w.noted_at) AS changed_at
       FROM ledger.check_waiting w, oldest o
       WHERE w.tenant = o.tenant AND w.hour >= o.month AND w.hour < o.month + interval '1 month'
         AND ($3::timestamptz IS NULL OR w.put_off_until IS NULL OR w.put_off_until <= $3)
       ORDER BY coalesce(w.tried_at, w.noted_at), w.hour LIMIT $2`,
      [tenant, HOURS_MAX, puttingOff ? formatInstant(clock.now()) : null],
    );
    const [first] = waiting;
    if (first === undefined) return done;
    // Behind the reading of what waits: what was noted lies before these.
    const marks = await readMarks(ch);
    const weights = await ch.rows<{ at: number | string; events: string }>(WEIGH, {
      tenant: first.tenant,
      isList: 1,
      hours: waiting.map(({ hour }) => second(hour)),
      from: 0,
      to: 0,
    });
    const weight = new Map(weights.map((row) => [Number(row.at) * 1_000, Number(row.events)]));
    const nowMs = clock.now();
    const isPutOff = (one: Waiting): boolean =>
      puttingOff &&
      (weight.get(one.hour) ?? 0) > LARGE_ROWS &&
      nowMs - one.changed_at < QUIET_MS &&
      nowMs - one.noted_at < PUT_OFF_MS_MAX;
    const later = waiting.filter(isPutOff);
    if (later.length > 0) await putOff(pg, later, nowMs + QUIET_MS);
    let rows = 0;
    const chosen: Waiting[] = [];
    for (const one of waiting.filter((each) => !isPutOff(each))) {
      const next = weight.get(one.hour) ?? 0;
      if (chosen.length > 0 && rows + next > STEP_ROWS) break;
      chosen.push(one);
      rows += next;
    }
    if (chosen.length === 0) continue;
    const hours = chosen.map((one) => one.hour);
    const scope: Scope = { tenant: first.tenant, hours, from: 0, to: 0 };
    const found = await compareWaiting(ctx, scope, marks);
    await pg.transaction(async (tx) => {
      await recordFindings(ch, tx, scope, marks, found, clock.now());
      await tx.query(
        `DELETE FROM ledger.check_waiting w USING unnest($2::timestamptz[], $3::bigint[]) AS done (hour, revision)
         WHERE w.tenant = $1 AND w.hour = done.hour AND w.revision = done.revision`,
        [first.tenant, hours.map(formatInstant), chosen.map((one) => one.revision.toString())],
      );
    });
    done = { rows: done.rows + rows, hours: done.hours + chosen.length };
  }
  return done;
}

/** Hours of one tenant. */
async function putOff(pg: Postgres, hours: readonly Waiting[], untilMs: number): Promise<void> {
  await pg.query(
    'UPDATE ledger.check_waiting SET put_off_until = $3 WHERE tenant = $1 AND hour = ANY($2::timestamptz[])',
    [hours[0]!.tenant, hours.map(({ hour }) => formatInstant(hour)), formatInstant(untilMs)],
  );
}

interface Sweep {
  readonly started_at: number | null;
  readonly next_hour: number | null;
  readonly end_hour: number | null;
}

/** Step 3. A new sweep begins no earlier than `everyMs` after the last one began. */
export async function sweep(ctx: CheckContext, budget: CheckBudget, everyMs: number): Promise<CheckDone> {
  const { pg, ch, clock } = ctx;
  const startedMs = clock.now();
  let done: CheckDone = { rows: 0, hours: 0 };
  while (done.rows < budget.rows && clock.now() - startedMs < budget.ms) {
    const [state] = await pg.query<Sweep>('SELECT started_at, next_hour, end_hour FROM ledger.check_sweep');
    if (state === undefined) throw new Error('the state of the sweep is missing from ledger.check_sweep');
    const { next_hour: from, end_hour: end } = state;
    if (from === null || end === null) {
      if (state.started_at !== null && clock.now() - state.started_at < everyMs) return done;
      if (!(await beginSweep(ctx))) return done;
      continue;
    }
    const marks = await readMarks(ch);
    const until = Math.min(monthAfter(from), end);
    const weights = await ch.rows<{ at: number | string; events: string }>(WEIGH, {
      tenant: '',
      isList: 0,
      hours: [],
      from: from / 1_000,
      to: until / 1_000,
    });
    let rows = 0;
    let to = until;
    for (const row of weights) {
      const hour = Number(row.at) * 1_000;
      if (rows > 0 && rows + Number(row.events) > STEP_ROWS) {
        to = hour;
        break;
      }
      rows += Number(row.events);
    }
    const scope: Scope = { tenant: '', hours: [], from, to };
    const found = await compare(ch, scope, marks);
    await pg.transaction(async (tx) => {
      await recordFindings(ch, tx, scope, marks, found, clock.now());
      // Where another process went on meanwhile, its place stays.
      if (to < end) {
        await tx.query('UPDATE ledger.check_sweep SET next_hour = $2 WHERE next_hour = $1', [
          formatInstant(from),
          formatInstant(to),
        ]);
      } else {
        await tx.query(
          `UPDATE ledger.check_sweep SET next_hour = NULL, end_hour = NULL, completed_at = $2,
             completed_started_at = started_at WHERE next_hour = $1`,
          [formatInstant(from), formatInstant(clock.now())],
        );
      }
    });
    done = { rows: done.rows + rows, hours: done.hours + (to - from) / HOUR_MS };
  }
  return done;
}

/**
 * False when there is nothing to sweep: then it is complete at once. The hour that goes on is left out, for whatever is
 * written to it is noted, and it would be compared while it changes.
 */
async function beginSweep({ pg, ch, clock }: CheckContext): Promise<boolean> {
  const nowMs = clock.now();
  const now = formatInstant(nowMs);
  const [span] = await ch.rows<{ first: string | number; last: string | number; hours: string | number }>(
    SPAN,
  );
  const endMs = span === undefined ? 0 : Math.min(Number(span.last) * 1_000 + HOUR_MS, hourStart(nowMs));
  if (span === undefined || Number(span.hours) === 0 || Number(span.first) * 1_000 >= endMs) {
    await pg.query(
      `UPDATE ledger.check_sweep SET started_at = $1, completed_at = $1, completed_started_at = $1
       WHERE next_hour IS NULL`,
      [now],
    );
    return false;
  }
  await pg.query(
    `UPDATE ledger.check_sweep SET started_at = $1, first_hour = $2, next_hour = $2, end_hour = $3
     WHERE next_hour IS NULL`,
    [now, formatInstant(Number(span.first) * 1_000), formatInstant(endMs)],
  );
  return true;
}

/** Hours of a tenant, or of all ('') a range. */
interface Scope {
  readonly tenant: string;
  readonly hours: readonly number[];
  readonly from: number;
  readonly to: number;
}

interface Found {
  readonly tenant: string;
  readonly meter: string;
  readonly subject: string;
  readonly at: number | string;
  readonly detail: Readonly<Record<string, string>>;
}

/** What cannot be compared goes on waiting, behind the others, and is an error: it must not hold them up in silence. */
async function compareWaiting(
  { pg, ch, clock }: CheckContext,
  scope: Scope,
  marks: Positions,
): Promise<Found[]> {
  try {
    return await compare(ch, scope, marks);
  } catch (error) {
    await pg.query(
      'UPDATE ledger.check_waiting SET tried_at = $3 WHERE tenant = $1 AND hour = ANY($2::timestamptz[])',
      [scope.tenant, scope.hours.map(formatInstant), formatInstant(clock.now())],
    );
    throw error;
  }
}

function compare(ch: ClickHouse, scope: Scope, marks: Positions): Promise<Found[]> {
  return ch.rows<Found>(COMPARE, { ...parametersOf(scope, marks), limit: FINDINGS_MAX });
}

function parametersOf(scope: Scope, marks: Positions): Record<string, unknown> {
  return {
    tenant: scope.tenant,
    isList: scope.hours.length > 0 ? 1 : 0,
    hours: scope.hours.map(second),
    from: scope.from / 1_000,
    to: scope.to / 1_000,
    shards: [...marks.keys()],
    marks: [...marks.values()],
  };
}

async function recordFindings(
  ch: ClickHouse,
  tx: Db,
  scope: Scope,
  marks: Positions,
  found: readonly Found[],
  nowMs: number,
): Promise<void> {
  const within = `($1 = '' OR tenant = $1) AND (cardinality($2::timestamptz[]) = 0 OR hour = ANY($2::timestamptz[]))
    AND ($3::timestamptz IS NULL OR (hour >= $3 AND hour < $4))`;
  const isRange = scope.hours.length === 0;
  const bounds = [
    scope.tenant,
    scope.hours.map(formatInstant),
    isRange ? formatInstant(scope.from) : null,
    isRange ? formatInstant(scope.to) : null,
  ];
  const before = await tx.query<{ tenant: string; hour: number; meter: string; subject: string }>(
    `SELECT tenant, hour, meter, subject FROM ledger.check_findings WHERE ${within}`,
    bounds,
  );
  const keyOf = (one: { tenant: string; meter: string; subject: string }, hour: number): string =>
    JSON.stringify([one.tenant, hour, one.meter, one.subject]);
  const present = new Set(found.map((one) => keyOf(one, Number(one.at) * 1_000)));
  const absent = before.filter((one) => !present.has(keyOf(one, one.hour)));
  if (absent.length > 0 && found.length < FINDINGS_MAX) {
    // What is being written at this moment was not compared: its findings stay.
    const moving = await ch.rows<{ tenant: string; meter: string; subject: string; at: number | string }>(
      MOVING,
      parametersOf(scope, marks),
    );
    const inMotion = new Set(moving.map((one) => keyOf(one, Number(one.at) * 1_000)));
    const clean = absent.filter((one) => !inMotion.has(keyOf(one, one.hour)));
    await tx.query(
      `DELETE FROM ledger.check_findings f
       USING unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[]) AS clean (tenant, hour, meter, subject)
       WHERE f.tenant = clean.tenant AND f.hour = clean.hour AND f.meter = clean.meter AND f.subject = clean.subject`,
      [
        clean.map((one) => one.tenant),
        clean.map((one) => formatInstant(one.hour)),
        clean.map((one) => one.meter),
        clean.map((one) => one.subject),
      ],
    );
  }
  if (found.length === 0) return;
  await tx.query(
    `INSERT INTO ledger.check_findings AS f (tenant, hour, meter, subject, detail, first_seen_at, last_seen_at)
     SELECT u.tenant, u.hour, u.meter, u.subject, u.detail::jsonb, $6, $6
     FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[])
       AS u (tenant, hour, meter, subject, detail)
     ON CONFLICT (tenant, hour, meter, subject)
       DO UPDATE SET detail = excluded.detail, last_seen_at = excluded.last_seen_at`,
    [
      found.map((one) => one.tenant),
      found.map((one) => formatInstant(Number(one.at) * 1_000)),
      found.map((one) => one.meter),
      found.map((one) => one.subject),
      found.map((one) => JSON.stringify(one.detail)),
      formatInstant(nowMs),
    ],
  );
}

async function readMarks(ch: ClickHouse): Promise<Positions> {
  return new Map((await readWatermarks(ch)).map(({ shard, position }) => [shard, position]));
}

/** What the comparisons have come to, for one tenant or (null) for all. */
export interface CheckState {
  readonly findings: bigint;
  readonly waitingHours: bigint;
  /** Since when the hour has waited that waits longest. */
  readonly waitingSinceMs: number | null;
  /** The sweep that completed last began then, and speaks for all that was counted before. */
  readonly sweptToMs: number | null;
  /** Of the running sweep, in thousandths; null when none is running. */
  readonly sweepPermille: number | null;
  /** Changes were left to a sweep that has not completed yet. */
  readonly isIncomplete: boolean;
}

export async function readCheckState(pg: Db, tenant: string | null): Promise<CheckState> {
  const [row] = await pg.query<{
    findings: bigint;
    waiting: bigint;
    waiting_since: number | null;
    swept_to: number | null;
    permille: number | null;
    incomplete: boolean;
  }>(
    `SELECT
       (SELECT count(*) FROM ledger.check_findings WHERE $1::text IS NULL OR tenant = $1) AS findings,
       (SELECT count(*) FROM ledger.check_waiting WHERE $1::text IS NULL OR tenant = $1) AS waiting,
       (SELECT min(noted_at) FROM ledger.check_waiting WHERE $1::text IS NULL OR tenant = $1) AS waiting_since,
       completed_started_at AS swept_to,
       CASE WHEN next_hour IS NULL THEN NULL ELSE (1000 * extract(epoch FROM next_hour - first_hour)
         / extract(epoch FROM end_hour - first_hour))::int END AS permille,
       skipped_at IS NOT NULL AND (completed_started_at IS NULL OR completed_started_at <= skipped_at) AS incomplete
     FROM ledger.check_sweep`,
    [tenant],
  );
  if (row === undefined) throw new Error('the state of the sweep is missing from ledger.check_sweep');
  return {
    findings: row.findings,
    waitingHours: row.waiting,
    waitingSinceMs: row.waiting_since,
    sweptToMs: row.swept_to,
    sweepPermille: row.permille,
    isIncomplete: row.incomplete,
  };
}

/** The first instant of the next month. */
function monthAfter(timeMs: number): number {
  const time = new Date(timeMs);
  return Date.UTC(time.getUTCFullYear(), time.getUTCMonth() + 1, 1);
}

/** As ClickHouse reads a DateTime. */
const second = (ms: number): string => formatInstant(ms).slice(0, 19).replace('T', ' ');
