/**
 * Is everything that the edges answered with yes in the log, and read from it?
 *
 * 1. Store. Edges tell absolute totals by tenant in a NATS bucket (contract/acknowledged.ts); they are kept in
 *    Postgres, the highest of each entry, so that the bucket may forget them.
 * 2. Mark. Now and then the stored totals are noted, and behind them the last sequence of every log. An edge counts
 *    an event only when the log has acknowledged it, so all noted events stand at or before these sequences.
 * 3. Prove. When the watermarks have passed them, no less than what was noted must have been received. If it is
 *    less, acknowledged events are missing, and it is said whose and how many. It stays said until a later proof
 *    finds them (their senders, or an edge's journal, have sent them again).
 * 4. Fold. Entries that have rested for a week rise no more, and become one row a tenant.
 *
 * It proves a bound and no equality: more may have been received than is told here, since an edge that dies had not
 * told its last seconds, and a request that was repeated after a lost answer stands in the log twice. What is
 * missing can hide behind such a surplus, until the surplus is used up; without crashes there is none.
 *
 * A log that began a new incarnation between the mark and the proof gives its sequences anew: the mark is dropped,
 * and the next one is proved. Marks are also dropped while an edge says that its journal alone has something.
 *
 * Several processes may do this at once; each keeps its own mark, and what they store is the same.
 */
import { acknowledgedKey, parseAcknowledged, type Acknowledged } from '../contract/acknowledged.ts';
import { unpackPosition } from '../contract/position.ts';
import { DAY_MS, formatInstant } from '../contract/window.ts';
import type { ClickHouse } from '../runtime/clickhouse.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import type { Metrics } from '../runtime/metrics.ts';
import type { KeyValue } from '../runtime/nats.ts';
import type { Db, Postgres } from '../runtime/postgres.ts';
import { readWatermarks } from './usage-totals.ts';

export interface EdgeTotalsOptions {
  readonly pg: Postgres;
  readonly ch: ClickHouse;
  readonly clock: Clock;
  readonly log: Log;
  readonly bucket: KeyValue;
  readonly shards: number;
  /** Of the last message that the shard's log holds or held. */
  lastSequence(shard: number): Promise<number>;
}

/** An edge ends an entry after an hour (ingest/tenant/acknowledged.ts); only one cut off for so long could go on. */
const FOLDED_AFTER_MS = 7 * DAY_MS;
/** An edge that is gone says nothing any more, and what it said last of its journal is no reason to wait for ever. */
const UNLOGGED_HOLDS_MS = DAY_MS;
const STORED_AT_ONCE = 1_000;
const FOLDED_AT_ONCE = 1_000;

interface Mark {
  readonly atMs: number;
  readonly events: ReadonlyMap<string, bigint>;
  /** By shard: the incarnation at the mark, and the sequence that must be passed. */
  readonly ends: ReadonlyMap<number, { readonly incarnation: number; readonly sequence: number }>;
}

export class EdgeTotals {
  readonly #o: EdgeTotalsOptions;
  /** Told and not stored yet, by key. */
  readonly #untold = new Map<string, Acknowledged>();
  /** Entries of which some events may be in a journal alone: when that was told. */
  readonly #unlogged = new Map<string, number>();
  #mark: Mark | null = null;

  constructor(options: EdgeTotalsOptions) {
    this.#o = options;
  }

  /** Resolves when what the bucket holds is known; goes on until the signal. */
  watch(signal: AbortSignal): Promise<void> {
    const { bucket, log } = this.#o;
    return bucket.watch((key, text) => {
      if (text === null) {
        this.#unlogged.delete(key);
        return;
      }
      const told = parseAcknowledged(text);
      if (told === null || acknowledgedKey(told) !== key) {
        log.error({ entry: key }, 'an acknowledged total is not sound: it is as if there were none');
        return;
      }
      this.#untold.set(key, told);
      if (told.isLogged) this.#unlogged.delete(key);
      else this.#unlogged.set(key, told.toldAtMs);
    }, signal);
  }

