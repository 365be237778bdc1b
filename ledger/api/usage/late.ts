/**
 * GET /v1/usage/late: what came to a period after its invoice was cut from the log, and with which later invoice it
 * was charged.
 *
 * Every invoice of a customer has a cut: a position for each shard. They divide what belongs to the period into
 * generations. Generation 0 is on its own invoice and not told here; generation 1 came behind its cut and no later
 * than the next invoice's, which took it as an adjustment; and so on. What came behind the last cut is on no invoice
 * yet. An event that was taken back by a correction is told in the generation of the correction.
 *
 * It reads the events of the customer and the period one by one, under the limits of every query.
 */
import { Type } from 'typebox';
import { formatQuantity, storedQuantity } from '../../../contract/quantity.ts';
import { formatInstant } from '../../../contract/window.ts';
import { QueryError } from '../../../runtime/clickhouse.ts';
import { readCustomer } from '../../customers.ts';
import { readInvoice, readInvoicesFrom, type Invoice } from '../../invoices.ts';
import { batchesOf, type Positions } from '../../usage-batches.ts';
import { callerOf, type ApiContext, type App } from '../context.ts';
import { limitProblem } from '../limits.ts';
import { problem } from '../problems.ts';
import { Decimal, Instant, named, Nullable, object, responses } from '../schema.ts';
import { give } from '../write.ts';

/** Later invoices that are told apart; the last generation holds all that came behind them. */
const INVOICES_MAX = 60;
const ROWS_MAX = 10_000;

const LateSchema = named(
  'LateUsage',
  object(
    {
      invoice: Type.String({ description: 'The invoice of the period' }),
      periodStart: Instant('Start of the period'),
      periodEnd: Instant('Its end, exclusive'),
      rows: Type.Array(
        object({
          meter: Type.String(),
          subject: Type.String(),
          generation: Type.Integer({
            description: '1: after the cut of the invoice; 2: after that of the next one, and so on',
          }),
          invoice: Nullable(
            Type.String({
              description: 'The later invoice that has it as an adjustment; null: it is on none yet',
            }),
          ),
          added: Decimal('Events that came'),
          addedQuantity: Decimal(
            'Sum of what the meter reads of them; 1 each for a count and a unique count',
          ),
          retired: Decimal('Events that a correction took back, or stands in the place of'),
          retiredQuantity: Decimal('The same sum of these'),
          firstTime: Instant('The earliest time of use of all of them'),
          lastTime: Instant('The latest'),
        }),
      ),
    },
    'What changed in a closed period since its invoice',
  ),
);

export function lateRoutes(app: App, context: ApiContext): void {
  app.get(
    '/v1/usage/late',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'listLateUsage',
        summary: 'List what came to a closed period after its invoice',
        description:
          'By meter, subject and generation: generation 1 came after the cut of the invoice, generation 2 after that of the next invoice of the customer, and so on. For usage as it stood at the cut ask GET /v1/usage with asOf.',
        tags: ['Usage'],
        querystring: object({
          invoice: Type.String({ minLength: 1, maxLength: 64, description: 'Id of the invoice' }),
          meter: Type.Optional(Type.String({ minLength: 1, maxLength: 64, description: 'Only this meter' })),
        }),
        response: responses({ 200: LateSchema }, [
          'invoice_not_found',
          'usage_too_many_rows',
          'usage_query_too_large',
          'usage_not_ready',
          'usage_unavailable',
        ]),
      },
    },
    async (request, reply) => {
      const { tenant } = callerOf(request);
      const { meter = '' } = request.query;
      const invoice = await readInvoice(context.pg, tenant, request.query.invoice);
      if (invoice === null) return give(reply, problem('invoice_not_found'));
      if (!context.usageReady()) return give(reply, problem('usage_not_ready'));
      const customer = await readCustomer(context.pg, tenant, invoice.customer.id);
      const invoices = await readInvoicesFrom(context.pg, invoice, INVOICES_MAX);
      try {
        const rows: LateRow[] = [];
        for (const subjects of batchesOf(customer?.subjects ?? [], (subject) => subject)) {
          rows.push(...(await readLate(context, invoice, invoices, { subjects, meter })));
          if (rows.length <= ROWS_MAX) continue;
          const detail = `More than ${ROWS_MAX} rows: ask for one meter.`;
          return give(reply, problem('usage_too_many_rows', detail));
        }
        return give(reply, { status: 200, body: lateJson(invoice, invoices, rows) });
      } catch (error) {
        if (!(error instanceof QueryError)) throw error;
        const limit = limitProblem(error, context.apiLimits, 'one meter');
        if (limit !== null) return give(reply, limit);
        context.log.warn({ error }, 'late usage could not be read');
        return give(reply, problem('usage_unavailable'));
      }
    },
  );
}

