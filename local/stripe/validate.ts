// Checks a request against the schema derived from the SDK's types, and refuses it in Stripe's words.
//
// Form values are strings. `coerce` first gives them the types that the schema names, as Stripe does: "12" to an
// integer, "true" to a boolean, `{0: …, 1: …}` to a list. What does not fit stays as it was, and ajv finds it.
// Of all findings the one nearest to the root is reported, unknown parameters before missing ones.
import { Ajv } from 'ajv';
import type { ErrorObject, ValidateFunction } from 'ajv';
import { invalid } from './error.ts';
import type { Refusal } from './error.ts';
import type { FormObject, FormValue } from './form.ts';
import type { Json, JsonObject, OperationName, Operations, Schema } from './operation.ts';

/** Amounts above this are refused, so that the sum of a full invoice stays an exact integer. */
export const integerMax = 999_999_999_999;

export interface Validator {
  /** Returns the typed parameters. Throws a Refusal. */
  check(name: OperationName, form: FormObject): JsonObject;
}

/** Schemas are compiled on first use. */
export function createValidator(operations: Operations): Validator {
  const ajv = new Ajv({ allErrors: true, strict: false, verbose: true });
  const compiled = new Map<OperationName, ValidateFunction>();
  return {
    check(name, form) {
      const schema = operations.operations[name].params;
      let validate = compiled.get(name);
      if (validate === undefined) compiled.set(name, (validate = ajv.compile(schema)));
      const params = coerce(schema, form);
      if (!validate(params)) throw describe(validate.errors ?? [], params);
      return params as JsonObject;
    },
  };
}

/** `value` with the types that `schema` names, as far as it has them. */
export function coerce(schema: Schema, value: FormValue): Json {
  if (schema.anyOf !== undefined) return coerceUnion(schema.anyOf, value);
  if (typeof value === 'string') return coerceText(schema.type, value);
  if (schema.type === 'array') {
    const list = Array.isArray(value) ? value : listOf(value);
    if (list !== undefined) return list.map((item) => coerce(schema.items ?? {}, item));
  }
  if (Array.isArray(value)) return value.map((item) => coerce({}, item));
  const object = Object.create(null) as JsonObject;
  for (const [name, field] of Object.entries(value)) {
    const other = typeof schema.additionalProperties === 'object' ? schema.additionalProperties : {};
    object[name] = coerce(
      Object.hasOwn(schema.properties ?? {}, name) ? (schema.properties?.[name] ?? {}) : other,
      field,
    );
  }
  return object;
}

function coerceText(type: Schema['type'], value: string): Json {
  switch (type) {
    case 'integer':
      return /^-?\d{1,15}$/.test(value) && Math.abs(Number(value)) <= integerMax ? Number(value) : value;
    case 'number':
      return /^-?\d{1,15}(\.\d{1,12})?$/.test(value) ? Number(value) : value;
    case 'boolean':
      return value === 'true' ? true : value === 'false' ? false : value;
    case 'string':
    case 'object':
    case 'array':
    case 'null':
    case undefined:
      return value;
  }
}

/** The first alternative whose outer shape fits: the empty string, a string, a number, a list or an object. */
function coerceUnion(alternatives: Schema[], value: FormValue): Json {
  if (typeof value === 'string') {
    if (alternatives.some((each) => each.enum?.includes(value) === true || each.type === 'string'))
      return value;
    const scalar = alternatives.find(
      (each) => each.type !== 'array' && each.type !== 'object' && each.enum === undefined,
    );
    return scalar === undefined ? value : coerce(scalar, value);
  }
  const list = alternatives.find((each) => each.type === 'array');
  if (list !== undefined && (Array.isArray(value) || listOf(value) !== undefined)) return coerce(list, value);
  return coerce(alternatives.find((each) => each.type === 'object') ?? {}, value);
}

/** `{0: a, 1: b}` as `[a, b]`, in the order of the indexes; undefined when a key is not an index. */
function listOf(value: FormObject): FormValue[] | undefined {
  const keys = Object.keys(value);
  if (!keys.every((key) => /^\d{1,5}$/.test(key))) return undefined;
  return keys.sort((a, b) => Number(a) - Number(b)).map((key) => value[key] ?? '');
}

const rank: { [keyword: string]: number } = {
  additionalProperties: 0,
  required: 1,
  type: 2,
  enum: 3,
  pattern: 4,
};

function describe(errors: ErrorObject[], params: Json): Refusal {
  // A failed union also lists the failures of its alternatives; those inside the alternative that was meant say more.
  const findings = errors.filter((error) => error.keyword !== 'anyOf');
  findings.sort((a, b) => depth(a) - depth(b) || (rank[a.keyword] ?? 9) - (rank[b.keyword] ?? 9));
  const meant = findings.find(
    (error) => error.keyword !== 'enum' || findings.every((each) => each.keyword === 'enum'),
  );
  const error = meant ?? errors[0];
  if (error === undefined) return invalid('The request is not valid.');
  const path = error.instancePath.split('/').slice(1).map(unescape);
  const param = paramName(path);
  switch (error.keyword) {
    case 'additionalProperties': {
      const unknown = paramName([...path, String(error.params['additionalProperty'])]);
      return invalid(`Received unknown parameter: ${unknown}`, 'parameter_unknown', unknown);
    }
    case 'required': {
      const absent = paramName([...path, String(error.params['missingProperty'])]);
      return invalid(`Missing required param: ${absent}.`, 'parameter_missing', absent);
    }
    case 'enum': {
      const allowed = (error.params['allowedValues'] as Json[]).filter(
        (each) => each !== null && each !== '',
      );
      if (error.data === '') return empty(param);
      const listed = allowed.length > 20 ? `${allowed.slice(0, 20).join(', ')}, …` : allowed.join(', ');
      return invalid(`Invalid ${param}: must be one of ${listed}`, undefined, param);
    }
    case 'pattern':
      return invalid(`Invalid decimal: ${shown(error.data)}`, 'parameter_invalid_decimal', param);
    case 'type': {
      const type = String(error.params['type']);
      if (error.data === '') return empty(param);
      const code = type === 'integer' ? 'parameter_invalid_integer' : undefined;
      return invalid(`Invalid ${type === 'object' ? 'hash' : type}: ${shown(error.data)}`, code, param);
    }
    default:
      return invalid(`Invalid ${param === '' ? 'request' : param}: ${shown(params)}`, undefined, param);
  }
}

function empty(param: string): Refusal {
  return invalid(
    `You passed an empty string for '${param}'. We assume empty values are an attempt to unset a parameter; ` +
      `however '${param}' cannot be unset. You should remove '${param}' from your request or supply a non-empty value.`,
    'parameter_invalid_empty',
    param,
  );
}

function depth(error: ErrorObject): number {
  return error.instancePath.split('/').length;
}

function unescape(segment: string): string {
  return segment.replaceAll('~1', '/').replaceAll('~0', '~');
}

/** `['lines', '0', 'amount']` as `lines[0][amount]`. */
function paramName(path: string[]): string {
  return path.map((step, index) => (index === 0 ? step : `[${step}]`)).join('');
}

function shown(value: unknown): string {
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}
