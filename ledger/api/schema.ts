/**
 * The JSON of the API, in schemas that do three jobs: they check what comes in, they write what goes out,
 * and they are the OpenAPI document. A field that is in no schema is in no answer.
 *
 * Quantities and amounts are decimal text, since a JSON number is a float to most readers; an amount has
 * all the minor digits of its currency. Instants are RFC 3339 in UTC.
 */
import { Type, type Static, type TSchema } from 'typebox';
import { CURRENCIES } from '../../contract/money.ts';
import { PROBLEMS, type ProblemCode } from './problems.ts';

export const LIST_LIMIT_MAX = 500;
export const LIST_LIMIT_DEFAULT = 100;

const DECIMAL_PATTERN = '^-?(0|[1-9][0-9]*)(\\.[0-9]+)?$';

export const Decimal = (description: string) =>
  Type.String({ description, pattern: DECIMAL_PATTERN, maxLength: 64, examples: ['1250.5'] });
export const Money = (description: string) =>
  Type.String({ description, pattern: DECIMAL_PATTERN, maxLength: 64, examples: ['12.50'] });
export const Instant = (description: string) =>
  Type.String({ description, format: 'date-time', maxLength: 64, examples: ['2026-11-01T00:00:00.000Z'] });
/** One of a list of texts. */
export const oneOf = <const T extends string>(values: readonly T[], description?: string) =>
  Type.Unsafe<T>({
    type: 'string',
    enum: [...values],
    ...(description === undefined ? {} : { description }),
  });
export const CurrencyCode = oneOf(CURRENCIES, 'ISO 4217 code');

/** A value or null. */
export function Nullable<T extends TSchema>(schema: T) {
  const { type, ...rest } = schema as TSchema & { type?: string };
  // A list of types is shorter than anyOf, and what fast serialization and readers understand best.
  if (typeof type === 'string') return Type.Unsafe<Static<T> | null>({ ...rest, type: [type, 'null'] });
  return Type.Unsafe<Static<T> | null>({ anyOf: [schema, { type: 'null' }] });
}

const schemas: TSchema[] = [];

/** A schema with a name of its own in the OpenAPI document. */
export function named<T extends TSchema>(id: string, schema: T) {
  schemas.push({ ...schema, $id: id } as TSchema);
  return Type.Unsafe<Static<T>>({ $ref: `${id}#` });
}

export function namedSchemas(): readonly TSchema[] {
  return schemas;
}

export const object = <P extends Record<string, TSchema>>(properties: P, description?: string) =>
  Type.Object(properties, {
    additionalProperties: false,
    ...(description === undefined ? {} : { description }),
  });

export const ProblemSchema = named(
  'Problem',
  Type.Object(
    {
      type: Type.String({ description: 'Where the problem is described, relative to this API' }),
      title: Type.String({ description: 'The same for every occurrence' }),
      status: Type.Integer(),
      code: oneOf(Object.keys(PROBLEMS) as ProblemCode[], 'Stable: branch on this'),
      detail: Type.String({ description: 'What to do about it' }),
      instance: Type.Optional(Type.String({ description: 'The id of the request, as in the log' })),
      errors: Type.Optional(
        Type.Array(
          object({
            path: Type.String({ description: 'Where, such as prices[1].tiers[0].upTo' }),
            message: Type.String(),
          }),
          { description: 'Every mistake of the request (validation_failed)' },
        ),
      ),
    },
    { additionalProperties: true, description: 'RFC 9457; further members say more, by code' },
  ),
);

export const listOf = <T extends TSchema>(item: T, description: string) =>
  object(
    {
      items: Type.Array(item),
      nextCursor: Nullable(
        Type.String({ description: 'Pass as `cursor` for the next page; null on the last' }),
      ),
    },
    description,
  );

export const PAGE_QUERY = {
  limit: Type.Optional(
    Type.Integer({
      minimum: 1,
      maximum: LIST_LIMIT_MAX,
      description: `Items a page; ${LIST_LIMIT_DEFAULT} when absent`,
    }),
  ),
  cursor: Type.Optional(
    Type.String({ minLength: 1, maxLength: 4096, description: 'The `nextCursor` of the page before' }),
  ),
};

export const CustomerId = Type.String({
  minLength: 1,
  maxLength: 128,
  pattern: '^[A-Za-z0-9][A-Za-z0-9._:@-]*$',
  description: 'Your own id of the customer',
  examples: ['acme'],
});

export const CUSTOMER_PARAMS = object({ id: CustomerId });

export const IDEMPOTENCY_HEADERS = Type.Object({
  'idempotency-key': Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: 255,
      pattern: '^[\\x21-\\x7e]+$',
      description:
        'Makes it safe to send the request again: the first answer is given again, with Idempotent-Replayed: true',
    }),
  ),
});

/** Problems that any route with a key can answer. */
const COMMON: readonly ProblemCode[] = [
  'validation_failed',
  'key_missing',
  'key_invalid',
  'scope_missing',
  'internal',
  'busy',
];
const COMMON_OF_WRITES: readonly ProblemCode[] = [
  'body_unreadable',
  'body_too_large',
  'media_type_unsupported',
  'idempotency_in_progress',
  'idempotency_key_reused',
];

/** The `response` of a route: its own answers by status, and one entry a status for the problems it names. */
export function responses(
  own: Readonly<Record<number, TSchema>>,
  codes: readonly ProblemCode[],
  o: { write?: boolean } = {},
): Record<string, unknown> {
  const byStatus = new Map<number, ProblemCode[]>();
  for (const code of [...codes, ...COMMON, ...(o.write === true ? COMMON_OF_WRITES : [])]) {
    const { status } = PROBLEMS[code];
    byStatus.set(status, [...(byStatus.get(status) ?? []), code]);
  }
  const problems = [...byStatus].map(([status, list]) => [
    status,
    {
      description: list.map((code) => `\`${code}\` ${PROBLEMS[code].title}`).join(' '),
      content: { 'application/problem+json': { schema: ProblemSchema } },
    },
  ]);
  return { ...own, ...(Object.fromEntries(problems) as Record<string, unknown>) };
}
