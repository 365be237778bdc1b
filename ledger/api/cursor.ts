/**
 * Opaque cursors. A list is ordered by a key that never changes, and a cursor is the key of the last item
 * given, so that what is inserted or removed between two pages neither repeats nor hides an item. `scope`
 * is what the list was asked for: a cursor of one list means nothing in another and is refused there.
 *
 * A cursor is not signed. It holds no secret and is used as a bound parameter only; the worst a forged one
 * can do is to start the list of its own tenant somewhere else.
 */
import { createHash } from 'node:crypto';

const CURSOR_LENGTH_MAX = 4_096;

export type CursorKey = readonly (string | number)[];

export function encodeCursor(scope: string, key: CursorKey): string {
  return Buffer.from(JSON.stringify([fingerprint(scope), ...key])).toString('base64url');
}

/** The key of {@link encodeCursor}; null when the text is none of ours, or of another scope or shape. */
export function decodeCursor(
  scope: string,
  cursor: string,
  shape: readonly ('string' | 'number')[],
): CursorKey | null {
  if (cursor.length > CURSOR_LENGTH_MAX || !/^[A-Za-z0-9_-]+$/.test(cursor)) return null;
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(cursor, 'base64url').toString());
  } catch {
    return null;
  }
  if (!Array.isArray(value) || value.length !== shape.length + 1) return null;
  const [mark, ...key] = value as unknown[];
  if (mark !== fingerprint(scope)) return null;
  const sound = key.every(
    (part, at) => typeof part === shape[at] && (typeof part !== 'number' || Number.isSafeInteger(part)),
  );
  return sound ? (key as (string | number)[]) : null;
}

function fingerprint(scope: string): string {
  return createHash('sha256').update(scope).digest('base64url').slice(0, 8);
}

/**
 * Cuts a page from rows that were read with a limit of one more than the page takes: whether there are more shows
 * in the extra one.
 */
export function cutPage<T>(
  rows: readonly T[],
  o: { scope: string; limit: number; keyOf: (row: T) => CursorKey },
): { items: T[]; nextCursor: string | null } {
  const items = rows.slice(0, o.limit);
  const last = rows.length > o.limit ? items.at(-1) : undefined;
  return { items, nextCursor: last === undefined ? null : encodeCursor(o.scope, o.keyOf(last)) };
}

/** A page of a list that fits into memory, ordered by a unique text key. Null when the cursor is not sound. */
export function pageOf<T>(
  items: readonly T[],
  keyOf: (item: T) => string,
  o: { scope: string; limit: number; cursor: string | undefined },
): { items: T[]; nextCursor: string | null } | null {
  const after = o.cursor === undefined ? null : decodeCursor(o.scope, o.cursor, ['string']);
  if (o.cursor !== undefined && after === null) return null;
  const bound = after?.[0] as string | undefined;
  const rest = items
    .filter((item) => bound === undefined || keyOf(item) > bound)
    .sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1));
  return cutPage(rest, { scope: o.scope, limit: o.limit, keyOf: (item) => [keyOf(item)] });
}
