import type { RecordedEvent } from './options.ts';

export interface EncodedEvent {
  readonly json: string;
  readonly bytes: number;
}

/**
 * The event as it goes over the wire, now and at every retry: what is done to the object afterwards changes
 * nothing. Throws a TypeError for what JSON would change in silence (NaN, Infinity, an invalid date, a function)
 * or cannot hold at all (a cycle). A bigint becomes decimal text, which the meters read as the exact number.
 */
export function encodeEvent(
  event: RecordedEvent,
  defaults: { readonly source: string | undefined; newId(): string; now(): number },
): EncodedEvent {
  const { id, source = defaults.source, time } = event;
  // An event that we name ourselves nobody else will send again, so it can carry the time of its use. Under
  // an id of the caller's, a second copy recorded later would differ from the first one by that time.
  if (time instanceof Date && Number.isNaN(time.getTime())) throw new TypeError('time is an invalid date');
  const stamped = time ?? (id === undefined ? new Date(defaults.now()) : undefined);
  const sent = { ...event, id: id ?? defaults.newId(), source, time: stamped };
  const json = JSON.stringify(sent, exact);
  return { json, bytes: utf8Length(json) };
}

function exact(key: string, value: unknown): unknown {
  switch (typeof value) {
    case 'bigint':
      return value.toString();
    case 'number':
      if (Number.isFinite(value)) return value;
      throw new TypeError(`${key} is ${value}, which JSON cannot hold`);
    case 'function':
    case 'symbol':
      throw new TypeError(`${key} is a ${typeof value}, which JSON cannot hold`);
    default:
      return value;
  }
}

function utf8Length(text: string): number {
  let bytes = text.length;
  for (let at = 0; at < text.length; at++) {
    const unit = text.charCodeAt(at);
    if (unit < 0x80) continue;
    // Each half of a surrogate pair counts two of its four bytes.
    bytes += unit < 0x800 || (unit >= 0xd800 && unit <= 0xdfff) ? 1 : 2;
  }
  return bytes;
}
