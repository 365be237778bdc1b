/**
 * The `data` of an event as a flat list of fields: nested objects become dotted paths, a number
 * becomes an exact mantissa and scale, an array or a literal keeps its JSON text. The wire format,
 * the raw rows and the meters all see this one shape, so nothing behind the edge parses JSON again.
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
  /** Bytes of UTF-8 in one dotted path. */
  readonly pathLengthMax: number;
}

export const FIELD_LIMITS: FieldLimits = { fieldsMax: 64, depthMax: 8, pathLengthMax: 256 };
