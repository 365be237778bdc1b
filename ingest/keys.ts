import { createHash, timingSafeEqual } from 'node:crypto';
import { isTenant, SCOPES, splitKey, type KeyRecord, type Scope } from '../contract/key.ts';

const NO_HASH = new Uint8Array(32);

/**
 * The API keys that are valid now, by id, and the proofs seen lately.
 *
 * Checking a secret is a SHA-256 and a comparison in constant time. A key that was proved is remembered, so
 * that the next request with it is one lookup; the memory is bounded, and a key that is changed or revoked
 * leaves it at once.
 */
export class KeyRing {
  readonly #records = new Map<string, KeyRecord>();
  readonly #proved = new Map<string, KeyRecord>();
  readonly #provedMax: number;

  constructor(provedMax: number) {
    this.#provedMax = provedMax;
  }

  get size(): number {
    return this.#records.size;
  }

  /** Takes an entry of the bucket: JSON, or null for a revoked key. False when it is not sound: no key then. */
  set(id: string, json: string | null): boolean {
    this.#forget(id);
    if (json === null) return true;
    const record = parseKeyRecord(json);
    if (record === null || record.id !== id) return false;
    this.#records.set(id, record);
    return true;
  }

  /** The record of a whole key, or null when it is malformed, unknown, or its secret is wrong. */
  verify(key: string): KeyRecord | null {
    const proved = this.#proved.get(key);
    if (proved !== undefined) return proved;
    const parts = splitKey(key);
    if (parts === null) return null;
    const record = this.#records.get(parts.id);
    const hash = createHash('sha256').update(parts.secret).digest();
    // An unknown id takes as long as a wrong secret.
    const expected = record === undefined ? NO_HASH : Buffer.from(record.secretHash, 'hex');
    if (!timingSafeEqual(hash, expected) || record === undefined) return null;
    if (this.#proved.size >= this.#provedMax) {
      const oldest = this.#proved.keys().next();
      if (oldest.done !== true) this.#proved.delete(oldest.value);
    }
    this.#proved.set(key, record);
    return record;
  }

  #forget(id: string): void {
    const record = this.#records.get(id);
    if (record === undefined) return;
    this.#records.delete(id);
    for (const [key, proved] of this.#proved) if (proved === record) this.#proved.delete(key);
  }
}

/** The key in an Authorization header (RFC 6750; the scheme in any case), or null. */
export function bearerOf(header: string): string | null {
  const match = /^bearer +([^ ]+) *$/i.exec(header);
  return match === null ? null : match[1]!;
}

function parseKeyRecord(json: string): KeyRecord | null {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    return null;
  }
  if (typeof value !== 'object' || value === null) return null;
  const { id, tenant, scopes, secretHash } = value as Partial<Record<keyof KeyRecord, unknown>>;
  if (typeof id !== 'string' || typeof tenant !== 'string' || !isTenant(tenant)) return null;
  if (typeof secretHash !== 'string' || !/^[0-9a-f]{64}$/.test(secretHash)) return null;
  // A scope of a later version is no reason to lock the key out of what it has now.
  if (!Array.isArray(scopes)) return null;
  return { id, tenant, secretHash, scopes: SCOPES.filter((scope: Scope) => scopes.includes(scope)) };
}
