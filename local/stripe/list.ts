// Stripe's list object: newest first, `limit` of 1 to 100 (10 when absent), cursors by id, `has_more`.
import { invalid, missing } from './error.ts';
import type { Json, JsonObject } from './operation.ts';
import { hash, text, whole } from './params.ts';
import type { Params } from './params.ts';

const limitMax = 100;
const limitDefault = 10;

/**
 * The page of `records` that the parameters ask for. `records` are in the order of the answer.
 * With `ending_before` the page is the one that ends right before it.
 */
export function page<T extends { id: string }>(
  records: T[],
  params: Params,
  url: string,
  kind: string,
  present: (record: T) => Json,
  idOf: (record: T) => string = (record) => record.id,
): JsonObject {
  const limit = readLimit(params);
  const position = (name: string): number | undefined => {
    const id = text(params, name);
    if (id === undefined) return undefined;
    const index = records.findIndex((record) => idOf(record) === id);
    if (index < 0) throw missing(kind, id, name, 400);
    return index;
  };
  const after = position('starting_after');
  const before = position('ending_before');
  if (after !== undefined && before !== undefined) {
    throw invalid(
      'You may only specify one of these parameters: ending_before, starting_after.',
      'parameters_exclusive',
    );
  }
  const start = before === undefined ? (after ?? -1) + 1 : Math.max(0, before - limit);
  const end = before === undefined ? Math.min(records.length, start + limit) : before;
  return {
    object: 'list',
    url,
    has_more: before === undefined ? end < records.length : start > 0,
    data: records.slice(start, end).map(present),
  };
}

function readLimit(params: Params): number {
  const limit = whole(params, 'limit') ?? limitDefault;
  if (limit > limitMax || limit < 1) {
    const bound = limit < 1 ? 'greater than or equal to 1' : `less than or equal to ${limitMax}`;
    throw invalid(
      `This value must be ${bound} (it currently is '${limit}').`,
      'parameter_invalid_integer',
      'limit',
    );
  }
  return limit;
}

/** `created=5` or `created[gte]=5&created[lt]=9`, in seconds. */
export function inRange(params: Params, name: string, value: number | null): boolean {
  const wanted = params[name];
  if (wanted === undefined) return true;
  if (value === null) return false;
  if (typeof wanted === 'number') return value === wanted;
  const range = hash(params, name) ?? {};
  const bound = (key: string) => whole(range, key);
  const [gt, gte, lt, lte] = [bound('gt'), bound('gte'), bound('lt'), bound('lte')];
  return (
    (gt === undefined || value > gt) &&
    (gte === undefined || value >= gte) &&
    (lt === undefined || value < lt) &&
    (lte === undefined || value <= lte)
  );
}
