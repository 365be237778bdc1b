/**
 * The binary content mode of the HTTP binding of CloudEvents 1.0 (sections 3.1 and 3.1.3.2): the attributes of one
 * event are header fields, the body is its `data`.
 *
 * The event is written as JSON in the structured mode and read by the reader of all others, so that the same event
 * means the same in either mode. The body goes in as it came. It must be one JSON value by itself: one that closed
 * an object early and went on with attributes of its own would otherwise pass.
 *
 * Of the attributes, those that are kept are read; extensions are let through, as in the structured mode.
 *
 * A value is percent-encoded UTF-8. One with a raw byte beyond ASCII is refused. Not all of them can be: the HTTP
 * parser cuts such bytes off the ends of a value, as if they were white space (uWebSockets 20, where `char` is
 * signed), before anybody sees them. The binding forbids senders to send them.
 */
import { EVENT_LIMITS } from '../../contract/event.ts';
import { REJECTIONS, type EdgeRejectionCode, type RejectedEvent } from '../../contract/rejections.ts';

/** Where an attribute is a header field of its own: `ce-` and its name. */
export const ATTRIBUTE_PREFIX = 'ce-';
const ATTRIBUTES: ReadonlySet<string> = new Set([
  'specversion',
  'id',
  'source',
  'type',
  'subject',
  'time',
  'voids',
  'amends',
]);
const NOT_ENCODED = 'The value must be percent-encoded UTF-8, in printable ASCII.';

export type BinaryHead =
  /** The event as JSON up to its data. */
  | { readonly sound: true; readonly json: string }
  | { readonly sound: false; readonly rejected: RejectedEvent };

/** Reads the attributes. `each` calls back with every field of the header, names in lower case. */
export function binaryHead(each: (field: (name: string, value: string) => void) => void): BinaryHead {
  const texts = new Map<string, string>();
  const faults: { readonly code: EdgeRejectionCode; readonly message: string }[] = [];
  each((name, value) => {
    if (!name.startsWith(ATTRIBUTE_PREFIX)) return;
    const attribute = name.slice(ATTRIBUTE_PREFIX.length);
    if (!ATTRIBUTES.has(attribute)) return;
    const text = attributeText(value);
    if (text === null) faults.push({ code: 'text_not_unicode', message: `${name}: ${NOT_ENCODED}` });
    else if (texts.has(attribute))
      faults.push({ code: 'key_repeated', message: `${name}: ${REJECTIONS.key_repeated.message}` });
    else texts.set(attribute, text);
  });
  const fault = faults[0];
  if (fault !== undefined) return { sound: false, rejected: { index: 0, id: idOf(texts), ...fault } };
  const members = [...texts].map(([name, text]) => `"${name}":${JSON.stringify(text)},`);
  return { sound: true, json: `{${members.join('')}"data":` };
}

/** The id to name a refused event by: a text that is short enough to be one. */
function idOf(texts: ReadonlyMap<string, string>): string | null {
  const id = texts.get('id');
  return id === undefined || utf8.encode(id).length > EVENT_LIMITS.idBytes ? null : id;
}

const utf8 = new TextEncoder();

/** The event with its data, as JSON; null when the body is not one JSON value. Without a body there is no data. */
export function structured(head: string, body: Uint8Array): Uint8Array | null {
  if (body.length === 0) return utf8.encode(`${head}null}`);
  if (!mayBeOneValue(body)) return null;
  const before = utf8.encode(head);
  const event = new Uint8Array(before.length + body.length + 1);
  event.set(before);
  event.set(body, before.length);
  event[event.length - 1] = 0x7d;
  return event;
}

/** Null when it is malformed. One round of percent-decoding, after the quotes of older versions are off. */
export function attributeText(value: string): string | null {
  const unquoted = value.startsWith('"') ? unquote(value) : value;
  if (unquoted === null || !/^[\x20-\x7e]*$/.test(unquoted)) return null;
  try {
    // Of a sequence that is no UTF-8, overlong ones and surrogates included, it makes an exception, and of
    // `%` without two digits.
    return decodeURIComponent(unquoted);
  } catch {
    return null;
  }
}

/** RFC 9110, section 5.6.4: a quoted string, backslashes before what is meant as it stands. */
function unquote(value: string): string | null {
  if (!/^"(?:[^"\\]|\\.)*"$/.test(value)) return null;
  return value.slice(1, -1).replace(/\\(.)/g, '$1');
}

/**
 * Whether no JSON value ends before the body does. It is one value, then, if what it is put into is JSON: a reader
 * finds the brackets and quotes where this does.
 */
export function mayBeOneValue(body: Uint8Array): boolean {
  const start = skipSpace(body, 0);
  if (start === body.length) return false;
  const first = body[start]!;
  let end: number;
  if (first === OPEN_OBJECT || first === OPEN_ARRAY) end = endOfBrackets(body, start);
  else if (first === QUOTE) end = endOfString(body, start);
  else end = endOfWord(body, start);
  return end > start && skipSpace(body, end) === body.length;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN_OBJECT = 0x7b;
const OPEN_ARRAY = 0x5b;
const SPACE: ReadonlySet<number> = new Set([0x20, 0x0a, 0x0d, 0x09]);

/** Behind the bracket that closes the one at `start`, or 0 when none does. */
function endOfBrackets(body: Uint8Array, start: number): number {
  let depth = 0;
  for (let at = start; at < body.length; at++) {
    const byte = body[at]!;
    if (byte === QUOTE) {
      at = endOfString(body, at) - 1;
      if (at < 0) return 0;
    } else if ((byte | 0x20) === OPEN_OBJECT) {
      depth += 1;
    } else if ((byte | 0x20) === 0x7d) {
      depth -= 1;
      if (depth === 0) return at + 1;
    }
  }
  return 0;
}

/** Behind the quote that ends the string at `start`, or 0 when none does. */
function endOfString(body: Uint8Array, start: number): number {
  for (let at = start + 1; at < body.length; at++) {
    if (body[at] === QUOTE) return at + 1;
    if (body[at] === BACKSLASH) at += 1;
  }
  return 0;
}

/** Behind the letters, digits and signs of a number or literal. */
function endOfWord(body: Uint8Array, start: number): number {
  let at = start;
  while (at < body.length && isWord(body[at]!)) at += 1;
  return at;
}

function isWord(byte: number): boolean {
  const letter = byte | 0x20;
  return (
    (letter >= 0x61 && letter <= 0x7a) ||
    (byte >= 0x30 && byte <= 0x39) ||
    byte === 0x2d ||
    byte === 0x2b ||
    byte === 0x2e
  );
}

function skipSpace(body: Uint8Array, from: number): number {
  let at = from;
  while (at < body.length && SPACE.has(body[at]!)) at += 1;
  return at;
}
