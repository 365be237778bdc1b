/**
 * Folds the counted events of a block into absolute rollup rows.
 *
 * What is usual (a safe integer that is no finer than the row's totals, and sums that stay safe) is added here, in a row
 * whose every field lies together (rollup-rows.ts); anything else the rows add themselves.
 */
import { positionInShard } from './position-in-shard.ts';
import { WIDE, type Contributions } from './prepare.ts';
import {
  EVENTS,
  INCARNATION_SHIFT,
  LATEST,
  LATEST_MS,
  LATEST_POSITION,
  MAX,
  MIN,
  msOfHour,
  POSITION,
  POWERS,
  SCALE,
  SCALE_MASK,
  SUM,
  TOUCHED,
  WIDE_ROW,
  type RollupRows,
} from './rollup-rows.ts';
import { PAGE_MASK, PAGE_SHIFT } from './row-pages.ts';
import { COUNTED } from './verdict.ts';

export interface Foldable {
  readonly incarnation: number;
  readonly sequence: number;
  /** Epoch milliseconds of each event. */
  readonly time: Float64Array;
  readonly verdicts: Uint8Array;
  readonly contributions: Contributions;
}

/**
 * Positions must come in order.
 *
 * @param rowOf the row of each of the block's keys, by the key's number
 * @param touched gets each row that changed, once for each `mark`
 */
export function foldBlock(
  block: Foldable,
  rows: RollupRows,
  rowOf: ArrayLike<number>,
  mark: number,
  touched: number[],
): void {
  const { start, key, mantissa, scale, wide } = block.contributions;
  const { verdicts, time, incarnation } = block;
  const { doubles: doublesOf, words: wordsOf } = rows.pages;
  for (let at = 0; at < verdicts.length; at++) {
    if (verdicts[at] !== COUNTED) continue;
    const position = positionInShard(block.sequence, at);
    const timeMs = time[at]!;
    const ms = msOfHour(timeMs);
    const end = start[at + 1]!;
    for (let one = start[at]!; one < end; one++) {
      const row = rowOf[key[one]!]!;
      const page = row >>> PAGE_SHIFT;
      const doubles = doublesOf[page]!;
      const words = wordsOf[page]!;
      const place = row & PAGE_MASK;
      const word = place * 2;
      // It is in the totals already.
      if (position <= doubles[place + POSITION]!) continue;
      if (words[word + TOUCHED] !== mark) {
        words[word + TOUCHED] = mark;
        touched.push(row);
      }
      const scales = words[word + SCALE]!;
      const finer = (scales & SCALE_MASK) - scale[one]!;
      const isUsual = finer >= 0 && (scales & SCALE_MASK) !== WIDE_ROW;
      const value = isUsual ? mantissa[one]! * POWERS[finer]! : 0;
      const sum = doubles[place + SUM]! + value;
      if (!isUsual || !Number.isSafeInteger(value) || !Number.isSafeInteger(sum)) {
        if (scale[one] === WIDE) rows.addQuantity(row, wide[mantissa[one]!]!, timeMs, position, incarnation);
        else rows.addNumber(row, mantissa[one]!, scale[one]!, timeMs, position, incarnation);
        continue;
      }
      const isFirst = doubles[place + EVENTS] === 0;
      doubles[place + POSITION] = position;
      doubles[place + SUM] = sum;
      doubles[place + EVENTS]! += 1;
      if (isFirst || value < doubles[place + MIN]!) doubles[place + MIN] = value;
      if (isFirst || value > doubles[place + MAX]!) doubles[place + MAX] = value;
      // Of two at one time, the later in the log is the latest.
      if (isFirst || ms >= words[word + LATEST_MS]!) {
        doubles[place + LATEST] = value;
        doubles[place + LATEST_POSITION] = position;
        words[word + LATEST_MS] = ms;
        words[word + SCALE] = (scales & SCALE_MASK) | (incarnation << INCARNATION_SHIFT);
      }
    }
  }
}
