import { Type } from 'typebox';
import { formatInstant, parseInstant } from '../../contract/window.ts';
import { closePeriod, type CloseOutcome } from '../close.ts';
import { readCustomer } from '../customers.ts';
import { listInvoices, readInvoice } from '../invoices.ts';
import { callerOf, type ApiContext, type App } from './context.ts';
import { cutPage, decodeCursor } from './cursor.ts';
import { differenceJson, invoiceJson, InvoiceSchema } from './invoice-json.ts';
import { problem, validationProblem, type Answer } from './problems.ts';
import {
  CUSTOMER_PARAMS,
  IDEMPOTENCY_HEADERS,
  Instant,
  LIST_LIMIT_DEFAULT,
  listOf,
  object,
  PAGE_QUERY,
  responses,
} from './schema.ts';
import { give, write } from './write.ts';

const tags = ['Invoices'];

export function invoiceRoutes(app: App, context: ApiContext): void {
  app.post(
    '/v1/customers/:id/invoices',
    {
      config: { scope: 'admin' },
      schema: {
        operationId: 'closePeriod',
        summary: 'Close a period of a customer and issue its invoice',
        description:
          'The invoice is computed from raw events up to a cut of the log and compared with the rollups and with what was posted; a difference holds it back. A closed period stays closed: closing it again answers 200 with the same invoice, and usage that comes later goes to the next one as an adjustment.',
        tags,
        headers: IDEMPOTENCY_HEADERS,
        params: CUSTOMER_PARAMS,
        body: object({ periodStart: Instant('The first instant of the period') }),
        response: responses(
          { 200: InvoiceSchema, 201: InvoiceSchema },
          [
            'customer_not_found',
            'no_subscription',
            'not_a_period',
            'period_open',
            'behind',
            'usage_mismatch',
            'usage_not_ready',
            'usage_unavailable',
          ],
          { write: true },
        ),
      },
    },
    (request, reply) => {
      const { id } = request.params;
      const periodStart = parseInstant(request.body.periodStart);
      if (periodStart === null) {
        const message = 'must be RFC 3339, such as 2026-11-01T00:00:00Z';
        return give(reply, validationProblem([{ path: 'periodStart', message }]));
      }
      return write(context, request, reply, {
        action: 'period.close',
        elsewhere: true,
        async effect(_tx, { tenant, keyId }) {
          if ((await readCustomer(context.pg, tenant, id)) === null) {
            return { answer: problem('customer_not_found'), changed: null };
          }
          if (!context.usageReady()) return { answer: problem('usage_not_ready'), changed: null };
          const outcome = await closePeriod(context, { tenant, customer: id, periodStart, actor: keyId });
          // Closing writes its own line of the audit log, in the transaction that writes the invoice.
          return { answer: answerTo(outcome), changed: null };
        },
      });
    },
  );

  app.get(
    '/v1/customers/:id/invoices',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'listInvoices',
        summary: 'List the invoices of a customer, newest period first',
        tags,
        params: CUSTOMER_PARAMS,
        querystring: object(PAGE_QUERY),
        response: responses({ 200: listOf(InvoiceSchema, 'Invoices, newest period first') }, [
          'customer_not_found',
          'cursor_invalid',
        ]),
      },
    },
    async (request, reply) => {
      const { tenant } = callerOf(request);
      const { id } = request.params;
      const { limit = LIST_LIMIT_DEFAULT, cursor } = request.query;
      const scope = `invoices ${tenant} ${id}`;
      const after = cursor === undefined ? null : decodeCursor(scope, cursor, ['number']);
      if (cursor !== undefined && after === null) return give(reply, problem('cursor_invalid'));
      if ((await readCustomer(context.pg, tenant, id)) === null)
        return give(reply, problem('customer_not_found'));
      const beforeMs = after === null ? null : Number(after[0]);
      const found = await listInvoices(context.pg, { tenant, customer: id, beforeMs, limit: limit + 1 });
      const page = cutPage(found, { scope, limit, keyOf: (one) => [one.periodStart] });
      return give(reply, { status: 200, body: { ...page, items: page.items.map(invoiceJson) } });
    },
  );

  app.get(
    '/v1/invoices/:id',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'getInvoice',
        summary: 'Get an invoice',
        tags,
        params: object({ id: Type.String({ minLength: 1, maxLength: 128 }) }),
        response: responses({ 200: InvoiceSchema }, ['invoice_not_found']),
      },
    },
    async (request, reply) => {
      const invoice = await readInvoice(context.pg, callerOf(request).tenant, request.params.id);
      return give(
        reply,
        invoice === null ? problem('invoice_not_found') : { status: 200, body: invoiceJson(invoice) },
      );
    },
  );
}

function answerTo(outcome: CloseOutcome): Answer {
  switch (outcome.outcome) {
    case 'closed':
      return { status: 201, body: invoiceJson(outcome.invoice) };
    case 'already_closed':
      return { status: 200, body: invoiceJson(outcome.invoice) };
    case 'period_open': {
      const endsAt = formatInstant(outcome.endsAtMs);
      return problem('period_open', `The period ends at ${endsAt}: close it after that.`, { endsAt });
    }
    case 'not_a_period': {
      const periodStart = formatInstant(outcome.periodStartMs);
      return problem('not_a_period', `The period around that instant begins at ${periodStart}.`, {
        periodStart,
      });
    }
    case 'no_subscription':
      return problem('no_subscription');
    case 'behind':
      return problem('behind', outcome.detail);
    case 'usage_mismatch':
      return problem('usage_mismatch', undefined, { differences: outcome.differences.map(differenceJson) });
  }
}
