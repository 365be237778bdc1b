/**
 * What the edge makes of one event in JSON, said a second time: slowly, with strings, recursion and bigints. It
 * shares nothing with ingest/ but the limits. JSON.parse would lose what matters here (repeated keys, digits), so
 * the text is parsed into a tree of its tokens; that tree is compared with what JSON.parse returns.
 */
import { FIELD_LIMITS } from '../contract/fields.ts';
import { parseInstant } from '../contract/window.ts';
import type { PlainEvent, PlainField } from './batch-events.ts';

export type Node =
  | { readonly kind: 'object'; readonly entries: readonly (readonly [key: Quoted, value: Node])[] }
  | { readonly kind: 'array'; readonly items: readonly Node[] }
  | { readonly kind: 'number'; readonly raw: string }
  | { readonly kind: 'word'; readonly raw: string }
  | Quoted;

interface Quoted {
  readonly kind: 'string';
  readonly raw: string;
  readonly value: string;
}

/** Parses text that JSON.parse has taken. */
export function parseTokens(text: string): Node {
  let at = 0;
  const space = (): void => {
    while (' \t\n\r'.includes(text[at] ?? 'x')) at += 1;
  };
  const token = (pattern: RegExp): string => {
    const sticky = new RegExp(pattern, 'y');
    sticky.lastIndex = at;
    const [raw] = sticky.exec(text) ?? [''];
    if (raw === '') throw new Error(`no token at ${at} of ${text}`);
    at += raw.length;
    return raw;
  };
  const quoted = (): Quoted => {
    const raw = token(/"(?:[^"\\]|\\.)*"/);
    return { kind: 'string', raw, value: JSON.parse(raw) as string };
  };
  const list = <T>(open: string, close: string, item: () => T): T[] => {
    const items: T[] = [];
    if (text[at++] !== open) throw new Error(`no ${open}`);
    space();
    while (text[at] !== close) {
      items.push(item());
      space();
      if (text[at] === ',') at += 1;
      space();
    }
    at += 1;
    return items;
  };
  const value = (): Node => {
    space();
    switch (text[at]) {
      case '{':
        return {
          kind: 'object',
          entries: list('{', '}', () => {
            const key = quoted();
            space();
            at += 1;
            return [key, value()] as const;
          }),
        };
      case '[':
        return { kind: 'array', items: list('[', ']', value) };
      case '"':
        return quoted();
      case 't':
      case 'f':
      case 'n':
        return { kind: 'word', raw: token(/[a-z]+/) };
      default:
        return { kind: 'number', raw: token(/[-+0-9.eE]+/) };
    }
  };
  return value();
}

/** What JSON.parse would return for the tokens. */
export function meaning(node: Node): unknown {
  switch (node.kind) {
    case 'object': {
      const object: Record<string, unknown> = {};
      for (const [key, value] of node.entries) {
        Object.defineProperty(object, key.value, {
          value: meaning(value),
          enumerable: true,
          configurable: true,
          writable: true,
        });
      }
      return object;
    }
    case 'array':
      return node.items.map(meaning);
    case 'string':
      return node.value;
    default:
      return JSON.parse(node.raw);
  }
}

export interface ModelLimits {
  readonly nowMs: number;
  readonly ageMsMax: number;
  readonly aheadMsMax: number;
  readonly requireSpecversion: boolean;
}

export type ModelVerdict =
  { readonly event: PlainEvent } | { readonly code: string; readonly id: string | null };

const TEXTS = { id: 256, source: 512, type: 128, subject: 256, voids: 256, amends: 256 } as const;
type TextName = keyof typeof TEXTS;
const bytesOf = (text: string): number => new TextEncoder().encode(text).length;
// eslint-disable-next-line no-control-regex -- control characters are what it is about
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/;

class Refusal extends Error {}
const refuse = (code: string): never => {
  throw new Refusal(code);
};

/** What becomes of one event. */
export function judge(node: Node, limits: ModelLimits): ModelVerdict {
  if (node.kind !== 'object') return { code: 'event_not_an_object', id: null };
  // Of a field that is repeated the first is meant; that it is repeated is a fault of its own.
  const sent = new Map<string, Node>();
  for (const [key, value] of node.entries) if (!sent.has(key.value)) sent.set(key.value, value);
  const id = sent.get('id');
  const named =
    id?.kind === 'string' && id.value.isWellFormed() && bytesOf(id.value) <= 256 ? id.value : null;
  try {
    return { event: admit(node.entries, sent, limits) };
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    return { code: error.message, id: named };
  }
}

