/**
 * The API keys that are valid now, by id, and the proofs seen lately.
 *
 * Checking a secret is a SHA-256 and a comparison in constant time. A key that was proved is remembered, so
 * that the next request with it is one lookup and a comparison of times; the memory is bounded, and a key that
 * is changed or revoked leaves it at once. A key may have an end (a rotated one has): from that millisecond on
 * it is refused, also when it was proved before.
 *
 * What is opened with a key and then stays open (a stream) asks to be told: `onGone` tells of keys that were
 * revoked or may do less than before as soon as the bucket says so, and of ended ones when `expire` is called,
 * which is the caller's to do every second or so.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { isTenant, SCOPES, splitKey, type KeyRecord, type Scope } from '../../contract/key.ts';
import { parseObject } from '../../contract/record.ts';

const NO_HASH = new Uint8Array(32);

interface Held {
  readonly record: KeyRecord;
  /** Infinity when it has none. */
  readonly endMs: number;
  /** The whole key, while it is among the proved ones. A record has one secret, so there is one at most. */
  proof: string | null;
}

export class KeyRing {
  readonly #held = new Map<string, Held>();
  readonly #proved = new Map<string, Held>();
  readonly #provedMax: number;
  /** The ids of those that have an end. */
  readonly #ending = new Set<string>();
  readonly #listeners = new Set<(id: string) => void>();

  constructor(provedMax: number) {
    this.#provedMax = provedMax;
  }

  get size(): number {
    return this.#held.size;
  }

  /**
   * Takes an entry of the bucket: JSON, or null for a revoked key. False when it is not sound: no key then. An
   * entry that is told again as it was changes nothing.
   */
  set(id: string, json: string | null): boolean {
    const parsed = json === null ? null : parseKeyRecord(json);
    const record = parsed?.id === id ? parsed : null;
    const before = this.#held.get(id)?.record;
    if (before !== undefined && record !== null && isSame(before, record)) return true;
    this.#forget(id);
    if (record !== null) {
      this.#held.set(id, { record, endMs: record.expiresAtMs ?? Infinity, proof: null });
      if (record.expiresAtMs !== null) this.#ending.add(id);
    }
    if (before !== undefined && (record === null || allowsLess(before, record))) this.#tellGone(id);
    return json === null || record !== null;
  }

  /** The record of a whole key, or null when it is malformed, unknown or ended, or its secret is wrong. */
  verify(key: string, nowMs: number): KeyRecord | null {
    const proved = this.#proved.get(key);
    if (proved !== undefined) return nowMs < proved.endMs ? proved.record : null;
    const parts = splitKey(key);
    if (parts === null) return null;
    const held = this.#held.get(parts.id);
    const hash = createHash('sha256').update(parts.secret).digest();
    // An unknown id takes as long as a wrong secret.
    const expected = held === undefined ? NO_HASH : Buffer.from(held.record.secretHash, 'hex');
    if (!timingSafeEqual(hash, expected) || held === undefined || nowMs >= held.endMs) return null;
    if (this.#proved.size >= this.#provedMax) {
      const oldest = this.#proved.entries().next();
      if (oldest.done !== true) {
        oldest.value[1].proof = null;
        this.#proved.delete(oldest.value[0]);
      }
    }
    held.proof = key;
    this.#proved.set(key, held);
    return held.record;
  }

  /** Whether the key of this id, proved at another time, is valid still. */
  isValid(id: string, nowMs: number): boolean {
    const held = this.#held.get(id);
    return held !== undefined && nowMs < held.endMs;
  }

  /**
   * `listener` is called with the id of a key under which nothing may stay open: it was revoked, it ended (see
   * `expire`), or it may do less than before. A key that only got an end is not told of until then. It must not
   * throw. Returns the function that ends it.
   */
  onGone(listener: (id: string) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Forgets the keys whose end has come, and tells of them; returns how many. Costs nothing where no key ends. */
  expire(nowMs: number): number {
    let ended = 0;
    for (const id of this.#ending) {
      if (this.isValid(id, nowMs)) continue;
      this.#forget(id);
      this.#tellGone(id);
      ended += 1;
    }
    return ended;
  }

  #forget(id: string): void {
    const held = this.#held.get(id);
    if (held === undefined) return;
    this.#held.delete(id);
    this.#ending.delete(id);
    if (held.proof !== null) this.#proved.delete(held.proof);
  }

  #tellGone(id: string): void {
    for (const listener of this.#listeners) listener(id);
  }
}

/** The key in an Authorization header (RFC 6750; the scheme in any case), or null. */
export function bearerOf(header: string): string | null {
  const match = /^bearer +([^ ]+) *$/i.exec(header);
  return match === null ? null : match[1]!;
}

function isSame(a: KeyRecord, b: KeyRecord): boolean {
  return a.expiresAtMs === b.expiresAtMs && !allowsLess(a, b) && a.scopes.length === b.scopes.length;
}

/** Whether what was proved of `a` does not hold of `b`. */
function allowsLess(a: KeyRecord, b: KeyRecord): boolean {
  if (a.tenant !== b.tenant || a.secretHash !== b.secretHash) return true;
  return a.scopes.some((scope) => !b.scopes.includes(scope));
}

function parseKeyRecord(json: string): KeyRecord | null {
  const value = parseObject(json);
  if (value === null) return null;
  // Records of an earlier version say nothing of an end.
  const {
    id,
    tenant,
    scopes,
    secretHash,
    expiresAtMs = null,
  } = value as Partial<Record<keyof KeyRecord, unknown>>;
  if (typeof id !== 'string' || typeof tenant !== 'string' || !isTenant(tenant)) return null;
  if (typeof secretHash !== 'string' || !/^[0-9a-f]{64}$/.test(secretHash)) return null;
  if (expiresAtMs !== null && !isInstant(expiresAtMs)) return null;
  // A scope of a later version is no reason to lock the key out of what it has now.
  if (!Array.isArray(scopes)) return null;
  const known = SCOPES.filter((scope: Scope) => scopes.includes(scope));
  return { id, tenant, secretHash, scopes: known, expiresAtMs };
}

function isInstant(value: unknown): value is number {
  return Number.isSafeInteger(value);
}
