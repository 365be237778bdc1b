/** What a case of one event is, and what most of them are made with. */
import type { EdgeRejectionCode } from '../../contract/rejections.ts';
import type { WayName } from './deck.ts';
import { dict, num, type Dict, type Entry, type Value } from './values.ts';

export interface Window {
  readonly nowMs: number;
  readonly ageMsMax: number;
  readonly aheadMsMax: number;
  /** How far from the edges of the window it is tried: nothing where the reader's clock stands still. */
  readonly slackMs: number;
}

export interface EventCase {
  readonly name: string;
  /** Null: it is taken. Told apart for CloudEvents, which require and allow more. */
  readonly code: EdgeRejectionCode | null | ((isCloudEvent: boolean) => EdgeRejectionCode | null);
  /** From a good event. `tag` is in no other input. */
  readonly event: (good: Dict, tag: string) => Value;
  readonly timeMs?: number;
  readonly only?: (way: WayName) => boolean;
}

export type Change = EventCase['event'];
/** A field of the event, set. */
export const set =
  (name: string, value: Value): Change =>
  (good) =>
    good.with(name, value);
/** A text as the name of a case. */
export const quoted = (value: string): string =>
  JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);

export const data =
  (value: Value): Change =>
  (good) =>
    good.with('data', value);
/** One field in data, and one value in a list in data. */
export const field = (value: Value): Change => data(dict(['v', value]));
export const listed = (value: Value): Change => data(dict(['v', [value]]));

/** `levels` objects or lists, one in the other, around a value. */
export function nested(levels: number, wrap: (inner: Value) => Value, inner: Value): Value {
  return levels === 0 ? inner : nested(levels - 1, wrap, wrap(inner));
}
export const inDict = (inner: Value): Value => dict(['a', inner]);
export const inList = (inner: Value): Value => [inner];
export const many = (count: number): Entry[] =>
  Array.from({ length: count }, (_, at) => [`f${at}`, num(at)] as const);

/** All but binary mode, where attributes are header fields. */
export const isStructured = (way: WayName): boolean => way !== 'binary';
