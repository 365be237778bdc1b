// Which parts and sizes a command line asks for.
import { SIZES } from './command.ts';
import { GROWTH_PARTS, type GrowthPart } from './figures.ts';

export interface Choice {
  readonly part: GrowthPart;
  readonly sizes: readonly number[];
}

const LARGEST: Readonly<Record<GrowthPart, number>> = {
  // Names of subjects have six digits.
  subjects: 999_999,
  keys: 1_000_000_000,
  shards: 64,
  queries: 1_000_000_000,
};
const LEAST: Readonly<Record<GrowthPart, number>> = { subjects: 2, keys: 10_000, shards: 1, queries: 1_000 };

/** Lists separated by commas; absent: all parts, and the sizes of each. Null when they make no sense. */
export function choiceOf(only: string | undefined, sizes: string | undefined): Choice[] | null {
  const names = only === undefined ? GROWTH_PARTS : only.split(',');
  const parts = GROWTH_PARTS.filter((part) => names.includes(part));
  if (parts.length !== names.length) return null;
  if (sizes === undefined) return parts.map((part) => ({ part, sizes: SIZES[part] }));
  const [part, ...others] = parts;
  if (part === undefined || others.length > 0) return null;
  const chosen = sizes.split(',').map(Number);
  const fits = (size: number): boolean =>
    Number.isSafeInteger(size) && size >= LEAST[part] && size <= LARGEST[part];
  return chosen.every(fits) ? [{ part, sizes: chosen }] : null;
}
