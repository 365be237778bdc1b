/** Folds the counted events of a block into absolute rollup rows. */
import { positionInShard } from './position-in-shard.ts';
import { WIDE, type Contributions } from './prepare.ts';
import type { RollupRows } from './rollup-rows.ts';
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
 * @param rowOf the row of each of the block's keys, by the key's number
 * @param touched gets each row that changed, once for each `mark`
 */
export function foldBlock(
  block: Foldable,
  rows: RollupRows,
  rowOf: Int32Array,
  mark: number,
  touched: number[],
): void {
  const { start, key, mantissa, scale, wide } = block.contributions;
  const { verdicts, time, incarnation } = block;
  for (let at = 0; at < verdicts.length; at++) {
    if (verdicts[at] !== COUNTED) continue;
    const position = positionInShard(block.sequence, at);
    const end = start[at + 1]!;
    for (let one = start[at]!; one < end; one++) {
      const row = rowOf[key[one]!]!;
      const added =
        scale[one] === WIDE
          ? rows.foldQuantity(row, wide[mantissa[one]!]!, time[at]!, position, incarnation)
          : rows.fold(row, mantissa[one]!, scale[one]!, time[at]!, position, incarnation);
      if (added && rows.touchedIn[row] !== mark) {
        rows.touchedIn[row] = mark;
        touched.push(row);
      }
    }
  }
}
