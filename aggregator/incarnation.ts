/**
 * Whether the stream is still the log that was counted, and a new incarnation of the shard when it is not: when
 * the broker has lost the end of it, has a hole in it, or has another stream in its place. Counting goes on, and
 * every event that was ever durable is counted once.
 *
 * How it is found. Every message that is read has a mark (log-mark.ts) in ClickHouse before anything that follows
 * from it, so the newest mark is as far as anything can speak of the log. If the same message still stands there,
 * so does everything before it, for a log is only ever appended to. That is compared at the start and whenever
 * reading begins anew (read-shard.ts): a log that was cut back can have grown beyond its old end in between. One thing
 * that was not there may come back in front of it: a hole that was passed over (passed-over.ts), so that is looked at too.
 *
 * Where reading goes on. The log that was counted and the one that is there now have a beginning in common, the
 * surviving prefix, and the marks tell its end to the message. A mark counts only up to the watermark of its
 * incarnation. Reading goes on behind the prefix, so nothing of it is received or judged again. What was lost and
 * is sent again is received again, and is a duplicate: that is what happened. Where marks are missing (they are
 * kept for 35 days) the prefix is not proven, and what cannot be proven is read again: then it shows as duplicates
 * (and refused events show twice), while what counts still counts once.
 *
 * Why it is exact. The number of the incarnation stands in front in every position. So each event that is durable
 * stands at a smaller position than all that is read from now on: sent again it is a duplicate. Definitions of
 * meters that ClickHouse has stay in force in the same way. What the old incarnation read but did not make durable
 * is not counted and has no entry: sent again it counts.
 *
 * What a crashed flush left behind the old watermark would be completed by reading the same messages again; they
 * may be gone. Raw rows are the truth, so those events are counted, and the rest is worked out from them. The
 * steps, of which each may be repeated:
 *
 * 1. Write down the beginning. From here on there is no way back: a start that finds it goes on from here, even if
 *    the broker has found its data again, because positions of the new incarnation may be in use.
 * 2. Wait for inserts that a killed process left running, or rows could appear behind our back.
 * 3. Finish the old incarnation: the rollups of all hours with raw rows behind the watermark, from raw rows; the
 *    counters, from raw and refused rows; received is their sum. A flush writes meters and raw rows first, then
 *    what was refused, so no rollup or counter there holds an event without its row.
 * 4. Write the watermark of the new incarnation. It is higher than every position of the old one, so from now on it
 *    vouches for all of it.
 *
 * A process that notices while it runs first makes durable what it has read, so step 3 then finds nothing to do,
 * and messages that only it still had are not lost. Nobody else writes for the shard meanwhile: whoever
 * did before was fenced out by the take-over that came before all this (ownership.ts).
 */
import { endOfMessage, INCARNATION_MAX } from '../contract/position.ts';
import { closingPosition, type Beginning } from './incarnation-rows.ts';
import type { LogMark, StreamFacts } from './log-mark.ts';
import type { Loss } from './loss.ts';
import type { ShardLog, Tables, Timing } from './ports.ts';
import { Counted, loadPassedOver, type PassedOver } from './passed-over.ts';
import { findSurvivors } from './survivors.ts';
import { fingerprintOf, IncarnationError, lossOf, type Watermark } from './watermark.ts';

/** The first incarnation of a log. */
const FIRST = 1;

/** Where counting goes on. */
export interface Standing {
  readonly watermark: Watermark;
  /** The sequence behind which the incarnation began. */
  readonly beganBehind: number;
  /**
   * The newest message that any table speaks of, as it stands in the log: at the watermark, or ahead of it when a
   * flush has crashed. Null when there is none. As long as it is there, everything before it is as it was; rows at
   * these positions may be there already, so whoever reads on must know of it.
   */
  readonly last: LogMark | null;
  /**
   * Up to where the log may have a hole behind the watermark: up to its end when the incarnation began just now, and
   * nowhere otherwise, for a hole can have grown since.
   */
  readonly holeUntil: number;
  /** The holes that were passed over. Nothing new is in them. */
  readonly passedOver: PassedOver;
  /** Null when the log is the one that was counted. */
  readonly loss: Loss | null;
}

