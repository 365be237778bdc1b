/**
 * The SQL of refused events. Everything that comes from a request is a bound parameter.
 *
 * Events that were refused stand in the view `refused`, newest accepted first. *Unmatched* events are no refusal:
 * they count, and no meter takes them. They are raw rows without a row in `contributions`, found by taking one from
 * the other within a range of hours, so that the set to compare with is bounded. (A void is none: no meter should.)
 */
import { TYPE_VOID } from '../../contract/corrections.ts';

export const REFUSING = ['conflict', 'late', 'rejected', 'unmatched'] as const;
export type Refusing = (typeof REFUSING)[number];

export interface EventRow {
  readonly id: string;
  readonly source: string;
  readonly type: string;
  readonly subject: string;
  readonly time_ms: string;
  readonly accepted_ms: string;
  readonly data: Readonly<Record<string, string>>;
  readonly shard: number;
  readonly position: string;
  readonly identity: string;
}

export interface RefusedRow extends EventRow {
  readonly verdict: Refusing;
  /** '' where the verdict is the reason. */
  readonly code: string;
}

export interface TypeRow {
  readonly verdict: Refusing;
  readonly code: string;
  readonly type: string;
  readonly events: string;
  readonly first_ms: string;
  readonly last_ms: string;
}

/** What is wanted: '' for any. Times are epoch milliseconds, half-open. */
export interface RefusedWanted {
  readonly tenant: string;
  readonly verdict: string;
  readonly code: string;
  readonly type: string;
  readonly subject: string;
  readonly from: number;
  readonly to: number;
}

const EVENT = `id, source, type, subject, toString(toUnixTimestamp64Milli(time)) AS time_ms,
  toString(toUnixTimestamp64Milli(accepted_at)) AS accepted_ms, data, shard, toString(position) AS position,
  toString(identity) AS identity`;

const REFUSED = `
FROM refused
WHERE tenant = {tenant:String}
  AND ({verdict:String} = '' OR verdict = {verdict:String})
  AND ({code:String} = '' OR if(code = '', verdict, code) = {code:String})
  AND ({type:String} = '' OR type = {type:String})
  AND ({subject:String} = '' OR subject = {subject:String})
  AND time >= fromUnixTimestamp64Milli({from:Int64}, 'UTC') AND time < fromUnixTimestamp64Milli({to:Int64}, 'UTC')`;

/** One page; `acceptedMs`, `shard`, `position` are those of the last row given when `paged` is 1. */
export const SELECT_REFUSED = `
SELECT verdict, code, ${EVENT}${REFUSED}
  AND ({paged:UInt8} = 0 OR (toUnixTimestamp64Milli(accepted_at), shard, refused.position)
    < ({lastMs:Int64}, {lastShard:UInt16}, {lastPosition:UInt64}))
ORDER BY accepted_at DESC, shard DESC, refused.position DESC
LIMIT {limit:UInt32}`;

const TYPE = `toString(count()) AS events, toString(toUnixTimestamp64Milli(min(time))) AS first_ms,
  toString(toUnixTimestamp64Milli(max(time))) AS last_ms`;

export const SELECT_REFUSED_TYPES = `
SELECT verdict, code, type, ${TYPE}${REFUSED}
GROUP BY verdict, code, type
ORDER BY count() DESC, verdict, code, type
LIMIT {limit:UInt32}`;

const HOURS = `hour >= toStartOfHour(fromUnixTimestamp64Milli({from:Int64}, 'UTC'))
  AND hour < fromUnixTimestamp64Milli({to:Int64}, 'UTC')`;

const UNMATCHED = `
FROM event_rows AS e
WHERE tenant = {tenant:String} AND ${HOURS}
  AND time >= fromUnixTimestamp64Milli({from:Int64}, 'UTC') AND time < fromUnixTimestamp64Milli({to:Int64}, 'UTC')
  AND ({type:String} = '' OR type = {type:String})
  AND ({subject:String} = '' OR subject = {subject:String})
  AND type != '${TYPE_VOID}'
  AND (e.shard, e.position) NOT IN (
    SELECT shard, position FROM contributions
    WHERE tenant = {tenant:String} AND ${HOURS} AND ({subject:String} = '' OR subject = {subject:String}))`;

export const SELECT_UNMATCHED = `
SELECT 'unmatched' AS verdict, '' AS code, ${EVENT}${UNMATCHED}
  AND ({paged:UInt8} = 0 OR (toUnixTimestamp64Milli(time), shard, e.position)
    < ({lastMs:Int64}, {lastShard:UInt16}, {lastPosition:UInt64}))
ORDER BY time DESC, shard DESC, e.position DESC
LIMIT {limit:UInt32}`;

export const SELECT_UNMATCHED_TYPES = `
SELECT 'unmatched' AS verdict, '' AS code, type, ${TYPE}${UNMATCHED}
GROUP BY type
ORDER BY count() DESC, type
LIMIT {limit:UInt32}`;

/** What was counted under some identities, looked for in the hours where it most likely is. */
export const SELECT_COUNTED_NEAR = `
SELECT ${EVENT} FROM event_rows
WHERE tenant = {tenant:String} AND hour IN {hours:Array(DateTime('UTC'))} AND event_rows.identity IN {identities:Array(UUID)}`;

/** The same wherever it is: the index on the identity skips nearly all of the rows, but is read in whole. */
export const SELECT_COUNTED = `
SELECT ${EVENT} FROM event_rows
WHERE tenant = {tenant:String} AND event_rows.identity IN {identities:Array(UUID)}`;
