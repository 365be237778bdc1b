/**
 * GET /v1/refused: events that do not count, or that no meter takes, whole and in the shape in which
 * POST /v1/events takes them, so that they can be corrected and sent again. `local/refused.ts` is the command.
 */
import { Type } from 'typebox';
import { PATH_AMENDS, PATH_TARGET, PATH_VOIDS } from '../../contract/corrections.ts';
import { REJECTIONS } from '../../contract/rejections.ts';
import {
  DAY_MS,
  formatInstant,
  HOUR_MS,
  hourStart,
  parseInstant,
  type Window,
} from '../../contract/window.ts';
import { QueryError, type ClickHouse } from '../../runtime/clickhouse.ts';
import { callerOf, type ApiContext, type App } from './context.ts';
import { cutPage, decodeCursor } from './cursor.ts';
import { limitProblem } from './limits.ts';
import { problem, validationProblem, type Answer, type Mistake } from './problems.ts';
import {
  REFUSING,
  SELECT_COUNTED,
  SELECT_COUNTED_NEAR,
  SELECT_REFUSED,
  SELECT_REFUSED_TYPES,
  SELECT_UNMATCHED,
  SELECT_UNMATCHED_TYPES,
  type EventRow,
  type RefusedRow,
  type RefusedWanted,
  type Refusing,
  type TypeRow,
} from './refused-query.ts';
import {
  Decimal,
  Instant,
  LIST_LIMIT_DEFAULT,
  listOf,
  named,
  Nullable,
  object,
  oneOf,
  PAGE_QUERY,
  responses,
} from './schema.ts';
import { give } from './write.ts';

/** The longest range of unmatched events, and that of none: events are read one by one for it. */
const UNMATCHED_DAYS_MAX = 31;
const UNMATCHED_MS = DAY_MS;
const TYPES_MAX = 1_000;
/** Instants that ClickHouse has as a DateTime: up to 2106. */
const TIME_END_MS = 2 ** 32 * 1_000 - 1;

const EventSchema = object(
  {
    id: Type.String(),
    source: Type.Optional(Type.String({ description: 'Absent when it came without one' })),
    type: Type.String(),
    subject: Type.String(),
    voids: Type.Optional(Type.String({ description: 'Of a void: the id of the event that it takes out' })),
    amends: Type.Optional(
      Type.String({ description: 'Of an amendment: the id of the event it counts instead of' }),
    ),
    time: Instant('When the usage was'),
    data: Type.Record(Type.String(), Type.String(), {
      description: 'As it was read: value by dotted path, numbers and literals as text',
    }),
  },
  'An event as POST /v1/events takes it',
);

const RefusedSchema = named(
  'RefusedEvent',
  object(
    {
      verdict: oneOf(REFUSING),
      code: Type.String({
        description: 'Why, from the table of rejections; the verdict again where there is no other reason',
      }),
      message: Type.String({ description: 'What to change' }),
      shard: Type.Integer({ description: 'The log it stands in' }),
      position: Type.String({ description: 'Its place in that log' }),
      acceptedAt: Instant('When the edge took it'),
      event: EventSchema,
      counted: Nullable(
        object(
          {
            position: Type.String({ description: 'Its place in the same log' }),
            acceptedAt: Instant('When the edge took it'),
            event: EventSchema,
          },
          'For a conflict, what counts instead; null for the others',
        ),
      ),
    },
    'An event that was taken at the edge and does not count, or counts for no meter; it is kept whole',
  ),
);

const RefusedTypeSchema = named(
  'RefusedType',
  object(
    {
      verdict: oneOf(REFUSING),
      code: Type.String(),
      type: Type.String(),
      events: Decimal('How many'),
      firstTime: Instant('Time of the earliest usage among them'),
      lastTime: Instant('Time of the latest'),
    },
    'Refused events of one verdict, code and type',
  ),
);

const MESSAGES: Readonly<Record<Refusing, string>> = {
  conflict: 'The same id came before with other content; the first counts. To correct it, amend it.',
  late: 'Its period was closed before it came; it counts as an adjustment of the next one.',
  rejected: 'It cannot count as it is.',
  unmatched: 'It is stored and counts for no meter: define one for its type, and backfill it.',
};

const Filter = (description: string, maxLength: number) =>
  Type.Optional(Type.String({ minLength: 1, maxLength, description }));

const WANTED_QUERY = {
  verdict: Type.Optional(
    oneOf(
      REFUSING,
      'Only these. When absent, all that do not count; unmatched events count, and are given only when asked for',
    ),
  ),
  code: Filter('Only events refused for this', 64),
  type: Filter('Only events of this type', 256),
  subject: Filter('Only events of this subject', 256),
  from: Type.Optional(
    Instant('Only usage from this instant on; unmatched: a day before `to` when absent, 31 at most'),
  ),
  to: Type.Optional(Instant('Only usage before this instant; unmatched: the next full hour when absent')),
};

