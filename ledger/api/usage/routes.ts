/** GET /v1/usage: reads the request, asks ClickHouse, writes the answer. Windows and SQL are in files of their own. */
import { PassThrough, type Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { Type } from 'typebox';
import { formatQuantity, storedQuantity } from '../../../contract/quantity.ts';
import { formatInstant, parseInstant, type Window } from '../../../contract/window.ts';
import { QueryError } from '../../../runtime/clickhouse.ts';
import { cutOf, readInvoice, type Invoice } from '../../invoices.ts';
import { meterByKey } from '../../meters.ts';
import { callerOf, type ApiContext, type App } from '../context.ts';
import { cutPage, decodeCursor } from '../cursor.ts';
import { problem, validationProblem, type Answer, type Mistake } from '../problems.ts';
import { Decimal, Instant, named, Nullable, object, oneOf, responses } from '../schema.ts';
import { give } from '../write.ts';
import { limitProblem } from '../limits.ts';
import { PERCENTILES_MAX, percentileOf, percentileText } from './aggregate.ts';
import { CSV_KINDS, usageExport } from './export.ts';
import { chooseFormat, csvHeader, MEDIA_TYPES, USAGE_FORMATS, type UsageFormat } from './format.ts';
import { lateRoutes } from './late.ts';
import {
  cursorKey,
  cursorScope,
  cursorShape,
  readsEvents,
  unknownPaths,
  usageCount,
  usagePage,
  type UsageQuery,
  type UsageRow,
} from './query.ts';
import { defaultRange, isTimezone, WINDOW_SIZES, windowEnd, windowStarts } from './window.ts';

const ROWS_DEFAULT = 1_000;
const ROWS_MAX = 10_000;
const VALUES_MAX = 100;
const FILTER = 'filter.';

const Text = Type.String({ maxLength: 256 });

const UsageRowSchema = object({
  windowStart: Instant('Start of the window'),
  windowEnd: Instant('Its end, exclusive'),
  subject: Nullable(Type.String({ description: 'Null when all subjects are taken together' })),
  group: Type.Record(Type.String(), Type.String(), {
    description: 'Value by path; "" for events that lack it',
  }),
  value: Decimal('In the aggregation of the meter; an average is cut after nine decimals'),
  percentiles: Type.Optional(
    Type.Record(Type.String(), Decimal('Value of the nearest rank'), {
      description: 'By what was asked for, such as "0.95"; absent when nothing was',
    }),
  ),
});

const UsageSchema = named(
  'Usage',
  object({
    rows: Type.Array(UsageRowSchema),
    nextCursor: Nullable(
      Type.String({ description: 'Pass as `cursor` for the next page; null on the last' }),
    ),
  }),
);

/** `filter.<path>` is a family of parameters; it is checked here by its prefix and described as one. */
const UsageParameters = Type.Object(
  {
    meter: Type.String({
      minLength: 1,
      maxLength: 64,
      description: 'Key of the meter',
      examples: ['input_tokens'],
    }),
    subject: Type.Optional(
      Type.Array(Text, {
        maxItems: VALUES_MAX,
        description:
          'Only these subjects, each in rows of its own; repeat the parameter for several. All together when absent',
      }),
    ),
    from: Type.Optional(
      Instant('Any instant to the millisecond; the start of the current month of the time zone when absent'),
    ),
    to: Type.Optional(
      Instant('Exclusive, any instant to the millisecond; the end of the current window when absent'),
    ),
    window: Type.Optional(
      oneOf(
        WINDOW_SIZES,
        'Length of a row; total when absent. The first and the last are cut at `from` and `to`',
      ),
    ),
    groupBy: Type.Optional(
      Type.Array(Text, {
        maxItems: 9,
        description: 'Paths of the groupBy of the meter, or `subject`; repeat it or separate by commas',
      }),
    ),
    timezone: Type.Optional(
      Type.String({
        maxLength: 64,
        description: 'IANA zone in which hours, days and months begin; UTC when absent',
        examples: ['Europe/Berlin'],
      }),
    ),
    percentile: Type.Optional(
      Type.Array(Type.String({ maxLength: 128 }), {
        maxItems: PERCENTILES_MAX,
        description: `Exact percentiles of the values of single events, above 0 and up to 1, at most ${PERCENTILES_MAX}; repeat it or separate by commas`,
        examples: ['0.5,0.95,0.99'],
      }),
    ),
    asOf: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 64,
        description:
          'Id of an invoice: usage as it stood when the invoice was cut from the log, read from the events one by one. Without `from` and `to` its period',
      }),
    ),
    csv: Type.Optional(
      oneOf(
        CSV_KINDS,
        'exact (when absent) leaves every text as it is; spreadsheet puts an apostrophe before texts that a spreadsheet would take for a formula',
      ),
    ),
    format: Type.Optional(oneOf(USAGE_FORMATS, 'Wins over the Accept header')),
    limit: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: ROWS_MAX,
        description: `Rows a page of JSON; ${ROWS_DEFAULT} when absent`,
      }),
    ),
    cursor: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 4096,
        description: 'The `nextCursor` of the page before; JSON only',
      }),
    ),
  },
  {
    additionalProperties: false,
    patternProperties: { '^filter\\..+$': Type.Array(Text, { minItems: 1, maxItems: VALUES_MAX }) },
  },
);

