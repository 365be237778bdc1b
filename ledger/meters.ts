// Meter definitions and their versions. Postgres is their master; ledger/publish.ts tells the logs and the edges.
import { definitionOf, sameMeter, versionOf, type Meter } from '../contract/meter.ts';
import { formatInstant } from '../contract/window.ts';
import type { Db } from '../runtime/postgres.ts';

export type MeterState = 'publishing' | 'active';

/** A meter as its newest version says it. */
export interface StoredMeter extends Meter {
  readonly tenant: string;
  /** Of the newest version. */
  readonly state: MeterState;
  /** When the meter was made. */
  readonly createdAtMs: number;
  /** All versions, in order; the last is the meter itself. Those that were missed are not among them. */
  readonly versions: readonly Meter[];
}

interface MeterRow {
  tenant: string;
  definition: Meter;
  later: { definition: Meter; state: MeterState }[];
  state: MeterState;
  created_at: number;
}

const SELECT_METERS = `
  SELECT tenant, definition, state, created_at, coalesce((
    SELECT jsonb_agg(jsonb_build_object('definition', v.definition, 'state', v.state) ORDER BY v.version)
    FROM ledger.meter_versions v WHERE v.tenant = m.tenant AND v.key = m.key AND v.state <> 'missed'), '[]') AS later
  FROM ledger.meters m`;

function storedOf(row: MeterRow): StoredMeter {
  const versions = [row.definition, ...row.later.map(({ definition }) => definition)].map(definitionOf);
  return {
    ...versions.at(-1)!,
    tenant: row.tenant,
    state: row.later.at(-1)?.state ?? row.state,
    createdAtMs: row.created_at,
    versions,
  };
}

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
  const { key } = o.meter;
  const created = await tx.query(
    `INSERT INTO ledger.meters (tenant, key, definition, state, created_at) VALUES ($1, $2, $3, 'publishing', $4)
     ON CONFLICT (tenant, key) DO NOTHING RETURNING key`,
    [o.tenant, key, JSON.stringify(definitionOf(o.meter)), formatInstant(o.nowMs)],
  );
  const stored = await meterByKey(tx, o.tenant, key);
  if (stored === null) throw new Error(`meter ${key} was inserted and is not there`);
  const isSame = sameMeter(stored.versions[0]!, o.meter);
  const outcome = created.length === 1 ? 'created' : isSame ? 'exists' : 'conflict';
  return { outcome, stored, state: stored.state };
}

/** The number of the next version of a meter. Whoever asks holds the meter until the transaction ends. */
export async function nextVersionNumber(tx: Db, tenant: string, key: string): Promise<number> {
  await tx.query('SELECT 1 FROM ledger.meters WHERE tenant = $1 AND key = $2 FOR UPDATE', [tenant, key]);
  const [row] = await tx.query<{ newest: number | null }>(
    'SELECT max(version) AS newest FROM ledger.meter_versions WHERE tenant = $1 AND key = $2',
    [tenant, key],
  );
  return (row?.newest ?? 1) + 1;
}

export async function insertMeterVersion(
  tx: Db,
  o: { tenant: string; meter: Meter; nowMs: number },
): Promise<void> {
  await tx.query(
    `INSERT INTO ledger.meter_versions (tenant, key, version, definition, state, created_at)
     VALUES ($1, $2, $3, $4, 'publishing', $5)`,
    [
      o.tenant,
      o.meter.key,
      versionOf(o.meter),
      JSON.stringify(definitionOf(o.meter)),
      formatInstant(o.nowMs),
    ],
  );
}

/** The version is in every shard's log. */
export async function activateMeter(tx: Db, tenant: string, key: string, version = 1): Promise<void> {
  await setState(tx, tenant, key, version, 'active');
}

/** The version came too late for its first hour. */
export async function missMeterVersion(tx: Db, tenant: string, key: string, version: number): Promise<void> {
  await setState(tx, tenant, key, version, 'missed');
}

async function setState(tx: Db, tenant: string, key: string, version: number, state: string): Promise<void> {
  if (version === 1) {
    await tx.query('UPDATE ledger.meters SET state = $3 WHERE tenant = $1 AND key = $2', [
      tenant,
      key,
      state,
    ]);
    return;
  }
  await tx.query(
    'UPDATE ledger.meter_versions SET state = $4 WHERE tenant = $1 AND key = $2 AND version = $3',
    [tenant, key, version, state],
  );
}

export async function listMeters(db: Db, tenant: string): Promise<StoredMeter[]> {
  const rows = await db.query<MeterRow>(`${SELECT_METERS} WHERE tenant = $1 ORDER BY key`, [tenant]);
  return rows.map(storedOf);
}

export async function meterByKey(db: Db, tenant: string, key: string): Promise<StoredMeter | null> {
  const [row] = await db.query<MeterRow>(`${SELECT_METERS} WHERE tenant = $1 AND key = $2`, [tenant, key]);
  return row === undefined ? null : storedOf(row);
}

/** Meters whose newest version was not published yet, of all tenants. */
export async function unpublishedMeters(db: Db): Promise<StoredMeter[]> {
  const rows = await db.query<MeterRow>(
    `${SELECT_METERS} WHERE state = 'publishing' OR EXISTS (
       SELECT 1 FROM ledger.meter_versions v
       WHERE v.tenant = m.tenant AND v.key = m.key AND v.state = 'publishing')
     ORDER BY tenant, key`,
  );
  return rows.map(storedOf);
}
