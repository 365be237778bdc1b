// Meter definitions. Postgres is their master; ledger/publish.ts tells the logs and the edges.
import { sameMeter, type Meter } from '../contract/meter.ts';
import { formatInstant } from '../contract/window.ts';
import type { Db } from '../runtime/postgres.ts';

export type MeterState = 'publishing' | 'active';

export interface StoredMeter extends Meter {
  readonly tenant: string;
  readonly state: MeterState;
  readonly createdAtMs: number;
}

interface MeterRow {
  tenant: string;
  definition: Meter;
  state: MeterState;
  created_at: number;
}

const COLUMNS = 'tenant, definition, state, created_at';
const storedOf = (row: MeterRow): StoredMeter => ({
  ...row.definition,
  tenant: row.tenant,
  state: row.state,
  createdAtMs: row.created_at,
});

export interface InsertedMeter {
  /** conflict: the key has another definition, which stays. */
  readonly outcome: 'created' | 'exists' | 'conflict';
  readonly stored: StoredMeter;
  readonly state: MeterState;
}

export async function insertMeter(
  tx: Db,
  o: { tenant: string; meter: Meter; nowMs: number },
): Promise<InsertedMeter> {
  const { key, eventType, aggregation, valueProperty, groupBy } = o.meter;
  const definition = JSON.stringify({ key, eventType, aggregation, valueProperty, groupBy });
  const created = await tx.query(
    `INSERT INTO ledger.meters (tenant, key, definition, state, created_at) VALUES ($1, $2, $3, 'publishing', $4)
     ON CONFLICT (tenant, key) DO NOTHING RETURNING key`,
    [o.tenant, key, definition, formatInstant(o.nowMs)],
  );
  const stored = await meterByKey(tx, o.tenant, key);
  if (stored === null) throw new Error(`meter ${key} was inserted and is not there`);
  const outcome = created.length === 1 ? 'created' : sameMeter(stored, o.meter) ? 'exists' : 'conflict';
  return { outcome, stored, state: stored.state };
}

export async function activateMeter(tx: Db, tenant: string, key: string): Promise<void> {
  await tx.query(`UPDATE ledger.meters SET state = 'active' WHERE tenant = $1 AND key = $2`, [tenant, key]);
}

export async function listMeters(db: Db, tenant: string): Promise<StoredMeter[]> {
  const rows = await db.query<MeterRow>(
    `SELECT ${COLUMNS} FROM ledger.meters WHERE tenant = $1 ORDER BY key`,
    [tenant],
  );
  return rows.map(storedOf);
}

export async function meterByKey(db: Db, tenant: string, key: string): Promise<StoredMeter | null> {
  const [row] = await db.query<MeterRow>(
    `SELECT ${COLUMNS} FROM ledger.meters WHERE tenant = $1 AND key = $2`,
    [tenant, key],
  );
  return row === undefined ? null : storedOf(row);
}

/** Definitions whose publication was interrupted, of all tenants. */
export async function unpublishedMeters(db: Db): Promise<StoredMeter[]> {
  const rows = await db.query<MeterRow>(
    `SELECT ${COLUMNS} FROM ledger.meters WHERE state = 'publishing' ORDER BY tenant, key`,
  );
  return rows.map(storedOf);
}