type Entries = readonly (readonly [key: Quoted, value: Node])[];

function admit(entries: Entries, sent: ReadonlyMap<string, Node>, limits: ModelLimits): PlainEvent {
  // 1. specversion.
  const specversion = present(sent.get('specversion'));
  if (specversion !== null && !(specversion.kind === 'string' && specversion.value === '1.0')) {
    refuse('specversion_unknown');
  }
  if (specversion === null && limits.requireSpecversion) refuse('field_missing');
  // 2. The attributes.
  const text = (name: TextName, optional: boolean): string => {
    const node = present(sent.get(name));
    if (node !== null && node.kind !== 'string') refuse('field_not_text');
    const value = node?.kind === 'string' ? node.value : '';
    if (value === '') return optional ? '' : refuse('field_missing');
    if (!value.isWellFormed()) refuse('text_not_unicode');
    if (bytesOf(value) > TEXTS[name]) refuse('field_too_long');
    if (CONTROL.test(value)) refuse('text_has_control');
    return value;
  };
  const named = (name: TextName): string | null =>
    present(sent.get(name)) === null ? null : text(name, false);
  const [id, source] = [text('id', false), text('source', !limits.requireSpecversion)];
  const [voids, amends] = [named('voids'), named('amends')];
  if (voids !== null && amends !== null) refuse('correction_ambiguous');
  const type = text('type', voids !== null && !limits.requireSpecversion);
  if (voids !== null && type !== '' && type !== 'tallyline.void') refuse('void_has_type');
  if (voids === null && type.startsWith('tallyline.')) refuse('type_reserved');
  const subject = text('subject', voids !== null);
  const time = present(sent.get('time'));
  let timeMs = limits.nowMs;
  if (time !== null) {
    if (time.kind !== 'string') return refuse('field_not_text');
    timeMs = parseInstant(time.value) ?? refuse('time_not_rfc3339');
    if (timeMs < 0 || timeMs < limits.nowMs - limits.ageMsMax) refuse('time_too_old');
    if (timeMs > limits.nowMs + limits.aheadMsMax) refuse('time_too_far_ahead');
  }
  // 3. What else stands there.
  const ours = [...Object.keys(TEXTS), 'time', 'data', 'specversion', 'data_base64'];
  const others = [...sent].filter(([name]) => !ours.includes(name));
  const isExtension = ([name, value]: [string, Node]): boolean =>
    /^[a-z0-9]+$/.test(name) && value.kind !== 'object' && value.kind !== 'array';
  if (others.some((other) => specversion === null || !isExtension(other))) refuse('field_unknown');
  const contentType = present(sent.get('datacontenttype'));
  if (present(sent.get('data_base64')) !== null) refuse('data_not_json');
  if (contentType?.kind === 'string' && contentType.value.isWellFormed()) {
    const media = contentType.value.split(';')[0]!.trim().toLowerCase();
    if (!/^(application|text)\/json$|^[^/]+\/[^/]+\+json$/.test(media)) refuse('data_not_json');
  }
  // 4. The first fault in the order in which it was sent.
  let fields: PlainField[] = [];
  const seen = new Set<string>();
  for (const [{ value: name }, value] of entries) {
    if (seen.has(name)) refuse('key_repeated');
    seen.add(name);
    if (name === 'data') fields = flatten(value);
    else if (name === 'datacontenttype' && present(value) !== null && value.kind !== 'string') {
      refuse('field_not_text');
    } else if (!ours.includes(name) && value.kind === 'string' && !value.value.isWellFormed()) {
      refuse('text_not_unicode');
    }
  }
  // 5. Its size.
  let bytes = bytesOf(id) + bytesOf(source) + bytesOf(type) + bytesOf(subject);
  for (const field of fields) {
    const value = 'number' in field ? 8 : bytesOf('text' in field ? field.text : field.literal);
    bytes += bytesOf(field.path) + value;
  }
  if (bytes > 65_536) refuse('event_too_large');
  // 6. What makes it a correction. Whoever packs it puts the identity of the original into the last field.
  if (voids !== null) fields.push({ path: 'tallyline.voids', text: voids });
  if (amends !== null) fields.push({ path: 'tallyline.amends', text: amends });
  if (voids !== null || amends !== null) fields.push({ path: 'tallyline.target', text: '\0'.repeat(36) });
  const kept = voids === null ? type : 'tallyline.void';
  return { id, source, type: kept, subject, timeMs, timeGiven: time !== null, fields };
}