const PROBLEMS_OF = [
  'range_invalid',
  'usage_query_too_large',
  'usage_not_ready',
  'usage_unavailable',
] as const;

export function refusedRoutes(app: App, context: ApiContext): void {
  app.get(
    '/v1/refused',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'listRefusedEvents',
        summary: 'List the events that do not count, newest first',
        description:
          'Correct `event` and send it to POST /v1/events again: the id of a rejected event is free, a conflict needs a new one. Rows that come between two pages are not given twice.',
        tags: ['Usage'],
        querystring: object({ ...WANTED_QUERY, ...PAGE_QUERY }),
        response: responses(
          {
            200: listOf(
              RefusedSchema,
              'Refused events, the last accepted first; unmatched ones by time of use',
            ),
          },
          ['cursor_invalid', ...PROBLEMS_OF],
        ),
      },
    },
    async (request, reply) => {
      const wanted = wantedOf(callerOf(request).tenant, request.query, context.clock.now());
      if ('status' in wanted) return give(reply, wanted);
      return give(reply, await asking(context, () => page(context.ch, wanted, request.query)));
    },
  );
  app.get(
    '/v1/refused/types',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'countRefusedEvents',
        summary: 'Count the events that do not count by verdict, code and type, most first',
        tags: ['Usage'],
        querystring: object(WANTED_QUERY),
        response: responses(
          { 200: object({ items: Type.Array(RefusedTypeSchema) }, `At most ${TYPES_MAX}`) },
          PROBLEMS_OF,
        ),
      },
    },
    async (request, reply) => {
      const wanted = wantedOf(callerOf(request).tenant, request.query, context.clock.now());
      if ('status' in wanted) return give(reply, wanted);
      return give(
        reply,
        await asking(context, async () => {
          const sql = wanted.verdict === 'unmatched' ? SELECT_UNMATCHED_TYPES : SELECT_REFUSED_TYPES;
          const rows = await context.ch.rows<TypeRow>(sql, { ...wanted, limit: TYPES_MAX });
          return { status: 200, body: { items: rows.map(typeJson) } };
        }),
      );
    },
  );
}

async function asking(context: ApiContext, ask: () => Promise<Answer>): Promise<Answer> {
  if (!context.usageReady()) return problem('usage_not_ready');
  try {
    return await ask();
  } catch (error) {
    if (!(error instanceof QueryError)) throw error;
    const limit = limitProblem(
      error,
      context.apiLimits,
      'a shorter range (`from`, `to`), or a smaller `limit`',
    );
    if (limit !== null) return limit;
    context.log.warn({ error }, 'refused events could not be read');
    return problem('usage_unavailable');
  }
}

interface WantedParameters {
  readonly verdict?: Refusing;
  readonly code?: string;
  readonly type?: string;
  readonly subject?: string;
  readonly from?: string;
  readonly to?: string;
}

function wantedOf(tenant: string, o: WantedParameters, nowMs: number): RefusedWanted | Answer {
  const range = rangeOf(o, nowMs);
  if ('status' in range) return range;
  const { verdict = '', code = '', type = '', subject = '' } = o;
  return { tenant, verdict, code, type, subject, from: range.start, to: range.end };
}

function rangeOf(o: WantedParameters, nowMs: number): Window | Answer {
  const mistakes: Mistake[] = [];
  const instant = (path: 'from' | 'to', otherwise: number): number => {
    const text = o[path];
    if (text === undefined) return otherwise;
    const value = parseInstant(text);
    if (value === null) mistakes.push({ path, message: 'must be RFC 3339, such as 2026-11-01T00:00:00Z' });
    return value ?? otherwise;
  };
  const isUnmatched = o.verdict === 'unmatched';
  const end = Math.min(instant('to', isUnmatched ? hourStart(nowMs) + HOUR_MS : TIME_END_MS), TIME_END_MS);
  const start = instant('from', isUnmatched ? Math.max(0, end - UNMATCHED_MS) : 0);
  if (mistakes.length > 0) return validationProblem(mistakes);
  if (start >= end) return problem('range_invalid', 'Choose a `from` before `to`.');
  if (isUnmatched && end - start > UNMATCHED_DAYS_MAX * DAY_MS) {
    return problem(
      'range_invalid',
      `Unmatched events are looked for one by one: choose ${UNMATCHED_DAYS_MAX} days at most.`,
    );
  }
  return { start, end };
}