  /** All steps once. Returns what is known then. Throws when an engine is away. */
  async turn(): Promise<Proof> {
    await this.store();
    await this.#prove();
    if (this.#mark === null) await this.#takeMark();
    await this.#fold();
    return readProof(this.#o.pg);
  }

  async store(): Promise<void> {
    const { pg, clock } = this.#o;
    while (this.#untold.size > 0) {
      const some = [...this.#untold].slice(0, STORED_AT_ONCE);
      // An entry that is folded already must not come back from a bucket that still has it.
      const foldedMs = clock.now() - FOLDED_AFTER_MS;
      const fresh = some.map(([, told]) => told).filter(({ toldAtMs }) => toldAtMs > foldedMs);
      fresh.sort((a, b) => (acknowledgedKey(a) < acknowledgedKey(b) ? -1 : 1));
      await pg.query(STORE, [
        fresh.map(({ tenant }) => tenant),
        fresh.map(({ entry }) => entry),
        fresh.map(({ events }) => events),
        fresh.map(({ toldAtMs }) => formatInstant(toldAtMs)),
      ]);
      for (const [key, told] of some) if (this.#untold.get(key) === told) this.#untold.delete(key);
    }
  }

  async #takeMark(): Promise<void> {
    const { pg, ch, clock, shards, lastSequence } = this.#o;
    const nowMs = clock.now();
    if ([...this.#unlogged.values()].some((toldAtMs) => toldAtMs > nowMs - UNLOGGED_HOLDS_MS)) return;
    const rows = await pg.query<{ tenant: string; events: string }>(
      'SELECT tenant, sum(events)::text AS events FROM ledger.acknowledged_totals GROUP BY tenant',
    );
    // Behind the totals: what they hold stands before the ends.
    const ends = new Map<number, { incarnation: number; sequence: number }>();
    const watermarks = new Map((await readWatermarks(ch)).map(({ shard, position }) => [shard, position]));
    for (let shard = 0; shard < shards; shard++) {
      const incarnation = unpackPosition(watermarks.get(shard) ?? 0n).incarnation;
      ends.set(shard, { incarnation, sequence: await lastSequence(shard) });
    }
    this.#mark = { atMs: nowMs, events: new Map(rows.map((row) => [row.tenant, BigInt(row.events)])), ends };
  }

  async #prove(): Promise<void> {
    const mark = this.#mark;
    if (mark === null) return;
    const { pg, ch } = this.#o;
    const watermarks = new Map((await readWatermarks(ch)).map(({ shard, position }) => [shard, position]));
    for (const [shard, end] of mark.ends) {
      const position = watermarks.get(shard);
      if (end.sequence > 0 && position === undefined) return;
      const { incarnation, sequence } = unpackPosition(position ?? 0n);
      // The first watermark of a shard begins its first incarnation.
      if (end.incarnation !== 0 && incarnation !== end.incarnation) {
        this.#mark = null;
        return;
      }
      if (sequence < end.sequence) return;
    }
    const rows = await ch.rows<{ tenant: string; events: string }>(
      'SELECT tenant, toString(sum(count)) AS events FROM received GROUP BY tenant',
    );
    const received = new Map(rows.map((row) => [row.tenant, BigInt(row.events)]));
    const missing = [...mark.events]
      .map(([tenant, events]) => ({ tenant, events: events - (received.get(tenant) ?? 0n) }))
      .filter(({ events }) => events > 0n);
    const at = formatInstant(mark.atMs);
    await pg.transaction(async (tx) => {
      await tx.query(PROVEN, [at]);
      await tx.query('DELETE FROM ledger.acknowledged_missing');
      await tx.query(
        `INSERT INTO ledger.acknowledged_missing (tenant, events, found_at)
         SELECT u.tenant, u.events, $3 FROM unnest($1::text[], $2::bigint[]) AS u (tenant, events)`,
        [missing.map(({ tenant }) => tenant), missing.map(({ events }) => events.toString()), at],
      );
    });
    for (const { tenant, events } of missing) {
      this.#o.log.error(
        { tenant, events: events.toString() },
        'acknowledged events are missing in the log: have them sent again under the same ids',
      );
    }
    this.#mark = null;
  }

  /**
   * From the bucket first: an entry that came back from there after it was folded would count twice, while one that
   * is in Postgres still is folded the next time.
   */
  async #fold(): Promise<void> {
    const { pg, bucket, clock } = this.#o;
    const before = formatInstant(clock.now() - FOLDED_AFTER_MS);
    const rested = await pg.query<{ tenant: string; entry: string }>(
      `SELECT tenant, entry FROM ledger.acknowledged_totals WHERE entry <> '' AND told_at < $1
       ORDER BY told_at LIMIT ${FOLDED_AT_ONCE}`,
      [before],
    );
    if (rested.length === 0) return;
    for (const one of rested) await bucket.delete(acknowledgedKey(one));
    await pg.transaction((tx) =>
      tx.query(FOLD, [rested.map(({ tenant }) => tenant), rested.map(({ entry }) => entry), before]),
    );
  }
}

const STORE = `
  INSERT INTO ledger.acknowledged_totals AS t (tenant, entry, events, told_at)
  SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[])
  ON CONFLICT (tenant, entry) DO UPDATE SET events = greatest(t.events, excluded.events),
    told_at = greatest(t.told_at, excluded.told_at)
  WHERE excluded.events > t.events OR excluded.told_at > t.told_at`;

const PROVEN = `
  INSERT INTO ledger.acknowledged_proof AS p (proven_to) VALUES ($1)
  ON CONFLICT (only_row) DO UPDATE SET proven_to = greatest(p.proven_to, excluded.proven_to)`;

const FOLD = `
  WITH rested AS (
    DELETE FROM ledger.acknowledged_totals t USING unnest($1::text[], $2::text[]) AS r (tenant, entry)
    WHERE t.tenant = r.tenant AND t.entry = r.entry AND t.told_at < $3
    RETURNING t.tenant, t.events, t.told_at
  )
  INSERT INTO ledger.acknowledged_totals AS t (tenant, entry, events, told_at)
  SELECT tenant, '', sum(events), max(told_at) FROM rested GROUP BY tenant ORDER BY tenant
  ON CONFLICT (tenant, entry) DO UPDATE SET events = t.events + excluded.events,
    told_at = greatest(t.told_at, excluded.told_at)`;

export interface EdgeReport {
  /** Events that the edges answered with yes, as far as they have told. */
  readonly accepted: bigint;
  /** When one of them told last; null: none did. */
  readonly toldAtMs: number | null;
  /** Of these, events that the log does not have. */
  readonly missing: bigint;
  /** What was told at this instant was looked for in the log; null: not yet. */
  readonly provenToMs: number | null;
}

export async function readEdgeReport(db: Db, tenant: string): Promise<EdgeReport> {
  const [row] = await db.query<{
    accepted: string;
    told_at: number | null;
    missing: string;
    proven_to: number | null;
  }>(
    `SELECT (SELECT coalesce(sum(events), 0)::text FROM ledger.acknowledged_totals WHERE tenant = $1) AS accepted,
       (SELECT max(told_at) FROM ledger.acknowledged_totals WHERE tenant = $1) AS told_at,
       (SELECT coalesce(sum(events), 0)::text FROM ledger.acknowledged_missing WHERE tenant = $1) AS missing,
       (SELECT max(proven_to) FROM ledger.acknowledged_proof) AS proven_to`,
    [tenant],
  );
  return {
    accepted: BigInt(row!.accepted),
    toldAtMs: row!.told_at,
    missing: BigInt(row!.missing),
    provenToMs: row!.proven_to,
  };
}

export interface Proof {
  /** Acknowledged events of all tenants that the log does not have. */
  readonly missing: bigint;
  readonly provenToMs: number | null;
}

async function readProof(db: Db): Promise<Proof> {
  const [row] = await db.query<{ missing: string; proven_to: number | null }>(
    `SELECT (SELECT coalesce(sum(events), 0)::text FROM ledger.acknowledged_missing) AS missing,
       (SELECT max(proven_to) FROM ledger.acknowledged_proof) AS proven_to`,
  );
  return { missing: BigInt(row!.missing), provenToMs: row!.proven_to };
}

/** Returns what tells the gauges of a proof. */
export function edgeTotalsGauges(metrics: Metrics, clock: Clock): (proof: Proof) => void {
  const missing = metrics.gauge(
    'tallyline_acknowledged_missing_events',
    'events that edges answered with yes and that the log does not have',
  );
  let provenToMs: number | null = null;
  metrics.gauge(
    'tallyline_acknowledged_proof_age_seconds',
    'since the instant up to which acknowledged events were looked for in the log; -1 before the first time',
    [],
    () => (provenToMs === null ? -1 : Math.max(0, clock.now() - provenToMs) / 1_000),
  );
  return (proof) => {
    missing.set(Number(proof.missing));
    provenToMs = proof.provenToMs;
  };
}
