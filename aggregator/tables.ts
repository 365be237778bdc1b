/**
 * The tables on ClickHouse, behind their port: the object through which shards are counted, and the fence of every
 * insert. It keeps the epochs of the shards that were taken over through it.
 */
import { GuardError, type ClickHouse, type Guard } from '../runtime/clickhouse.ts';
import { backfillRow, partsOf } from './backfill-store.ts';
import { loadRetired, loadScope, recount, settleCorrections } from './corrections-store.ts';
import { lookUpIdentities } from './dedupe/look-up.ts';
import { loadIndex } from './dedupe/rebuild.ts';
import { FencedError, fenceOf } from './fence.ts';
import {
  countUnfinished,
  finishIncarnation,
  loadBeginnings,
  loadFirstMarks,
  loadMarks,
  loadNewestMark,
  runningInserts,
  saveBeginning,
} from './incarnation-store.ts';
import { meterRow } from './meter-row.ts';
import { takeOver } from './owners.ts';
import type { EncodedRows, Ownership, Tables, Timing } from './ports.ts';
import { shardOf } from './recount.ts';
import { EVENT_COLUMNS, REFUSED_COLUMNS } from './raw-rows.ts';
import { ROLLUP_COLUMNS } from './rollup-columns.ts';
import { refreshRules } from './rules-store.ts';
import { marksRow, receivedRows, verdictRows, watermarkRow } from './rows.ts';
import {
  loadCountedTo,
  loadLastHour,
  loadRegistry,
  loadGroups,
  loadRollups,
  loadTally,
  loadWatermark,
} from './store.ts';

/** Sent with every insert. A month's partition is no limit of ours: events may lie years apart. */
const INSERT_SETTINGS = {
  async_insert: 0,
  optimize_on_insert: 0,
  max_partitions_per_insert_block: 0,
} as const;

export interface TablesOptions {
  readonly ch: ClickHouse;
  /** Unique: no other process, and none before, has it. */
  readonly owner: string;
  readonly timing: Timing;
  /** Waited for before each insert. */
  mayWrite(): Promise<void>;
}

export function clickHouseTables({ ch, owner, timing, mayWrite }: TablesOptions): Tables & Ownership {
  /** By shard. */
  const claims = new Map<number, number>();

  const fenced = async (
    shards: readonly number[],
    insert: (fence: Guard) => Promise<void>,
  ): Promise<void> => {
    await mayWrite();
    try {
      await insert(fenceOf(owner, claims, shards));
    } catch (error) {
      if (error instanceof GuardError) throw new FencedError(shards, error);
      throw error;
    }
  };

  /** One insert of several Native blocks. */
  const native = (
    table: string,
    columns: readonly string[],
    parts: readonly EncodedRows[],
    shards: readonly number[],
  ): Promise<void> => {
    const rows = parts.reduce((sum, part) => sum + part.rows, 0);
    const bodies = parts.map(({ body }) => body);
    return fenced(shards, (fence) => ch.insertNative(table, columns, bodies, rows, INSERT_SETTINGS, fence));
  };
  const json = <T extends { readonly shard: number }>(
    table: string,
    of: readonly T[],
    rowsOf: (one: T) => object | readonly object[],
  ): Promise<void> =>
    fenced(
      of.map(({ shard }) => shard),
      (fence) => ch.insertJson(table, of.flatMap(rowsOf), fence),
    );

  return {
    async takeOver(shard, epochAtLeast, signal) {
      claims.delete(shard);
      const epoch = await takeOver({ ch, owner, shard, epochAtLeast, timing, signal });
      claims.set(shard, epoch);
      return epoch;
    },
    giveUp: (shard) => void claims.delete(shard),

    loadWatermark: (...of) => loadWatermark(ch, ...of),
    loadCountedTo: (...of) => loadCountedTo(ch, ...of),
    loadRegistry: (...of) => loadRegistry(ch, ...of),
    loadTally: (...of) => loadTally(ch, ...of),
    loadLastHour: (...of) => loadLastHour(ch, ...of),
    loadRollups: (...of) => loadRollups(ch, ...of),
    loadGroups: (...of) => loadGroups(ch, ...of),
    loadIndex: (...of) => loadIndex(ch, ...of),
    lookUpIdentities: (...of) => lookUpIdentities(ch, ...of),
    loadBeginnings: (...of) => loadBeginnings(ch, ...of),
    saveBeginning: (shard, beginning, nowMs) =>
      fenced([shard], (fence) => saveBeginning(ch, shard, beginning, nowMs, fence)),
    loadNewestMark: (...of) => loadNewestMark(ch, ...of),
    loadFirstMarks: (...of) => loadFirstMarks(ch, ...of),
    loadMarks: (...of) => loadMarks(ch, ...of),
    countUnfinished: (rows) => countUnfinished(ch, rows),
    finishIncarnation: (rows) => fenced([rows.shard], (fence) => finishIncarnation(ch, rows, fence)),
    settleCorrections: (range) => fenced([range.shard], (fence) => settleCorrections(ch, range, fence)),
    loadRetired: (...of) => loadRetired(ch, ...of),
    async recount(what) {
      for (const scope of await partsOf(ch, what.scope))
        await fenced([shardOf(scope)], (fence) => recount(ch, { ...what, scope }, fence));
    },
    loadScope: (...of) => loadScope(ch, ...of),
    runningInserts: () => runningInserts(ch),
    insertMarks: (marks, nowMs) => json('log_marks', marks, (one) => marksRow(one, nowMs)),
    insertEvents: (parts, shards) => native('events', EVENT_COLUMNS, parts, shards),
    insertRefused: (parts, shards) => native('refused_events', REFUSED_COLUMNS, parts, shards),
    insertRollups: (parts, shards) => native('rollup_hour', ROLLUP_COLUMNS, parts, shards),
    insertMeters: (meters) => json('meters', meters, meterRow),
    insertBackfills: (changes) => json('backfills', changes, backfillRow),
    refreshRules: async (shards) => {
      for (const shard of shards) await fenced([shard], (fence) => refreshRules(ch, shard, fence));
    },
    insertReceived: (counters) => json('received_totals', counters, receivedRows),
    insertVerdicts: (counters) => json('verdict_totals', counters, verdictRows),
    insertWatermarks: (watermarks, nowMs) =>
      json('watermarks', watermarks, (one) => watermarkRow(one, nowMs)),
  };
}
