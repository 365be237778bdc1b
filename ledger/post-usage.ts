/**
 * Turns rollups into postings. One pass:
 *
 * 1. Read the watermark of every shard. What lies behind it is durable and complete.
 * 2. Read customers that asked to be read in full: those that are new, or have new subjects or new credit.
 * 3. Page through the subjects of customers that changed since the cursor of their shard. Subjects without a customer
 *    are not looked at; one is read in full once a customer gets it.
 * 4. For a chunk of customers, come to the absolute totals of each touched period (read whole, or by what changed where
 *    the loop knows the rest: known-usage.ts), rate them, and post what the price of the total now differs from what is
 *    posted (post-chunk.ts): in one serializable transaction, with the credit that covers it. A crash before its commit
 *    leaves nothing; one after it makes the next pass find no difference.
 * 5. After the last chunk, move the cursors. A crash before this reads the same changes again, for no difference.
 *
 * Unique counts do not follow from rollups: they are read from raw events, all those of a period, and cost more than
 * everything else together. So they are a part of their own, with cursors of their own, which a pass may leave to a
 * later one; what changed meanwhile is then read once.
 *
 * Totals are read from ClickHouse inside of the Postgres transaction that posts them, in the posting turn: two
 * ledgers take turns, and none can post older totals over newer ones. What a second one finds to do is nothing.
 *
 * Usage of a period that is invoiced already is posted all the same. The invoice keeps what it says; what came
 * later stands in `usage_posted` beside the invoiced part, and the next invoice takes it as an adjustment.
 */
import type { Db } from '../runtime/postgres.ts';
import { billedSubjects } from './billed-subjects.ts';
import { POSTING_LIMITS, type LedgerContext } from './context.ts';
import { expireGrants } from './grants.ts';
import type { KnownUsage } from './known-usage.ts';
import { postChunk, type PostingPart } from './post-chunk.ts';
import { takePostingTurn, takeWritingTurn, TURN_ATTEMPTS } from './posting-turn.ts';
import { readChanges, readWatermarks } from './usage-totals.ts';
import type { ChangedSubject, PositionRange, Watermark } from './usage-totals.ts';
import { workOfChanges, workOfRequests, type CustomerWork, type ReadRequest } from './usage-work.ts';

export interface PostResult {
  /** Subjects of customers that had changed, once for each month in which they had. */
  readonly changed: number;
  /** Quantities that were posted anew. */
  readonly posted: number;
  /** The watermarks up to which it is posted now. */
  readonly watermarks: readonly Watermark[];
}

/** What has cursors of its own. */
export type CursorPart = 'totals' | 'uniques';

const CURSOR_TABLES = { totals: 'ledger.usage_cursors', uniques: 'ledger.unique_cursors' } as const;

/** One pass over all shards, unique counts included. Throws when an engine is away; nothing is half done then. */
export async function postUsage(ctx: LedgerContext): Promise<PostResult> {
  const done = await postTotals(ctx);
  return { ...done, posted: done.posted + (await postUniques(ctx, done.watermarks)) };
}

/**
 * The same without unique counts, but those of customers that asked to be read in full. What earlier passes of the same
 * loop knew (`known`) saves reading it again; without it whole periods are read.
 */
export async function postTotals(ctx: LedgerContext, known: KnownUsage | null = null): Promise<PostResult> {
  const limits = ctx.postingLimits ?? POSTING_LIMITS;
  const watermarks = await readWatermarks(ctx.ch);
  const positions = new Map(watermarks.map(({ shard, position }) => [shard, position]));
  known?.begin(positions, ctx.clock.now());
  let posted = 0;
  for await (const requests of readRequests(ctx.pg, limits.customersPerTransaction)) {
    posted += await postWork(ctx, 'all', await workOfRequests(ctx, requests), watermarks);
  }
  const totals = await postChanges(ctx, 'totals', watermarks, known);
  known?.end(positions);
  await ctx.pg.transaction(
    async (tx) => {
      await takePostingTurn(tx);
      await takeWritingTurn(tx);
      await expireGrants(tx, ctx.clock.now());
    },
    { attempts: TURN_ATTEMPTS },
  );
  return { changed: totals.changed, posted: posted + totals.posted, watermarks };
}