export function usageRoutes(app: App, context: ApiContext): void {
  lateRoutes(app, context);
  app.get(
    '/v1/usage',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'queryUsage',
        summary: 'Query usage',
        description:
          'Exact usage of a meter by window, subject and group; windows without usage have no row. An event is visible within about a second of its 202. `filter.<path>=value` keeps one value of a dimension of the meter; repeat it for any of several. NDJSON, CSV and Parquet give all rows at once, without pages. A cursor names the last row that was given, so rows that appear or change between two pages are neither given twice nor left out; each page shows the values of its own moment.',
        tags: ['Usage'],
        querystring: UsageParameters,
        response: {
          ...responses({}, [
            'meter_not_found',
            'invoice_not_found',
            'group_by_unknown',
            'percentile_unavailable',
            'range_invalid',
            'timezone_unknown',
            'usage_too_many_rows',
            'usage_query_too_large',
            'format_not_acceptable',
            'cursor_invalid',
            'usage_not_ready',
            'usage_unavailable',
          ]),
          200: {
            description: 'Usage, oldest window first',
            content: {
              'application/json': { schema: UsageSchema },
              'application/x-ndjson': { schema: Type.String({ description: 'One row object a line' }) },
              'text/csv': {
                schema: Type.String({
                  description: 'windowStart, windowEnd, subject (if grouped by it), groups, value',
                }),
              },
              'application/vnd.apache.parquet': {
                schema: Type.String({ description: 'The columns of the rows; value is Decimal(38, 9)' }),
              },
            },
          },
        },
      },
    },
    async (request, reply) => {
      const format = chooseFormat(request.query.format, request.headers.accept);
      if (format === null) return give(reply, problem('format_not_acceptable'));
      const { tenant } = callerOf(request);
      const meter = await meterByKey(context.pg, tenant, request.query.meter);
      if (meter === null) return give(reply, problem('meter_not_found'));
      const { asOf: invoiceId } = request.query;
      const invoice = invoiceId === undefined ? null : await readInvoice(context.pg, tenant, invoiceId);
      if (invoiceId !== undefined && invoice === null) return give(reply, problem('invoice_not_found'));
      const read = readQuery(tenant, meter, request.query, context.clock.now(), invoice);
      if ('status' in read) return give(reply, read);
      if (!context.usageReady()) return give(reply, problem('usage_not_ready'));
      try {
        if (format === 'json') return give(reply, await page(context, read, request.query));
        const made = await exported(context, read, format, request.query);
        if ('status' in made) return give(reply, made);
        return give(reply, { status: 200, ...made });
      } catch (error) {
        if (!(error instanceof QueryError)) throw error;
        const limit = limitProblem(error, context.apiLimits, narrower(read, request.query));
        if (limit !== null) return give(reply, limit);
        context.log.warn({ error }, 'a usage query failed');
        return give(reply, problem('usage_unavailable'));
      }
    },
  );
}

