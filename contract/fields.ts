import { QUANTITY_SCALE } from './quantity.ts';
import type { RejectionCode } from './rejections.ts';

/**
 * The `data` of an event as a flat list of fields: nested objects become dotted paths, a number
 * becomes an exact mantissa and scale, an array or a literal keeps its JSON text. The wire format,
 * the raw rows and the meters all see this one shape, so nothing behind the edge parses JSON again.
 *
 * A `Fields` is reused from event to event: it is scratch space, valid until the next `read`.
 */
export const FIELD_TEXT = 0;
/** A number: mantissa · 10^-scale, the mantissa a safe integer. */
export const FIELD_NUMBER = 1;
/** `true`, `false`, `null`, an array or an empty object, as JSON text. */
export const FIELD_LITERAL = 2;

export type FieldTag = typeof FIELD_TEXT | typeof FIELD_NUMBER | typeof FIELD_LITERAL;

export interface FieldLimits {
  readonly fieldsMax: number;
  readonly depthMax: number;
  /** UTF-16 units in one path; bytes are bounded with the body. */
  readonly pathLengthMax: number;
}

export const FIELD_LIMITS: FieldLimits = { fieldsMax: 64, depthMax: 8, pathLengthMax: 256 };

export class Fields {
  count = 0;
  readonly paths: string[] = [];
  readonly tags: FieldTag[] = [];
  /** Decimals of a number field; 0 for the others. */
  readonly scales: number[] = [];
  /** Mantissa of a number field; 0 for the others. */
  readonly mantissas: number[] = [];
  /** Text of a text or literal field; '' for a number. */
  readonly texts: string[] = [];
  /** What was wrong, and where, after `read` returned a code. */
  faultPath = '';

  readonly #limits: FieldLimits;
  #dotted = false;

  constructor(limits: FieldLimits = FIELD_LIMITS) {
    this.#limits = limits;
  }

  /** Flattens parsed JSON. Returns null, or the code of the rejection with `faultPath` set. */
  read(data: unknown): RejectionCode | null {
    this.count = 0;
    this.#dotted = false;
    this.faultPath = 'data';
    if (data === undefined || data === null) return null;
    if (typeof data !== 'object' || Array.isArray(data)) return 'data_not_an_object';
    const fault = this.#walk(data as Record<string, unknown>, '', 1);
    if (fault !== null) return fault;
    return this.#dotted ? this.#findRepeatedPath() : null;
  }

  #walk(object: Record<string, unknown>, prefix: string, depth: number): RejectionCode | null {
    if (depth > this.#limits.depthMax) {
      this.faultPath = `data.${prefix}`;
      return 'data_too_deep';
    }
    for (const key of Object.keys(object)) {
      // A dot or an empty key is the only way in which two places can have one path.
      if (key === '' || key.includes('.')) this.#dotted = true;
      const path = prefix === '' ? key : `${prefix}.${key}`;
      const fault = this.#field(path, object[key], depth);
      if (fault !== null) {
        if (this.faultPath === 'data') this.faultPath = `data.${path}`;
        return fault;
      }
    }
    return null;
  }

  #field(path: string, value: unknown, depth: number): RejectionCode | null {
    if (path.length > this.#limits.pathLengthMax) return 'data_path_too_long';
    if (!path.isWellFormed()) return 'text_not_unicode';
    switch (typeof value) {
      case 'string':
        if (!value.isWellFormed()) return 'text_not_unicode';
        return this.#push(path, FIELD_TEXT, 0, 0, value);
      case 'number':
        return this.#number(path, value);
      case 'boolean':
        return this.#push(path, FIELD_LITERAL, 0, 0, value ? 'true' : 'false');
      case 'object':
        break;
      default:
        return 'data_not_an_object';
    }
    if (value === null) return this.#push(path, FIELD_LITERAL, 0, 0, 'null');
    if (Array.isArray(value)) return this.#array(path, value, depth);
    const entries = value as Record<string, unknown>;
    for (const _ in entries) return this.#walk(entries, path, depth + 1);
    return this.#push(path, FIELD_LITERAL, 0, 0, '{}');
  }

  #array(path: string, value: unknown[], depth: number): RejectionCode | null {
    const fault = arrayFault(value, depth + 1, this.#limits.depthMax);
    return fault ?? this.#push(path, FIELD_LITERAL, 0, 0, JSON.stringify(value));
  }

  #number(path: string, value: number): RejectionCode | null {
    if (Number.isSafeInteger(value)) return this.#push(path, FIELD_NUMBER, 0, value === 0 ? 0 : value, '');
    const exact = splitFraction(value);
    if (exact === null) return 'number_not_exact';
    return this.#push(path, FIELD_NUMBER, exact.scale, exact.mantissa, '');
  }

  #push(path: string, tag: FieldTag, scale: number, mantissa: number, text: string): RejectionCode | null {
    const at = this.count;
    if (at === this.#limits.fieldsMax) return 'data_too_many_fields';
    this.paths[at] = path;
    this.tags[at] = tag;
    this.scales[at] = scale;
    this.mantissas[at] = mantissa;
    this.texts[at] = text;
    this.count = at + 1;
    return null;
  }

  /** `{"a.b": 1, "a": {"b": 2}}` names one path twice: which one counts would be a guess. */
  #findRepeatedPath(): RejectionCode | null {
    const seen = new Set<string>();
    for (let at = 0; at < this.count; at++) {
      const path = this.paths[at]!;
      if (seen.has(path)) {
        this.faultPath = `data.${path}`;
        return 'data_path_repeated';
      }
      seen.add(path);
    }
    return null;
  }
}

/**
 * The shortest decimal text of a double is what was sent as long as it has at most 15 significant
 * digits (IEEE 754: every such decimal survives the round trip). Beyond that, or beyond nine decimals,
 * the sender must use a string.
 */
function splitFraction(value: number): { mantissa: number; scale: number } | null {
  if (!Number.isFinite(value)) return null;
  const text = String(value);
  const dot = text.indexOf('.');
  const exponent = text.indexOf('e');
  const digits = exponent < 0 ? text : text.slice(0, exponent);
  const fraction = dot < 0 ? '' : digits.slice(dot + 1);
  const mantissa = Number(dot < 0 ? digits : digits.slice(0, dot) + fraction);
  const scale = fraction.length - (exponent < 0 ? 0 : Number(text.slice(exponent + 1)));
  if (scale < 0 || scale > QUANTITY_SCALE || Math.abs(mantissa) >= 1e15) return null;
  return { mantissa, scale };
}

function arrayFault(value: unknown[], depth: number, depthMax: number): RejectionCode | null {
  if (depth > depthMax) return 'data_too_deep';
  for (const item of value) {
    if (typeof item === 'string') {
      if (!item.isWellFormed()) return 'text_not_unicode';
    } else if (typeof item === 'number') {
      if (!Number.isSafeInteger(item) && splitFraction(item) === null) return 'number_not_exact';
    } else if (typeof item === 'object' && item !== null) {
      const inner = Array.isArray(item) ? item : Object.entries(item).flat();
      const fault = arrayFault(inner, depth + 1, depthMax);
      if (fault !== null) return fault;
    }
  }
  return null;
}