/** Unique counts up to these watermarks; answers how many were posted anew. */
export async function postUniques(ctx: LedgerContext, watermarks: readonly Watermark[]): Promise<number> {
  return (await postChanges(ctx, 'uniques', watermarks)).posted;
}

/** Steps 3 to 5. */
async function postChanges(
  ctx: LedgerContext,
  part: CursorPart,
  watermarks: readonly Watermark[],
  known: KnownUsage | null = null,
): Promise<{ changed: number; posted: number }> {
  const cursors = await readCursors(ctx.pg, part);
  // Where another process has moved the cursor further, what is known here still has to hear of the changes.
  const after = (shard: number): bigint => least(cursors.get(shard) ?? 0n, known?.positions.get(shard));
  const ranges = watermarks
    .map(({ shard, position }) => ({ shard, after: after(shard), until: position }))
    .filter((range) => range.until > range.after);
  const done = { changed: 0, posted: 0 };
  if (ranges.length === 0) return done;
  for await (const page of readPages(ctx, part, ranges)) {
    done.posted += await postWork(ctx, part, await workOfChanges(ctx, page), watermarks, known);
    done.changed += page.length;
  }
  await moveCursors(ctx.pg, part, ranges);
  return done;
}

const least = (a: bigint, b: bigint | undefined): bigint => (b === undefined || a < b ? a : b);

/** What changed for those who are billed. A subject that gets a customer from now on is asked to be read in full. */
async function* readPages(
  { pg, ch, postingLimits }: LedgerContext,
  part: CursorPart,
  ranges: readonly PositionRange[],
): AsyncGenerator<ChangedSubject[]> {
  const limit = (postingLimits ?? POSTING_LIMITS).changesPerPage;
  for (const subjects of await billedSubjects(pg, part)) {
    let behind: ChangedSubject | null = null;
    for (;;) {
      const page: ChangedSubject[] = await readChanges(ch, { ranges, subjects, behind, limit });
      if (page.length > 0) yield page;
      if (page.length < limit) break;
      behind = page.at(-1)!;
    }
  }
}

async function postWork(
  ctx: LedgerContext,
  part: PostingPart,
  work: readonly CustomerWork[],
  watermarks: readonly Watermark[],
  known: KnownUsage | null = null,
): Promise<number> {
  const { customersPerTransaction: size } = ctx.postingLimits ?? POSTING_LIMITS;
  let posted = 0;
  for (let at = 0; at < work.length; at += size) {
    const chunk = { part, work: work.slice(at, at + size), watermarks, known };
    posted += await postChunk(ctx, chunk);
  }
  return posted;
}

/** Pages of the customers that asked to be read in full, as they are at the start of each page. */
async function* readRequests(db: Db, limit: number): AsyncGenerator<ReadRequest[]> {
  let [tenant, customer] = ['', ''];
  for (;;) {
    const page = await db.query<ReadRequest>(
      `SELECT tenant, customer, revision FROM ledger.customers_to_read
       WHERE (tenant, customer) > ($1, $2) ORDER BY tenant, customer LIMIT $3`,
      [tenant, customer, limit],
    );
    if (page.length > 0) yield page;
    if (page.length < limit) return;
    ({ tenant, customer } = page.at(-1)!);
  }
}

export async function readCursors(db: Db, part: CursorPart): Promise<Map<number, bigint>> {
  const rows = await db.query<{ shard: number; position: string }>(
    `SELECT shard, position::text AS position FROM ${CURSOR_TABLES[part]}`,
  );
  return new Map(rows.map((row) => [row.shard, BigInt(row.position)]));
}

/** Forwards only, so it needs no turn: whoever is ahead has posted all that lies before. */
async function moveCursors(db: Db, part: CursorPart, ranges: readonly PositionRange[]): Promise<void> {
  await db.query(
    `INSERT INTO ${CURSOR_TABLES[part]} AS c (shard, position)
     SELECT * FROM unnest($1::integer[], $2::numeric[]) AS u (shard, position) ORDER BY shard
     ON CONFLICT (shard) DO UPDATE SET position = greatest(c.position, excluded.position)`,
    [ranges.map((range) => range.shard), ranges.map((range) => range.until.toString())],
  );
}