async function page(
  ch: ClickHouse,
  wanted: RefusedWanted,
  o: { limit?: number; cursor?: string },
): Promise<Answer> {
  const { limit = LIST_LIMIT_DEFAULT, cursor } = o;
  const scope = JSON.stringify([
    'refused',
    wanted.tenant,
    wanted.verdict,
    wanted.code,
    wanted.type,
    wanted.subject,
  ]);
  const after = cursor === undefined ? null : decodeCursor(scope, cursor, ['number', 'number', 'string']);
  if (cursor !== undefined && (after === null || !isPosition(String(after[2]))))
    return problem('cursor_invalid');
  const [lastMs = 0, lastShard = 0, lastPosition = '0'] = after ?? [];
  const isUnmatched = wanted.verdict === 'unmatched';
  const rows = await ch.rows<RefusedRow>(isUnmatched ? SELECT_UNMATCHED : SELECT_REFUSED, {
    ...wanted,
    paged: after === null ? 0 : 1,
    lastMs,
    lastShard,
    lastPosition,
    limit: limit + 1,
  });
  const keyOf = (row: RefusedRow) => [
    Number(isUnmatched ? row.time_ms : row.accepted_ms),
    row.shard,
    row.position,
  ];
  const { items, nextCursor } = cutPage(rows, { scope, limit, keyOf });
  const counted = await countedInstead(ch, wanted.tenant, items);
  return {
    status: 200,
    body: { items: items.map((row) => refusedJson(row, counted.get(row.identity))), nextCursor },
  };
}

const isPosition = (text: string): boolean =>
  /^[0-9]{1,20}$/.test(text) && BigInt(text) <= 0xffff_ffff_ffff_ffffn;

/** What counts instead of the conflicts among some rows, by identity. */
async function countedInstead(
  ch: ClickHouse,
  tenant: string,
  rows: readonly RefusedRow[],
): Promise<ReadonlyMap<string, EventRow>> {
  const found = new Map<string, EventRow>();
  const conflicts = rows.filter((row) => row.verdict === 'conflict');
  if (conflicts.length === 0) return found;
  const hours = [...new Set(conflicts.map((row) => second(hourStart(Number(row.time_ms)))))];
  const identities = [...new Set(conflicts.map((row) => row.identity))];
  // Mostly the other one has the same time.
  const near = await ch.rows<EventRow>(SELECT_COUNTED_NEAR, { tenant, hours, identities });
  for (const row of near) found.set(row.identity, row);
  const rest = identities.filter((identity) => !found.has(identity));
  if (rest.length === 0) return found;
  const far = await ch.rows<EventRow>(SELECT_COUNTED, { tenant, identities: rest });
  for (const row of far) found.set(row.identity, row);
  return found;
}

function refusedJson(row: RefusedRow, counted: EventRow | undefined): Type.Static<typeof RefusedSchema> {
  const { verdict, shard, position } = row;
  const code = row.code === '' ? verdict : row.code;
  const message = Object.hasOwn(REJECTIONS, code)
    ? REJECTIONS[code as keyof typeof REJECTIONS].message
    : MESSAGES[verdict];
  return {
    verdict,
    code,
    message,
    shard,
    position,
    acceptedAt: formatInstant(Number(row.accepted_ms)),
    event: eventJson(row),
    counted:
      verdict !== 'conflict' || counted === undefined
        ? null
        : {
            position: counted.position,
            acceptedAt: formatInstant(Number(counted.accepted_ms)),
            event: eventJson(counted),
          },
  };
}

function eventJson({ id, source, type, subject, time_ms, data }: EventRow): Type.Static<typeof EventSchema> {
  const time = formatInstant(Number(time_ms));
  const sent = Object.entries(data).filter(([path]) => !RESERVED.includes(path));
  const { [PATH_VOIDS]: voids, [PATH_AMENDS]: amends } = data;
  return {
    id,
    ...(source === '' ? {} : { source }),
    type,
    subject,
    ...(voids === undefined ? {} : { voids }),
    ...(amends === undefined ? {} : { amends }),
    time,
    data: Object.fromEntries(sent),
  };
}

/** What the edge writes into a correction, and takes from nobody. */
const RESERVED: readonly string[] = [PATH_VOIDS, PATH_AMENDS, PATH_TARGET];

function typeJson(row: TypeRow): Type.Static<typeof RefusedTypeSchema> {
  return {
    verdict: row.verdict,
    code: row.code === '' ? row.verdict : row.code,
    type: row.type,
    events: row.events,
    firstTime: formatInstant(Number(row.first_ms)),
    lastTime: formatInstant(Number(row.last_ms)),
  };
}

/** As ClickHouse reads a DateTime. */
const second = (ms: number): string => formatInstant(ms).slice(0, 19).replace('T', ' ');