export interface IncarnationOptions {
  readonly tables: Tables;
  readonly shardLog: ShardLog;
  readonly shard: number;
  readonly timing: Timing;
  readonly signal: AbortSignal;
  /** A hole that was met in reading (read-shard.ts): a new incarnation begins, whatever else is found. */
  readonly hole?: string | null;
}

/** @throws IncarnationError when nothing that could be done would be right. */
export async function findStanding(o: IncarnationOptions): Promise<Standing> {
  const { tables, shardLog, shard } = o;
  for (;;) {
    // The tables first and then the stream, which can only be ahead of what anybody has written.
    const beginnings = await tables.loadBeginnings(shard);
    const stored = await tables.loadWatermark(shard);
    const begun = beginnings.at(-1)?.watermark;
    // Without a watermark nothing was read yet but in the first incarnation: later ones write theirs first.
    const watermark = stored ?? beginnings[0]?.watermark ?? (await beginFirst(o));
    if (watermark === null) continue;
    const beginning = beginnings.find((one) => one.watermark.incarnation === watermark.incarnation);
    const beganBehind = beginning?.watermark.sequence ?? 0;
    const newest = await tables.loadNewestMark(shard, watermark.incarnation);
    const countedTo = await tables.loadCountedTo(shard);
    const stream = await shardLog.facts();
    const at = await shardLog.messageAt(watermark.sequence);

    const known = { tables, shard, beginnings, watermark };
    const passedOver = await loadPassedOver(known, new Counted(known), stream.created, true);

    const interrupted = begun !== undefined && begun.incarnation > watermark.incarnation;
    const reason = interrupted
      ? beginnings.at(-1)!.reason
      : (lossOf(
          { watermark, newest, countedTo, beganBehind },
          {
            ...stream,
            atNewest: newest === null ? null : await shardLog.messageAt(newest.sequence),
            fingerprintAtWatermark: at === null ? null : fingerprintOf(at.message),
            hasNext: (await shardLog.messageAt(watermark.sequence + 1)) !== null,
          },
        ) ??
        o.hole ??
        (await passedOver.foundAgain(shardLog)));
    if (reason === null) {
      const last = newest !== null && newest.sequence > watermark.sequence ? newest : at;
      return { watermark, beganBehind, last, holeUntil: 0, passedOver, loss: null };
    }

    // Another process may have counted on, and purged, since the watermark was read.
    const again = await tables.loadWatermark(shard);
    if (again?.incarnation !== stored?.incarnation || again?.sequence !== stored?.sequence) continue;
    const lastKnown = Math.max(watermark.sequence, interrupted ? 0 : countedTo, newest?.sequence ?? 0);
    return begin(o, { beginnings, watermark, reason, stream, known: lastKnown });
  }
}

/** The first time: nothing is in the tables, and nothing may be missing in the log. Null when it is not the first. */
async function beginFirst({
  tables,
  shardLog,
  shard,
  timing,
}: IncarnationOptions): Promise<Watermark | null> {
  const stream = await shardLog.facts();
  if (stream.firstSequence > 1) {
    // Another process may have begun, counted and purged since the tables were asked.
    if ((await tables.loadWatermark(shard)) !== null) return null;
    throw new IncarnationError(
      `${stream.name} starts at ${stream.firstSequence}, but the tables know nothing of it: they are not the tables ` +
        'of this log, or they were lost. Give the process its right CLICKHOUSE_URL, or restore them',
    );
  }
  const watermark: Watermark = {
    incarnation: FIRST,
    sequence: 0,
    streamCreated: stream.created,
    fingerprint: '',
    acceptedAtMs: 0,
  };
  const nowMs = timing.now();
  await tables.saveBeginning(shard, { watermark, sequenceBefore: 0, reason: 'the first' }, nowMs);
  await tables.insertWatermarks([{ shard, watermark }], nowMs);
  return watermark;
}

