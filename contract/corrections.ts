/**
 * Corrections in the log: an event that takes back another one (a *void*) or stands in its place (an *amendment*).
 *
 * In a block a correction is an event like any other, with two reserved fields of text in its data. One names the id of
 * the original for people, and says what kind of correction it is; the other is the original's identity, in the form in
 * which `formatIdentity` writes it and ClickHouse shows it. A correction always names the original event, never another
 * correction; of several the last in the log holds. Its own identity is hashed in a domain of its own, so that nothing
 * can name it, and its shard is the original's.
 */

/** No data of a user's begins with this path or with this and a dot, and no type with this and a dot. */
export const RESERVED_PREFIX = 'tallyline';

/** The id of the event that is voided. */
export const PATH_VOIDS = 'tallyline.voids';
/** The id of the event that is amended. */
export const PATH_AMENDS = 'tallyline.amends';
/** The identity of either. */
export const PATH_TARGET = 'tallyline.target';

/** The type of a void. No meter counts it. */
export const TYPE_VOID = 'tallyline.void';

/** Of a dotted path in `data`. */
export function isReservedPath(path: string): boolean {
  return `${path}.`.startsWith(`${RESERVED_PREFIX}.`);
}

export function isReservedType(type: string): boolean {
  return type.startsWith(`${RESERVED_PREFIX}.`);
}
