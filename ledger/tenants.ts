/**
 * Tenants and their API keys. Only the hash of a secret is stored; the key itself is returned once.
 *
 * A key works until it is revoked or its end has come. It gets an end by being rotated: a new key of the same
 * scopes takes its place, and the old one stays valid for an overlap, in which its users change over. A key is
 * rotated once; after that it is its successor's turn.
 */
import { createHash } from 'node:crypto';
import { makeKey, splitKey, type KeyRecord, type Scope } from '../contract/key.ts';
import { formatInstant } from '../contract/window.ts';
import type { Db } from '../runtime/postgres.ts';

export interface StoredKey extends KeyRecord {
  readonly label: string;
  readonly createdAtMs: number;
  readonly revokedAtMs: number | null;
  /** The id of the key that it was rotated to. */
  readonly replacedBy: string | null;
}

export async function createTenant(
  tx: Db,
  o: { tenant: string; name: string; nowMs: number },
): Promise<'created' | 'exists'> {
  const rows = await tx.query(
    `INSERT INTO ledger.tenants (tenant, name, created_at) VALUES ($1, $2, $3)
     ON CONFLICT (tenant) DO NOTHING RETURNING tenant`,
    [o.tenant, o.name, formatInstant(o.nowMs)],
  );
  return rows.length === 1 ? 'created' : 'exists';
}

const hashOf = (secret: string): string => createHash('sha256').update(secret).digest('hex');

interface NewKey {
  readonly tenant: string;
  readonly scopes: readonly Scope[];
  readonly label: string;
  readonly nowMs: number;
}

/** `random` is at least 64 bytes of cryptographic randomness. */
export async function createKey(
  tx: Db,
  o: NewKey & { random: Uint8Array },
): Promise<{ key: string; record: KeyRecord }> {
  const { key } = makeKey(o.random);
  return { key, record: await importKey(tx, { ...o, key }) };
}

/** Stores a key that was made elsewhere; storing it again changes nothing. Throws when its id is another key's. */
export async function importKey(tx: Db, o: NewKey & { key: string }): Promise<KeyRecord> {
  const parts = splitKey(o.key);
  if (parts === null) throw new Error('the key has not the form tl_<id>_<secret>');
  const secretHash = hashOf(parts.secret);
  await tx.query(
    `INSERT INTO ledger.api_keys (id, tenant, scopes, secret_hash, label, created_at)
     VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING`,
    [parts.id, o.tenant, o.scopes, secretHash, o.label, formatInstant(o.nowMs)],
  );
  const [stored] = await tx.query<KeyRow>(`SELECT ${KEY_COLUMNS} FROM ledger.api_keys WHERE id = $1`, [
    parts.id,
  ]);
  if (stored === undefined || stored.tenant !== o.tenant || stored.secret_hash !== secretHash) {
    throw new Error(`the key id ${parts.id} belongs to another key`);
  }
  return recordOf(stored);
}

export type Rotation =
  | {
      readonly rotated: true;
      /** Told once. */
      readonly key: string;
      readonly record: KeyRecord;
      readonly label: string;
      /** When the old key ends. */
      readonly endsAtMs: number;
    }
  | { readonly rotated: false; readonly because: 'unknown' | 'revoked' }
  | {
      readonly rotated: false;
      readonly because: 'rotated';
      readonly replacedBy: string;
      readonly endsAtMs: number;
    };

/** Puts a new key in the place of one, which ends after the overlap. `random` as for `createKey`. */
export async function rotateKey(
  tx: Db,
  o: { tenant: string; id: string; overlapMs: number; nowMs: number; random: Uint8Array },
): Promise<Rotation> {
  const { tenant, id, nowMs } = o;
  const [old] = await tx.query<KeyRow>(
    `SELECT ${KEY_COLUMNS} FROM ledger.api_keys WHERE tenant = $1 AND id = $2 FOR UPDATE`,
    [tenant, id],
  );
  if (old === undefined) return { rotated: false, because: 'unknown' };
  if (old.revoked_at !== null) return { rotated: false, because: 'revoked' };
  if (old.replaced_by !== null && old.expires_at !== null) {
    return { rotated: false, because: 'rotated', replacedBy: old.replaced_by, endsAtMs: old.expires_at };
  }
  const { scopes, label } = old;
  const { key, record } = await createKey(tx, { tenant, scopes, label, nowMs, random: o.random });
  const endsAtMs = nowMs + o.overlapMs;
  await tx.query('UPDATE ledger.api_keys SET expires_at = $2, replaced_by = $3 WHERE id = $1', [
    id,
    formatInstant(endsAtMs),
    record.id,
  ]);
  return { rotated: true, key, record, label, endsAtMs };
}

/** False when the tenant has no such key. Revoking again keeps the first time. */
export async function revokeKey(tx: Db, o: { tenant: string; id: string; nowMs: number }): Promise<boolean> {
  const rows = await tx.query(
    `UPDATE ledger.api_keys SET revoked_at = coalesce(revoked_at, $3)
     WHERE tenant = $1 AND id = $2 RETURNING id`,
    [o.tenant, o.id, formatInstant(o.nowMs)],
  );
  return rows.length === 1;
}

interface KeyRow {
  id: string;
  tenant: string;
  scopes: Scope[];
  secret_hash: string;
  label: string;
  created_at: number;
  revoked_at: number | null;
  expires_at: number | null;
  replaced_by: string | null;
}

const KEY_COLUMNS = 'id, tenant, scopes, secret_hash, label, created_at, revoked_at, expires_at, replaced_by';

/** Of one that is valid at the instant $1: from that of its end on it is not. */
const IS_ACTIVE = 'revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $1)';

function recordOf(row: KeyRow): KeyRecord {
  const { id, tenant, scopes, secret_hash: secretHash, expires_at: expiresAtMs } = row;
  return { id, tenant, scopes, secretHash, expiresAtMs };
}

const storedKeyOf = (row: KeyRow): StoredKey => ({
  ...recordOf(row),
  label: row.label,
  createdAtMs: row.created_at,
  revokedAtMs: row.revoked_at,
  replacedBy: row.replaced_by,
});

export async function listKeys(db: Db, tenant: string): Promise<StoredKey[]> {
  const rows = await db.query<KeyRow>(
    `SELECT ${KEY_COLUMNS} FROM ledger.api_keys WHERE tenant = $1 ORDER BY created_at, id`,
    [tenant],
  );
  return rows.map(storedKeyOf);
}

/** The keys of all tenants that are neither revoked nor ended. */
export async function activeKeys(db: Db, nowMs: number): Promise<KeyRecord[]> {
  const rows = await db.query<KeyRow>(
    `SELECT ${KEY_COLUMNS} FROM ledger.api_keys WHERE ${IS_ACTIVE} ORDER BY id`,
    [formatInstant(nowMs)],
  );
  return rows.map(recordOf);
}

/** Null when there is none, or it is revoked or ended. */
export async function activeKey(db: Db, id: string, nowMs: number): Promise<KeyRecord | null> {
  const [row] = await db.query<KeyRow>(
    `SELECT ${KEY_COLUMNS} FROM ledger.api_keys WHERE ${IS_ACTIVE} AND id = $2`,
    [formatInstant(nowMs), id],
  );
  return row === undefined ? null : recordOf(row);
}
