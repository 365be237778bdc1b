/**
 * What the header fields of a request say of its body: in which format it is, and how it is compressed.
 *
 * A charset may be named when it is UTF-8; JSON and the binding of CloudEvents know no other, and a body in another
 * one would be read as something else than was sent. Other parameters are let through.
 */
import type { BodyFormat } from '../read/body.ts';
import { isJsonMediaType } from '../read/draft.ts';

/** `cloudevents-binary`: the body is the `data` of one event, the attributes are header fields. */
export type BodyKind = BodyFormat | 'cloudevents-binary';

export type Encoding = 'identity' | 'gzip' | 'br';

/** Every media type that is taken, with the format that it names. */
export const MEDIA_TYPES: Readonly<Record<string, BodyFormat>> = {
  'application/json': 'json',
  'application/x-ndjson': 'ndjson',
  'application/ndjson': 'ndjson',
  'application/jsonl': 'ndjson',
  'application/msgpack': 'msgpack',
  'application/x-msgpack': 'msgpack',
  'application/vnd.msgpack': 'msgpack',
  'application/cloudevents+json': 'cloudevents',
  'application/cloudevents-batch+json': 'cloudevents-batch',
};

/** x-gzip is another name of gzip (RFC 9110, section 8.4.1.3). */
export const ENCODINGS: Readonly<Record<string, Encoding>> = {
  identity: 'identity',
  gzip: 'gzip',
  'x-gzip': 'gzip',
  br: 'br',
};

/**
 * The format that a Content-Type names, or null when it is not taken.
 *
 * @param hasAttributes the header field ce-specversion is there. Then the type is that of `data`, unless it names
 *   a format of CloudEvents (HTTP binding of CloudEvents 1.0, section 3); none at all is JSON then.
 */
export function bodyKind(contentType: string, hasAttributes: boolean): BodyKind | null {
  // Nearly all of them; the rest costs half a microsecond.
  if (contentType === 'application/json' && !hasAttributes) return 'json';
  const [head = '', ...parameters] = contentType.split(';');
  const type = head.trim().toLowerCase();
  if (!parameters.every(isTaken)) return null;
  const format = Object.hasOwn(MEDIA_TYPES, type) ? MEDIA_TYPES[type]! : null;
  if (!hasAttributes || format === 'cloudevents' || format === 'cloudevents-batch') return format;
  return type === '' || isJsonMediaType(type) ? 'cloudevents-binary' : null;
}

/** How a body is compressed, or null when it is in a way, or more than once, that is not undone here. */
export function encodingOf(contentEncoding: string): Encoding | null {
  if (contentEncoding === '') return 'identity';
  let found: Encoding = 'identity';
  for (const name of contentEncoding.split(',')) {
    const coding = name.trim().toLowerCase();
    if (coding === '') continue;
    if (!Object.hasOwn(ENCODINGS, coding)) return null;
    const encoding = ENCODINGS[coding]!;
    if (encoding === 'identity') continue;
    if (found !== 'identity') return null;
    found = encoding;
  }
  return found;
}

/** A parameter of a media type: anything but another charset. */
function isTaken(parameter: string): boolean {
  const equals = parameter.indexOf('=');
  if (equals < 0 || parameter.slice(0, equals).trim().toLowerCase() !== 'charset') return true;
  const value = parameter
    .slice(equals + 1)
    .trim()
    .toLowerCase();
  return value === 'utf-8' || value === '"utf-8"';
}
