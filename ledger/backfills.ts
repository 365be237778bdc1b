// Backfills as they are stored. Postgres is their master; backfill-steps.ts takes them into the logs.
import type { Backfill } from '../contract/backfill.ts';
import { formatInstant } from '../contract/window.ts';
import type { Db } from '../runtime/postgres.ts';

export const BACKFILL_STATES = [
  'proposed',
  'ready',
  'committing',
  'committed',
  'reverting',
  'reverted',
  'discarded',
] as const;
export type BackfillState = (typeof BACKFILL_STATES)[number];

/** Those that hold their hours: no other backfill of the meter may be committed in any of them. */
const HOLDING: readonly BackfillState[] = ['committing', 'committed', 'reverting'];

export interface StoredBackfill extends Backfill {
  readonly tenant: string;
  readonly state: BackfillState;
  readonly createdAtMs: number;
  readonly changedAtMs: number;
  /** When all logs had the message of the state; null while they have not. */
  readonly toldAtMs: number | null;
}

interface BackfillRow {
  tenant: string;
  id: string;
  meter: string;
  version: number;
  hour_from: number;
  hour_to: number;
  state: BackfillState;
  created_at: number;
  changed_at: number;
  told_at: number | null;
}

const SELECT = `SELECT tenant, id, meter, version, hour_from, hour_to, state, created_at, changed_at, told_at
  FROM ledger.meter_backfills`;

function storedOf(row: BackfillRow): StoredBackfill {
  return {
    tenant: row.tenant,
    id: row.id,
    meter: row.meter,
    version: row.version,
    fromMs: row.hour_from,
    toMs: row.hour_to,
    state: row.state,
    createdAtMs: row.created_at,
    changedAtMs: row.changed_at,
    toldAtMs: row.told_at,
  };
}

/** Whoever asks holds the backfills of the meter until the transaction ends. */
export async function holdBackfills(tx: Db, tenant: string, meter: string): Promise<void> {
  await tx.query('SELECT 1 FROM ledger.meters WHERE tenant = $1 AND key = $2 FOR UPDATE', [tenant, meter]);
}

export async function insertBackfill(
  tx: Db,
  o: { tenant: string; backfill: Backfill; nowMs: number },
): Promise<void> {
  const { id, meter, version, fromMs, toMs } = o.backfill;
  await tx.query(
    `INSERT INTO ledger.meter_backfills
       (tenant, id, meter, version, hour_from, hour_to, state, created_at, changed_at)
     VALUES ($1, $2, $3, $4, $5, $6, 'proposed', $7, $7)`,
    [o.tenant, id, meter, version, formatInstant(fromMs), formatInstant(toMs), formatInstant(o.nowMs)],
  );
}

/** Moves one from a state to the next; false when it is not in that state (any more). */
export async function moveBackfill(
  tx: Db,
  { tenant, id }: Pick<StoredBackfill, 'tenant' | 'id'>,
  o: { from: BackfillState; to: BackfillState; nowMs: number },
): Promise<boolean> {
  const moved = await tx.query(
    `UPDATE ledger.meter_backfills SET state = $4, changed_at = $5, told_at = NULL
     WHERE tenant = $1 AND id = $2 AND state = $3 RETURNING id`,
    [tenant, id, o.from, o.to, formatInstant(o.nowMs)],
  );
  return moved.length > 0;
}

/** All logs have acknowledged the message of the state that it was in then. */
export async function noteTold(
  db: Db,
  { tenant, id, state }: Pick<StoredBackfill, 'tenant' | 'id' | 'state'>,
  nowMs: number,
): Promise<void> {
  await db.query(
    'UPDATE ledger.meter_backfills SET told_at = $4 WHERE tenant = $1 AND id = $2 AND state = $3',
    [tenant, id, state, formatInstant(nowMs)],
  );
}

/** Of a meter, the newest first. */
export async function listBackfills(db: Db, tenant: string, meter: string): Promise<StoredBackfill[]> {
  const rows = await db.query<BackfillRow>(
    `${SELECT} WHERE tenant = $1 AND meter = $2 ORDER BY created_at DESC, id`,
    [tenant, meter],
  );
  return rows.map(storedOf);
}

export async function backfillById(
  db: Db,
  o: { tenant: string; meter: string; id: string },
): Promise<StoredBackfill | null> {
  const [row] = await db.query<BackfillRow>(`${SELECT} WHERE tenant = $1 AND meter = $2 AND id = $3`, [
    o.tenant,
    o.meter,
    o.id,
  ]);
  return row === undefined ? null : storedOf(row);
}

/** Another backfill of the meter that holds one of its hours; null when there is none. */
export async function holderOf(db: Db, backfill: StoredBackfill): Promise<StoredBackfill | null> {
  const [row] = await db.query<BackfillRow>(
    `${SELECT} WHERE tenant = $1 AND meter = $2 AND id <> $3 AND state = ANY($4::text[])
       AND hour_from < $6 AND hour_to > $5 ORDER BY hour_from LIMIT 1`,
    [
      backfill.tenant,
      backfill.meter,
      backfill.id,
      HOLDING,
      formatInstant(backfill.fromMs),
      formatInstant(backfill.toMs),
    ],
  );
  return row === undefined ? null : storedOf(row);
}

/** Those on their way into the logs, of all tenants. */
export async function backfillsUnderWay(db: Db): Promise<StoredBackfill[]> {
  const rows = await db.query<BackfillRow>(
    `${SELECT} WHERE state IN ('proposed', 'committing', 'reverting') ORDER BY tenant, id`,
  );
  return rows.map(storedOf);
}