interface Found {
  readonly beginnings: readonly Beginning[];
  /** Of the incarnation that ends. */
  readonly watermark: Watermark;
  readonly reason: string;
  readonly stream: StreamFacts;
  /** The highest sequence of the old log that is known of. */
  readonly known: number;
}

async function begin(o: IncarnationOptions, found: Found): Promise<Standing> {
  const { tables, shard, timing } = o;
  const { watermark: old, reason, stream } = found;
  const incarnation = old.incarnation + 1;
  if (incarnation > INCARNATION_MAX) {
    throw new IncarnationError(
      `${reason}. This would be incarnation ${incarnation} of shard ${shard}, and ${INCARNATION_MAX} is the last ` +
        'that a position can hold. Find out what keeps losing the log; then this deployment needs a new ClickHouse database',
    );
  }
  const { survived, at } = await findSurvivors({ ...o, ...found });
  const watermark: Watermark = {
    incarnation,
    sequence: survived,
    streamCreated: stream.created,
    fingerprint: at === null ? '' : fingerprintOf(at.message),
    acceptedAtMs: old.acceptedAtMs,
  };

  // 1. The beginning. A crash after this comes back here, and may find another prefix: nothing was read yet.
  await tables.saveBeginning(shard, { watermark, sequenceBefore: old.sequence, reason }, timing.now());

  // 2. Nobody writes under the old incarnation any more.
  await insertsSettled(o);

  // 3. What the old one left behind its watermark. A crash after this finds it finished.
  const behind = endOfMessage(old.incarnation, old.sequence);
  const unfinished = { shard, behind, until: closingPosition(incarnation) };
  const left = await tables.countUnfinished(unfinished);
  await tables.finishIncarnation(unfinished);

  // 4. The watermark, with the mark that says which message it is.
  if (at !== null) await tables.insertMarks([{ shard, incarnation, marks: [at] }], timing.now());
  await tables.insertWatermarks([{ shard, watermark }], timing.now());

  const beginnings = found.beginnings.filter((one) => one.watermark.incarnation < incarnation);
  const beginning: Beginning = { watermark, sequenceBefore: old.sequence, reason };
  const known = { tables, shard, beginnings: [...beginnings, beginning], watermark };
  const lostTo = Math.max(found.known, left.until);
  return {
    watermark,
    beganBehind: survived,
    last: at,
    holeUntil: stream.lastSequence,
    passedOver: await loadPassedOver(known, new Counted(known), stream.created, true),
    loss: {
      reason,
      incarnation,
      lostFrom: survived + 1,
      lostTo,
      countedTo: old.sequence,
      countedBeyond: left.events,
      readFrom: survived + 1,
      acceptedAtMs: old.acceptedAtMs,
    },
  };
}

const SETTLE_LOOK_EVERY_MS = 100;
const SETTLE_LOOKS_MAX = 600;

/** Waits until the inserts that run now have ended. Later ones are of nobody who still counts the old incarnation. */
export async function insertsSettled({
  tables,
  timing,
  signal,
}: {
  readonly tables: Pick<Tables, 'runningInserts'>;
  readonly timing: Timing;
  readonly signal: AbortSignal;
}): Promise<void> {
  const before = await tables.runningInserts();
  for (let look = 0; before.size > 0; look++) {
    if (look === SETTLE_LOOKS_MAX)
      throw new Error('inserts from before are still running; a new incarnation has to wait for them');
    await timing.sleep(SETTLE_LOOK_EVERY_MS, signal);
    if (signal.aborted) throw new Error('stopped while waiting for inserts from before');
    const now = await tables.runningInserts();
    for (const id of before) if (!now.has(id)) before.delete(id);
  }
}
