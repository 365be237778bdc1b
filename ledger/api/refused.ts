import { Type } from 'typebox';
import { REJECTIONS } from '../../contract/rejections.ts';
import { formatInstant } from '../../contract/window.ts';
import { QueryError } from '../../runtime/clickhouse.ts';
import { callerOf, type ApiContext, type App } from './context.ts';
import { cutPage, decodeCursor } from './cursor.ts';
import { problem } from './problems.ts';
import {
  Instant,
  LIST_LIMIT_DEFAULT,
  listOf,
  named,
  object,
  oneOf,
  PAGE_QUERY,
  responses,
} from './schema.ts';
import { give } from './write.ts';

const REFUSING = ['conflict', 'late', 'rejected'] as const;
const VerdictName = oneOf(REFUSING);

const RefusedSchema = named(
  'RefusedEvent',
  object(
    {
      verdict: VerdictName,
      code: Type.String({
        description: 'Why, from the table of rejections; the verdict again where there is no other reason',
      }),
      message: Type.String({ description: 'What to change' }),
      id: Type.String(),
      source: Type.String(),
      type: Type.String(),
      subject: Type.String(),
      shard: Type.Integer({ description: 'The log it stands in' }),
      position: Type.String({ description: 'Its place in that log' }),
      time: Instant('When the usage was'),
      acceptedAt: Instant('When the edge took it'),
      data: Type.Record(Type.String(), Type.String(), {
        description: 'As it was read: value by dotted path, numbers as text',
      }),
    },
    'An event that was taken at the edge and does not count; it is kept whole',
  ),
);

const MESSAGES: Readonly<Record<(typeof REFUSING)[number], string>> = {
  conflict: 'The same id came before with other content; the first counts. Send corrections under a new id.',
  late: 'Its period was closed before it came; it counts as an adjustment of the next one.',
  rejected: 'It cannot count as it is.',
};

interface Row {
  readonly verdict: (typeof REFUSING)[number];
  readonly code: string;
  readonly id: string;
  readonly source: string;
  readonly type: string;
  readonly subject: string;
  readonly time_ms: string;
  readonly accepted_ms: string;
  readonly data: Record<string, string>;
  readonly shard: number;
  readonly position: string;
}

export function refusedRoutes(app: App, context: ApiContext): void {
  app.get(
    '/v1/events/refused',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'listRefusedEvents',
        summary: 'List the events that do not count, newest first',
        tags: ['Usage'],
        querystring: object({
          verdict: Type.Optional(VerdictName),
          code: Type.Optional(
            Type.String({ minLength: 1, maxLength: 64, description: 'Only events refused for this' }),
          ),
          ...PAGE_QUERY,
        }),
        response: responses({ 200: listOf(RefusedSchema, 'Refused events, newest first') }, [
          'cursor_invalid',
          'usage_not_ready',
          'usage_unavailable',
        ]),
      },
    },
    async (request, reply) => {
      const { tenant } = callerOf(request);
      const { limit = LIST_LIMIT_DEFAULT, cursor, verdict = '', code = '' } = request.query;
      const scope = `refused ${tenant} ${verdict} ${code}`;
      const after = cursor === undefined ? null : decodeCursor(scope, cursor, ['number', 'number', 'string']);
      if (cursor !== undefined && (after === null || !/^[0-9]{1,20}$/.test(String(after[2])))) {
        return give(reply, problem('cursor_invalid'));
      }
      if (!context.usageReady()) return give(reply, problem('usage_not_ready'));
      const [acceptedMs = 0, shard = 0, position = '0'] = after ?? [];
      const params = {
        tenant,
        verdict,
        code,
        paged: after === null ? 0 : 1,
        acceptedMs,
        shard,
        position,
        limit: limit + 1,
      };
      let rows: Row[];
      try {
        rows = await context.ch.rows<Row>(SELECT_REFUSED, params);
      } catch (error) {
        if (!(error instanceof QueryError)) throw error;
        context.log.warn({ error }, 'refused events could not be read');
        return give(reply, problem('usage_unavailable'));
      }
      const keyOf = (row: Row) => [Number(row.accepted_ms), row.shard, row.position];
      const page = cutPage(rows, { scope, limit, keyOf });
      return give(reply, { status: 200, body: { ...page, items: page.items.map(refusedJson) } });
    },
  );
}

function refusedJson(row: Row) {
  const { verdict, id, source, type, subject, shard, position, data } = row;
  const code = row.code === '' ? verdict : row.code;
  const message = Object.hasOwn(REJECTIONS, code)
    ? REJECTIONS[code as keyof typeof REJECTIONS].message
    : MESSAGES[verdict];
  const time = formatInstant(Number(row.time_ms));
  return {
    verdict,
    code,
    message,
    id,
    source,
    type,
    subject,
    shard,
    position,
    time,
    acceptedAt: formatInstant(Number(row.accepted_ms)),
    data,
  };
}

const SELECT_REFUSED = `
SELECT verdict, code, id, source, type, subject, toString(toUnixTimestamp64Milli(time)) AS time_ms,
  toString(toUnixTimestamp64Milli(accepted_at)) AS accepted_ms, data, shard, toString(position) AS position
FROM refused
WHERE tenant = {tenant:String}
  AND ({verdict:String} = '' OR verdict = {verdict:String})
  AND ({code:String} = '' OR code = {code:String})
  AND ({paged:UInt8} = 0 OR (toUnixTimestamp64Milli(accepted_at), shard, refused.position)
    < ({acceptedMs:Int64}, {shard:UInt16}, {position:UInt64}))
ORDER BY accepted_at DESC, shard DESC, refused.position DESC
LIMIT {limit:UInt32}`;
