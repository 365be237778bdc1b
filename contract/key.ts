/**
 * API keys: `tl_<id>_<secret>`. The id (12 characters) finds the record, the secret (27 characters of
 * base 62, 160 bits) proves it; only a SHA-256 of the secret is stored. A hash without salt is enough
 * for a secret that nobody can guess.
 */
export const SCOPES = ['ingest', 'read', 'admin'] as const;
export type Scope = (typeof SCOPES)[number];

/** What every checker of keys knows of one; JSON under the key's id in the NATS bucket and a row in Postgres. */
export interface KeyRecord {
  readonly id: string;
  readonly tenant: string;
  readonly scopes: readonly Scope[];
  /** SHA-256 of the secret, lower-case hexadecimal. */
  readonly secretHash: string;
  /** When it stops being valid, epoch milliseconds; null: when it is revoked. A rotated key has an end. */
  readonly expiresAtMs: number | null;
}

const FORM = /^tl_([0-9A-Za-z]{12})_([0-9A-Za-z]{27})$/;
const TENANT = /^[a-z0-9][a-z0-9_-]{0,62}$/;

export function splitKey(key: string): { id: string; secret: string } | null {
  const match = FORM.exec(key);
  return match === null ? null : { id: match[1]!, secret: match[2]! };
}

/** A tenant's name: lower-case letters, digits, hyphen and underscore, 63 at most. */
export function isTenant(text: string): boolean {
  return TENANT.test(text);
}

const DIGITS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';

/** Makes a key out of at least 40 random bytes; a byte of 248 or more is skipped so that no digit is likelier. */
export function makeKey(random: Uint8Array): { key: string; id: string; secret: string } {
  const digits: string[] = [];
  for (const byte of random) if (byte < 248) digits.push(DIGITS[byte % 62]!);
  if (digits.length < 39) throw new Error('makeKey needs more random bytes');
  const id = digits.slice(0, 12).join('');
  const secret = digits.slice(12, 39).join('');
  return { key: `tl_${id}_${secret}`, id, secret };
}
