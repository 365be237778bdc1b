// Tenants and their API keys. Only the hash of a secret is stored; the key itself is returned once.
import { createHash } from 'node:crypto';
import { makeKey, splitKey, type KeyRecord, type Scope } from '../contract/key.ts';
import { formatInstant } from '../contract/window.ts';
import type { Db } from '../runtime/postgres.ts';

export interface StoredKey extends KeyRecord {
  readonly label: string;
  readonly createdAtMs: number;
  readonly revokedAtMs: number | null;
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
  const [stored] = await tx.query<{ tenant: string; scopes: Scope[]; secret_hash: string }>(
    'SELECT tenant, scopes, secret_hash FROM ledger.api_keys WHERE id = $1',
    [parts.id],
  );
  if (stored === undefined || stored.tenant !== o.tenant || stored.secret_hash !== secretHash) {
    throw new Error(`the key id ${parts.id} belongs to another key`);
  }
  return { id: parts.id, tenant: stored.tenant, scopes: stored.scopes, secretHash };
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
}

const KEY_COLUMNS = 'id, tenant, scopes, secret_hash, label, created_at, revoked_at';

const keyOf = (row: KeyRow): StoredKey => ({
  id: row.id,
  tenant: row.tenant,
  scopes: row.scopes,
  secretHash: row.secret_hash,
  label: row.label,
  createdAtMs: row.created_at,
  revokedAtMs: row.revoked_at,
});

export async function listKeys(db: Db, tenant: string): Promise<StoredKey[]> {
  const rows = await db.query<KeyRow>(
    `SELECT ${KEY_COLUMNS} FROM ledger.api_keys WHERE tenant = $1 ORDER BY created_at, id`,
    [tenant],
  );
  return rows.map(keyOf);
}

/** The keys of all tenants that are not revoked. */
export async function activeKeys(db: Db): Promise<KeyRecord[]> {
  const rows = await db.query<KeyRow>(
    `SELECT ${KEY_COLUMNS} FROM ledger.api_keys WHERE revoked_at IS NULL ORDER BY id`,
  );
  return rows.map(({ id, tenant, scopes, secret_hash: secretHash }) => ({ id, tenant, scopes, secretHash }));
}