interface LateRow {
  readonly meter: string;
  readonly subject: string;
  readonly generation: number | string;
  readonly added: string;
  readonly addedQuantity: string;
  readonly retired: string;
  readonly retiredQuantity: string;
  readonly firstMs: string;
  readonly lastMs: string;
}

const OF_PERIOD = `tenant = {tenant:String} AND subject IN {subjects:Array(String)}
    AND ({meter:String} = '' OR meter = {meter:String})
    AND hour >= toDateTime({start:UInt32}, 'UTC') AND hour < toDateTime({end:UInt32}, 'UTC')`;
/** The cuts of a row's shard, by invoice; none for a shard of which no invoice knew. */
const CUTS = '{cuts:Array(Array(UInt64))}[indexOf({shards:Array(UInt16)}, shard)]';
/** How many cuts lie before a position, the invoice's own among them: the generation of what happened there. */
const generationOf = (position: string): string =>
  `if(has({shards:Array(UInt16)}, shard), arrayCount(cut -> cut < ${position}, ${CUTS}), {invoices:UInt32})`;

const LATE = `
  SELECT meter, subject, generation, toString(sum(come)) AS added,
    toString(sum(quantity * come)) AS addedQuantity, toString(sum(gone)) AS retired,
    toString(sum(quantity * gone)) AS retiredQuantity, toString(toUnixTimestamp64Milli(min(time))) AS firstMs,
    toString(toUnixTimestamp64Milli(max(time))) AS lastMs
  FROM (
    SELECT meter, subject, ${generationOf('since')} AS generation, toUInt64(1) AS come, toUInt64(0) AS gone,
      quantity, time
    FROM contributions WHERE ${OF_PERIOD}
    UNION ALL
    SELECT meter, subject, ${generationOf('until')} AS generation, toUInt64(0) AS come, toUInt64(1) AS gone,
      quantity, time
    FROM contributions WHERE ${OF_PERIOD} AND until < 18446744073709551615
  )
  WHERE generation > 0
  GROUP BY meter, subject, generation
  ORDER BY meter, subject, generation
  LIMIT {limit:UInt32}`;

function readLate(
  { ch }: Pick<ApiContext, 'ch'>,
  invoice: Invoice,
  invoices: readonly { readonly cut: Positions }[],
  o: { readonly subjects: readonly string[]; readonly meter: string },
): Promise<LateRow[]> {
  const shards = [...new Set(invoices.flatMap(({ cut }) => [...cut.keys()]))].sort((a, b) => a - b);
  return ch.rows<LateRow>(LATE, {
    tenant: invoice.tenant,
    subjects: o.subjects,
    meter: o.meter,
    start: invoice.periodStart / 1_000,
    end: invoice.periodEnd / 1_000,
    shards,
    cuts: shards.map((shard) => invoices.map(({ cut }) => cut.get(shard) ?? 0n)),
    invoices: invoices.length,
    limit: ROWS_MAX + 1,
  });
}

function lateJson(
  invoice: Invoice,
  invoices: readonly { readonly id: string }[],
  rows: readonly LateRow[],
): Type.Static<typeof LateSchema> {
  return {
    invoice: invoice.id,
    periodStart: formatInstant(invoice.periodStart),
    periodEnd: formatInstant(invoice.periodEnd),
    rows: rows.map((row) => ({
      meter: row.meter,
      subject: row.subject,
      generation: Number(row.generation),
      invoice: invoices[Number(row.generation)]?.id ?? null,
      added: row.added,
      addedQuantity: formatQuantity(storedQuantity(row.addedQuantity)),
      retired: row.retired,
      retiredQuantity: formatQuantity(storedQuantity(row.retiredQuantity)),
      firstTime: formatInstant(Number(row.firstMs)),
      lastTime: formatInstant(Number(row.lastMs)),
    })),
  };
}
