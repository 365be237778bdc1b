/**
 * A backfill makes a meter count all raw events of some hours by one of its versions, whatever stood in the log when:
 * events from before the meter was defined, or events that another version counted.
 *
 * It is told to the logs in up to three messages (control.ts). `proposed` changes nothing, and lets the difference be
 * looked at. From `committed` on the hours count by the version, events that come later included. `reverted` ends
 * that: they count again as if it had never been. Each of the three happens once, in this order; what was reverted is
 * made again under another id.
 */
import { METER_LIMITS } from './meter.ts';
import { DAY_MS, HOUR_MS } from './window.ts';

export const BACKFILL_CHANGES = ['proposed', 'committed', 'reverted'] as const;
export type BackfillChange = (typeof BACKFILL_CHANGES)[number];

export interface Backfill {
  /** Unique for its tenant, for ever. */
  readonly id: string;
  /** The key of the meter. */
  readonly meter: string;
  readonly version: number;
  /** Start of the first hour, epoch milliseconds. */
  readonly fromMs: number;
  /** End of the last hour. */
  readonly toMs: number;
}

export const BACKFILL_LIMITS = {
  idLength: 64,
  /** A recount takes seconds for each 10,000,000 events, in which the process that counts them does nothing else. */
  rangeMs: 400 * DAY_MS,
  /** Of one meter, whatever became of them: each is a rule that a question about raw events has to look at. */
  perMeterMax: 200,
  /** How far a log's clock may be behind that of whoever proposes. */
  aheadMs: HOUR_MS,
} as const;

const ID = /^[A-Za-z0-9_-]{1,64}$/;
/** The end of ClickHouse's DateTime. */
const TIME_END_MS = 2 ** 32 * 1_000;

/** Every mistake, each a sentence that names the field; empty when it is sound. */
export function backfillMistakes({ id, version, fromMs, toMs }: Backfill): string[] {
  const mistakes: string[] = [];
  if (!ID.test(id)) mistakes.push(`id: 1 to ${BACKFILL_LIMITS.idLength} letters, digits, _ or -`);
  if (!Number.isSafeInteger(version) || version < 1 || version > METER_LIMITS.versionsMax)
    mistakes.push(`version: a whole number from 1 to ${METER_LIMITS.versionsMax}`);
  if (!isHour(fromMs)) mistakes.push('from: the first instant of an hour, such as 2026-12-01T00:00:00Z');
  if (!isHour(toMs)) mistakes.push('to: the first instant of an hour, such as 2026-12-02T00:00:00Z');
  if (mistakes.length > 0) return mistakes;
  if (toMs <= fromMs) mistakes.push('to: later than from');
  else if (toMs - fromMs > BACKFILL_LIMITS.rangeMs)
    mistakes.push(`to: at most ${BACKFILL_LIMITS.rangeMs / DAY_MS} days behind from`);
  return mistakes;
}

export function sameBackfill(a: Backfill, b: Backfill): boolean {
  return (
    a.id === b.id &&
    a.meter === b.meter &&
    a.version === b.version &&
    a.fromMs === b.fromMs &&
    a.toMs === b.toMs
  );
}

/** Whether they have an hour of a meter in common. */
export function overlaps(a: Backfill, b: Backfill): boolean {
  return a.meter === b.meter && a.fromMs < b.toMs && b.fromMs < a.toMs;
}

function isHour(timeMs: number): boolean {
  return Number.isSafeInteger(timeMs) && timeMs >= 0 && timeMs < TIME_END_MS && timeMs % HOUR_MS === 0;
}