/** Null counts as absent. */
function present(node: Node | undefined): Node | null {
  return node === undefined || (node.kind === 'word' && node.raw === 'null') ? null : node;
}

function flatten(data: Node): PlainField[] {
  const fields: PlainField[] = [];
  const walk = (entries: Entries, prefix: string | null, depth: number): void => {
    const seen = new Set<string>();
    for (const [{ value: key }, value] of entries) {
      if (!key.isWellFormed()) refuse('text_not_unicode');
      const path = prefix === null ? key : `${prefix}.${key}`;
      if (bytesOf(path) > FIELD_LIMITS.pathLengthMax) refuse('data_path_too_long');
      if (prefix === null && `${path}.`.startsWith('tallyline.')) refuse('data_path_reserved');
      if (seen.has(key)) refuse('key_repeated');
      seen.add(key);
      if (value.kind === 'object' && value.entries.length > 0) {
        if (depth === FIELD_LIMITS.depthMax) refuse('data_too_deep');
        walk(value.entries, path, depth + 1);
      } else {
        if (fields.length === FIELD_LIMITS.fieldsMax) refuse('data_too_many_fields');
        fields.push(fieldOf(path, value, depth));
      }
    }
  };
  if (present(data) === null) return fields;
  if (data.kind !== 'object') return refuse('data_not_an_object');
  walk(data.entries, null, 1);
  if (new Set(fields.map(({ path }) => path)).size < fields.length) refuse('data_path_repeated');
  return fields;
}

function fieldOf(path: string, value: Node, depth: number): PlainField {
  switch (value.kind) {
    case 'string':
      if (!value.value.isWellFormed()) refuse('text_not_unicode');
      return { path, text: value.value };
    case 'number':
      return { path, number: exactNumber(value.raw) ?? refuse('number_not_exact') };
    case 'array':
      checkArray(value, depth + 1);
      return { path, literal: compact(value) };
    default:
      return { path, literal: compact(value) };
  }
}

function checkArray(node: Node, depth: number): void {
  if (node.kind === 'string' && !node.value.isWellFormed()) refuse('text_not_unicode');
  if (node.kind !== 'array' && node.kind !== 'object') return;
  if (depth > FIELD_LIMITS.depthMax) refuse('data_too_deep');
  if (node.kind === 'array') return node.items.forEach((item) => checkArray(item, depth + 1));
  const seen = new Set<string>();
  for (const [{ value: key }, value] of node.entries) {
    if (!key.isWellFormed()) refuse('text_not_unicode');
    if (seen.has(key)) refuse('key_repeated');
    seen.add(key);
    checkArray(value, depth + 1);
  }
}

/** The tokens as they were sent. */
function compact(node: Node): string {
  switch (node.kind) {
    case 'object':
      return `{${node.entries.map(([key, value]) => `${key.raw}:${compact(value)}`).join(',')}}`;
    case 'array':
      return `[${node.items.map(compact).join(',')}]`;
    default:
      return node.raw;
  }
}

/** [mantissa, scale] in the shortest form, or null when it cannot be kept. */
export function exactNumber(raw: string): [number, number] | null {
  const [, sign, whole, fraction = '', exponent = '0'] = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([-+]?\d+))?$/.exec(
    raw,
  )!;
  let mantissa = BigInt(whole! + fraction);
  if (mantissa === 0n) return [0, 0];
  let power = BigInt(exponent) - BigInt(fraction.length);
  while (mantissa % 10n === 0n) {
    mantissa /= 10n;
    power += 1n;
  }
  if (power < -9n || power > 16n) return null;
  if (power > 0n) mantissa *= 10n ** power;
  if (mantissa > BigInt(Number.MAX_SAFE_INTEGER)) return null;
  return [Number(sign === '-' ? -mantissa : mantissa), power < 0n ? Number(-power) : 0];
}