type Parameters = Type.Static<typeof UsageParameters>;

function readQuery(
  tenant: string,
  meter: UsageQuery['meter'],
  parameters: Parameters,
  nowMs: number,
  asOf: Invoice | null,
): UsageQuery | Answer {
  const { subject: subjects = [], timezone = 'UTC', window: size = 'total' } = parameters;
  if (!isTimezone(timezone))
    return problem(
      'timezone_unknown',
      `${JSON.stringify(timezone)} is no IANA time zone, such as Europe/Berlin.`,
    );
  const preset =
    asOf === null ? defaultRange(size, nowMs, timezone) : { start: asOf.periodStart, end: asOf.periodEnd };
  const range = readRange(parameters, preset);
  if ('status' in range) return range;
  const windows = windowStarts(size, range, timezone);
  if (!windows.ok) {
    const { daysMax } = windows;
    return problem(
      'range_invalid',
      `Choose a \`from\` before \`to\`, from 1970 on, and at most ${daysMax} days between them for window=${size} in this time zone.`,
    );
  }
  const percentiles = readPercentiles(meter, parameters.percentile ?? []);
  if ('status' in percentiles) return percentiles;

  // A path may hold no comma, a subject may: only groupBy can be written as one list.
  const paths = [...new Set((parameters.groupBy ?? []).flatMap((text) => text.split(',')))];
  const groupBy = paths.filter((path) => path !== 'subject');
  const filters = Object.entries(parameters as Record<string, unknown>)
    .filter(([name]) => name.startsWith(FILTER))
    .map(([name, values]) => ({ path: name.slice(FILTER.length), values: values as string[] }));
  const unknown = unknownPaths(meter, [...groupBy, ...filters.map((filter) => filter.path)]);
  if (unknown.length > 0) {
    const kept = meter.groupBy.length === 0 ? 'none but subject' : meter.groupBy.join(', ');
    const detail = `The meter ${meter.key} does not keep ${unknown.map((path) => JSON.stringify(path)).join(', ')}; it keeps ${kept}.`;
    return problem('group_by_unknown', detail, { known: ['subject', ...meter.groupBy] });
  }
  return {
    tenant,
    meter,
    subjects,
    range,
    size,
    starts: windows.starts,
    groupBy,
    bySubject: subjects.length > 0 || paths.includes('subject'),
    filters,
    percentiles: percentiles.parts,
    asOf: asOf && cutOf(asOf),
  };
}

function readPercentiles(
  meter: UsageQuery['meter'],
  given: readonly string[],
): { parts: readonly number[] } | Answer {
  const texts = given.flatMap((text) => text.split(','));
  const parts = [...new Set(texts.map(percentileOf))];
  const known = parts.filter((one) => one !== null);
  if (known.length < parts.length || known.length > PERCENTILES_MAX) {
    const message = `must be at most ${PERCENTILES_MAX} decimals above 0 and up to 1 with six decimals at most, such as 0.5,0.95,0.99`;
    return validationProblem([{ path: 'percentile', message }]);
  }
  const { aggregation } = meter;
  if (known.length > 0 && (aggregation === 'count' || aggregation === 'unique_count')) {
    return problem(
      'percentile_unavailable',
      `The meter ${meter.key} is a ${aggregation}: its events have no number to rank. Ask a meter that reads the property you mean.`,
    );
  }
  return { parts: known };
}

