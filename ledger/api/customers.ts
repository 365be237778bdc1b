import { Type, type Static } from 'typebox';
import { EVENT_LIMITS } from '../../contract/event.ts';
import { formatInstant, HOUR_MS, parseInstant } from '../../contract/window.ts';
import { CustomerRefused, listCustomers, putCustomer, readCustomer, type Customer } from '../customers.ts';
import { callerOf, type ApiContext, type App } from './context.ts';
import { cutPage, decodeCursor } from './cursor.ts';
import { problem, validationProblem } from './problems.ts';
import {
  CurrencyCode,
  CUSTOMER_PARAMS,
  IDEMPOTENCY_HEADERS,
  Instant,
  LIST_LIMIT_DEFAULT,
  listOf,
  named,
  object,
  PAGE_QUERY,
  responses,
} from './schema.ts';
import { give, write } from './write.ts';

const tags = ['Customers'];
const SUBJECTS_MAX = 1_000;

const Name = Type.String({ minLength: 1, maxLength: 200 });
const Subject = Type.String({ minLength: 1, maxLength: EVENT_LIMITS.subjectBytes });

const CustomerBody = object({
  name: Name,
  currency: CurrencyCode,
  subjects: Type.Array(Subject, {
    maxItems: SUBJECTS_MAX,
    uniqueItems: true,
    description: 'The `subject` of the events the customer pays for; each belongs to one customer',
  }),
  plan: Type.String({ minLength: 1, maxLength: 64, description: 'Key of the plan' }),
  planVersion: Type.Optional(
    Type.Integer({
      minimum: 1,
      maximum: 1_000_000,
      description: 'When absent: the one the customer has, or the newest of another plan',
    }),
  ),
  anchor: Type.Optional(
    Instant(
      'Whole hour from which monthly periods count; when absent, it stays, or is the start of this month (UTC)',
    ),
  ),
});

const CustomerSchema = named(
  'Customer',
  object(
    {
      id: Type.String(),
      name: Type.String(),
      currency: CurrencyCode,
      subjects: Type.Array(Type.String()),
      plan: Type.String({ description: 'Key of the plan' }),
      planVersion: Type.Integer(),
      anchor: Instant('Monthly periods are this instant plus n months'),
      createdAt: Instant('When it was first put'),
    },
    'Who pays, in which currency, under which plan, for the usage of which subjects',
  ),
);

export function customerJson(customer: Customer): Static<typeof CustomerSchema> {
  const { id, name, currency, subjects, planKey, planVersion, anchorMs, createdAtMs } = customer;
  return {
    id,
    name,
    currency,
    subjects: [...subjects],
    plan: planKey,
    planVersion,
    anchor: formatInstant(anchorMs),
    createdAt: formatInstant(createdAtMs),
  };
}

export function customerRoutes(app: App, context: ApiContext): void {
  app.put(
    '/v1/customers/:id',
    {
      config: { scope: 'admin' },
      schema: {
        operationId: 'putCustomer',
        summary: 'Create or change a customer',
        description:
          'Usage of its subjects is billed from the anchor on, also what came before this request.',
        tags,
        headers: IDEMPOTENCY_HEADERS,
        params: CUSTOMER_PARAMS,
        body: CustomerBody,
        response: responses(
          { 200: CustomerSchema, 201: CustomerSchema },
          ['plan_unknown', 'plan_currency', 'subject_taken', 'terms_fixed', 'subject_billed'],
          { write: true },
        ),
      },
    },
    (request, reply) => {
      const { id } = request.params;
      const { anchor, plan, planVersion, ...rest } = request.body;
      const anchorMs = anchor === undefined ? undefined : parseInstant(anchor);
      if (anchorMs === null || (anchorMs !== undefined && anchorMs % HOUR_MS !== 0)) {
        const message = 'must be RFC 3339 on a whole UTC hour, such as 2026-11-01T00:00:00Z';
        return give(reply, validationProblem([{ path: 'anchor', message }]));
      }
      return write(context, request, reply, {
        action: 'customer.put',
        async effect(tx, { tenant }, nowMs) {
          const before = await readCustomer(tx, tenant, id);
          try {
            const customer = await putCustomer(tx, {
              ...rest,
              planKey: plan,
              tenant,
              id,
              nowMs,
              anchorMs: anchorMs ?? before?.anchorMs ?? startOfMonth(nowMs),
              ...(planVersion === undefined ? {} : { planVersion }),
            });
            const answer = { status: before === null ? 201 : 200, body: customerJson(customer) };
            return { answer, changed: `customer/${id}` };
          } catch (error) {
            if (!(error instanceof CustomerRefused)) throw error;
            return { answer: problem(error.code, error.message), changed: null };
          }
        },
      });
    },
  );

  app.get(
    '/v1/customers',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'listCustomers',
        summary: 'List the customers',
        tags,
        querystring: object(PAGE_QUERY),
        response: responses({ 200: listOf(CustomerSchema, 'Customers by id') }, ['cursor_invalid']),
      },
    },
    async (request, reply) => {
      const { tenant } = callerOf(request);
      const { limit = LIST_LIMIT_DEFAULT, cursor } = request.query;
      const scope = `customers ${tenant}`;
      const after = cursor === undefined ? null : decodeCursor(scope, cursor, ['string']);
      if (cursor !== undefined && after === null) return give(reply, problem('cursor_invalid'));
      const afterId = after === null ? null : String(after[0]);
      const found = await listCustomers(context.pg, tenant, { afterId, limit: limit + 1 });
      const page = cutPage(found, { scope, limit, keyOf: (one) => [one.id] });
      return give(reply, { status: 200, body: { ...page, items: page.items.map(customerJson) } });
    },
  );

  app.get(
    '/v1/customers/:id',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'getCustomer',
        summary: 'Get a customer',
        tags,
        params: CUSTOMER_PARAMS,
        response: responses({ 200: CustomerSchema }, ['customer_not_found']),
      },
    },
    async (request, reply) => {
      const customer = await readCustomer(context.pg, callerOf(request).tenant, request.params.id);
      return give(
        reply,
        customer === null ? problem('customer_not_found') : { status: 200, body: customerJson(customer) },
      );
    },
  );
}

function startOfMonth(timeMs: number): number {
  const time = new Date(timeMs);
  return Date.UTC(time.getUTCFullYear(), time.getUTCMonth(), 1);
}
