/**
 * From the validator's findings to a list a person can work through: every mistake, each with its place in
 * the form of "prices[1].tiers[0].upTo".
 *
 * Bodies are taken as they are: a number is never made a string or the other way round, since a number that
 * went through JSON as a float may have lost digits. Query parameters are all text on the wire and are read
 * by the schema of the parameter: a list may be given once or repeatedly, an integer is plain digits.
 */
import type { Mistake } from './problems.ts';

/** What fastify's validator (ajv, allErrors) reports. */
export interface Finding {
  readonly keyword: string;
  readonly instancePath: string;
  readonly message?: string | undefined;
  readonly params: Readonly<Record<string, unknown>>;
}

export function mistakesOf(findings: readonly Finding[]): Mistake[] {
  const mistakes: Mistake[] = [];
  for (const finding of findings) {
    const mistake = mistakeOf(finding);
    const known = mistakes.some((one) => one.path === mistake.path && one.message === mistake.message);
    if (!known) mistakes.push(mistake);
  }
  return mistakes;
}

function mistakeOf(finding: Finding): Mistake {
  const { keyword, instancePath, params } = finding;
  const path = placeOf(instancePath);
  const within = (name: unknown) => (path === '' ? String(name) : `${path}.${String(name)}`);
  switch (keyword) {
    case 'required':
      return { path: within(params['missingProperty']), message: 'is required' };
    case 'additionalProperties':
      return {
        path: within(params['additionalProperty']),
        message: 'is not known here: remove it or correct its name',
      };
    case 'enum':
      return { path, message: `must be one of ${(params['allowedValues'] as string[]).join(', ')}` };
    default:
      return { path, message: finding.message ?? 'is not valid' };
  }
}

/**
 * Text that cannot be kept as it is: Postgres takes no NUL, and a lone surrogate has no UTF-8, so that two
 * different texts would be stored as one. Depth is bounded by the schema, which was checked before.
 */
export function textMistakes(value: unknown, path = ''): Mistake[] {
  if (typeof value === 'string') {
    if (value.includes('\0')) return [{ path, message: 'must not hold the character NUL' }];
    return value.isWellFormed()
      ? []
      : [{ path, message: 'must be well-formed Unicode: it holds a lone surrogate' }];
  }
  if (Array.isArray(value)) return value.flatMap((one, at) => textMistakes(one, `${path}[${at}]`));
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([name, one]) =>
    textMistakes(one, path === '' ? name : `${path}.${name}`),
  );
}

/** "/prices/1/upTo" as "prices[1].upTo". */
function placeOf(pointer: string): string {
  const parts = pointer
    .split('/')
    .slice(1)
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));
  return parts.map((part, at) => (/^\d+$/.test(part) ? `[${part}]` : at === 0 ? part : `.${part}`)).join('');
}

interface ParameterSchema {
  readonly type?: unknown;
}

export interface ParametersSchema {
  readonly properties?: Readonly<Record<string, ParameterSchema>>;
  readonly patternProperties?: Readonly<Record<string, ParameterSchema>>;
}

/** Reads query parameters by their schema; what does not fit stays as it is, for the validator to find. */
export function readParameters(
  given: Readonly<Record<string, unknown>>,
  schema: ParametersSchema,
): Record<string, unknown> {
  const patterns = Object.entries(schema.patternProperties ?? {}).map(
    ([pattern, one]) => [new RegExp(pattern), one] as const,
  );
  const read: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(given)) {
    const type = (schema.properties?.[name] ?? patterns.find(([pattern]) => pattern.test(name))?.[1])?.type;
    if (type === 'array' && typeof value === 'string') read[name] = [value];
    else if (type === 'integer' && typeof value === 'string' && /^[0-9]{1,15}$/.test(value))
      read[name] = Number(value);
    else read[name] = value;
  }
  return read;
}