/** What makes this query read less, as the end of a sentence. */
function narrower(query: UsageQuery, parameters: Parameters): string {
  const ways = ['a shorter range'];
  if (query.subjects.length === 0) ways.push('a subject');
  if (parameters.asOf !== undefined) ways.push('usage as of now (as of a cut, every event is read)');
  else if (query.percentiles.length > 0) ways.push('no percentile (it reads every event of the range)');
  else if (readsEvents(query)) ways.push('fewer subjects (a unique count reads every event of the range)');
  else if ((query.starts ?? []).length > 1 && parameters.timezone !== undefined)
    ways.push('a time zone of whole hours (in others the hours around midnight are read event by event)');
  if (query.groupBy.length > 0 || (query.bySubject && query.subjects.length === 0)) ways.push('fewer groups');
  return ways.join(', or ');
}

function readRange(parameters: Parameters, preset: Window): Window | Answer {
  const mistakes: Mistake[] = [];
  const instant = (path: 'from' | 'to', otherwise: number): number => {
    const text = parameters[path];
    if (text === undefined) return otherwise;
    const value = parseInstant(text);
    if (value === null) mistakes.push({ path, message: 'must be RFC 3339, such as 2026-11-01T00:00:00Z' });
    return value ?? otherwise;
  };
  const range = { start: instant('from', preset.start), end: instant('to', preset.end) };
  return mistakes.length > 0 ? validationProblem(mistakes) : range;
}

async function page(context: ApiContext, query: UsageQuery, parameters: Parameters): Promise<Answer> {
  const { limit = ROWS_DEFAULT, cursor } = parameters;
  const scope = cursorScope(query);
  const after = cursor === undefined ? null : decodeCursor(scope, cursor, cursorShape(query));
  if (cursor !== undefined && after === null) return problem('cursor_invalid');
  const { sql, params } = usagePage(query, after, limit + 1);
  const rows = await context.ch.rows<UsageRow>(sql, params);
  const page = cutPage(rows, { scope, limit, keyOf: (row) => cursorKey(query, row) });
  const body = {
    rows: page.items.map(({ w, s, g, value, p }) => ({
      windowStart: formatInstant(Number(w)),
      windowEnd: formatInstant(windowEnd(Number(w), query.range, query.starts)),
      subject: query.bySubject ? s : null,
      group: Object.fromEntries(query.groupBy.map((path, at) => [path, g[at] ?? ''])),
      value: formatQuantity(storedQuantity(value)),
      ...(p.length === 0
        ? {}
        : {
            percentiles: Object.fromEntries(
              p.map((text, at) => [
                percentileText(query.percentiles[at]!),
                formatQuantity(storedQuantity(text)),
              ]),
            ),
          }),
    })),
    nextCursor: page.nextCursor,
  };
  return { status: 200, body };
}

interface Export {
  readonly headers: Record<string, string>;
  readonly body: Readable;
}

async function exported(
  context: ApiContext,
  query: UsageQuery,
  format: Exclude<UsageFormat, 'json'>,
  parameters: Parameters,
): Promise<Export | Answer> {
  const most = context.apiLimits.exportRowsMax;
  // Counted first: an answer that breaks off in the middle would look like a complete one to some readers.
  const counting = usageCount(query, most + 1);
  const [counted] = await context.ch.rows<{ count: string }>(counting.sql, counting.params);
  if (Number(counted?.count ?? 0) > most) {
    return problem(
      'usage_too_many_rows',
      `More than ${most} rows: choose a shorter range, a larger window or fewer groups, or page through format=json.`,
    );
  }
  const { sql, params, name, columns } = usageExport(query, format, parameters.csv);
  const rows = await context.ch.stream(sql, params, name);
  const body = new PassThrough();
  if (format === 'csv') body.write(csvHeader(columns));
  // A failure on the way destroys the answer: its length is never announced, so the client sees it cut.
  pipeline(rows, body).catch((error: unknown) => context.log.warn({ error }, 'an export of usage broke off'));
  const type = format === 'csv' ? `${MEDIA_TYPES.csv}; charset=utf-8; header=present` : MEDIA_TYPES[format];
  const headers = {
    'content-type': type,
    'content-disposition': `attachment; filename="usage-${query.meter.key}.${format}"`,
  };
  return { headers, body };
}
