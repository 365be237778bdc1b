/** What a customer has and owes: balance, entitlements, the journal, and grants of credit. */
import { createHash } from 'node:crypto';
import { Type, type Static } from 'typebox';
import { formatAmount, parseAmount } from '../../contract/money.ts';
import { formatQuantity } from '../../contract/quantity.ts';
import { formatInstant, parseInstant } from '../../contract/window.ts';
import { QueryError } from '../../runtime/clickhouse.ts';
import { readBalance, type Balance } from '../balance.ts';
import { readCustomer } from '../customers.ts';
import { readEntitlements, type Entitlement } from '../entitlements.ts';
import { issueGrant, listGrants, type Grant } from '../grants.ts';
import { ACCOUNTS, type LedgerTransaction } from '../journal.ts';
import { listTransactions } from '../journal-store.ts';
import { callerOf, type ApiContext, type App } from './context.ts';
import { cutPage, decodeCursor, pageOf } from './cursor.ts';
import { problem, validationProblem, type Mistake } from './problems.ts';
import {
  CurrencyCode,
  CUSTOMER_PARAMS,
  Decimal,
  IDEMPOTENCY_HEADERS,
  Instant,
  LIST_LIMIT_DEFAULT,
  listOf,
  Money,
  named,
  Nullable,
  object,
  oneOf,
  PAGE_QUERY,
  responses,
} from './schema.ts';
import { give, write } from './write.ts';

const tags = ['Customers'];
const PRIORITY_DEFAULT = 50;

const BalanceSchema = named(
  'Balance',
  object(
    {
      currency: CurrencyCode,
      accruedUsage: Money('Rated and not yet on an invoice, less the credit that covers it'),
      credit: Money('Credit that is left'),
      invoicePending: Money('On issued invoices on their way to Stripe'),
      receivable: Money('On invoices that are with the customer and not paid'),
      net: Money('What the customer will owe as things stand: accrued, pending and receivable, less credit'),
      asOf: Instant('When it was read'),
      periods: Type.Array(
        object({
          start: Instant('Start of the period'),
          end: Instant('Its end, exclusive'),
          accrued: Money('Usage of the period that is not on an invoice'),
          credited: Money('The part of it that credit covers'),
        }),
      ),
    },
    'As far as usage has been posted, about a second behind the edge',
  ),
);

const EntitlementSchema = named(
  'Entitlement',
  object(
    {
      key: Type.String(),
      meter: Type.String(),
      limit: Decimal('Units a period'),
      used: Decimal('Units of this period'),
      remaining: Decimal('What is left of the limit; negative when it was overshot'),
      allowed: Type.Boolean({ description: 'Whether anything is left' }),
      periodStart: Instant('Start of the period'),
      periodEnd: Instant('Its end, exclusive'),
      asOf: Instant('How fresh `used` is'),
    },
    'A limit of the plan and where the customer stands against it',
  ),
);

const TransactionSchema = named(
  'LedgerTransaction',
  object(
    {
      id: Type.String({ description: 'Place in the tenant’s chain' }),
      kind: Type.String(),
      currency: CurrencyCode,
      effectiveAt: Instant('When it happened'),
      postedAt: Instant('When it was written down'),
      detail: Type.Record(Type.String(), Type.String()),
      postings: Type.Array(
        object({ account: oneOf(ACCOUNTS), amount: Money('Positive is a debit, negative a credit') }),
        { description: 'They sum to zero' },
      ),
      hash: Type.String({ description: 'SHA-256 over this transaction and the hash before it' }),
    },
    'An entry of the journal; it is never changed',
  ),
);

const GrantSchema = named(
  'Grant',
  object(
    {
      id: Type.String(),
      kind: oneOf(['promotional']),
      currency: CurrencyCode,
      amount: Money('As it was granted'),
      used: Money('Has covered charges'),
      expired: Money('Was left when it expired'),
      remaining: Money('Can still cover charges'),
      priority: Type.Integer({ description: 'The lower is used first' }),
      reason: Type.String(),
      expiresAt: Nullable(Instant('Null: never')),
      createdAt: Instant('When it was granted'),
    },
    'Credit that covers charges before money does',
  ),
);

export function balanceJson(balance: Balance): Static<typeof BalanceSchema> {
  const money = (amount: bigint) => formatAmount(amount, balance.currency);
  return {
    currency: balance.currency,
    accruedUsage: money(balance.accruedUsage),
    credit: money(balance.credit),
    invoicePending: money(balance.invoicePending),
    receivable: money(balance.receivable),
    net: money(balance.net),
    asOf: formatInstant(balance.asOfMs),
    periods: balance.periods.map(({ start, end, accrued, credited }) => ({
      start: formatInstant(start),
      end: formatInstant(end),
      accrued: money(accrued),
      credited: money(credited),
    })),
  };
}

export function entitlementJson(one: Entitlement): Static<typeof EntitlementSchema> {
  return {
    key: one.key,
    meter: one.meter,
    limit: formatQuantity(one.limit),
    used: formatQuantity(one.used),
    remaining: formatQuantity(one.remaining),
    allowed: one.allowed,
    periodStart: formatInstant(one.periodStartMs),
    periodEnd: formatInstant(one.periodEndMs),
    asOf: formatInstant(one.asOfMs),
  };
}

export function transactionJson(one: LedgerTransaction): Static<typeof TransactionSchema> {
  return {
    id: one.id.toString(),
    kind: one.kind,
    currency: one.currency,
    effectiveAt: formatInstant(one.effectiveAtMs),
    postedAt: formatInstant(one.postedAtMs),
    detail: { ...one.detail },
    postings: one.postings.map(({ account, amount }) => ({
      account,
      amount: formatAmount(amount, one.currency),
    })),
    hash: Buffer.from(one.hash).toString('hex'),
  };
}

export function grantJson(grant: Grant): Static<typeof GrantSchema> {
  const money = (amount: bigint) => formatAmount(amount, grant.currency);
  return {
    id: grant.id,
    kind: grant.kind,
    currency: grant.currency,
    amount: money(grant.amount),
    used: money(grant.used),
    expired: money(grant.expired),
    remaining: money(grant.remaining),
    priority: grant.priority,
    reason: grant.reason,
    expiresAt: grant.expiresAtMs === null ? null : formatInstant(grant.expiresAtMs),
    createdAt: formatInstant(grant.createdAtMs),
  };
}

export function accountRoutes(app: App, context: ApiContext): void {
  const known = async (tenant: string, id: string) => (await readCustomer(context.pg, tenant, id)) !== null;

  app.get(
    '/v1/customers/:id/balance',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'getBalance',
        summary: 'Get the balance of a customer',
        tags,
        params: CUSTOMER_PARAMS,
        response: responses({ 200: BalanceSchema }, ['customer_not_found']),
      },
    },
    async (request, reply) => {
      const { tenant } = callerOf(request);
      const { id } = request.params;
      const balance = await readBalance(context.pg, tenant, id, context.clock.now());
      return give(
        reply,
        balance === null ? problem('customer_not_found') : { status: 200, body: balanceJson(balance) },
      );
    },
  );

  app.get(
    '/v1/customers/:id/entitlements',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'getEntitlements',
        summary: 'Check the entitlements of a customer',
        tags,
        params: CUSTOMER_PARAMS,
        querystring: object({ at: Type.Optional(Instant('Which period; now when absent')) }),
        response: responses(
          { 200: object({ items: Type.Array(EntitlementSchema) }, 'Entitlements in the order of the plan') },
          ['customer_not_found', 'usage_not_ready', 'usage_unavailable'],
        ),
      },
    },
    async (request, reply) => {
      const { tenant } = callerOf(request);
      const { id } = request.params;
      const { at } = request.query;
      const nowMs = context.clock.now();
      const atMs = at === undefined ? nowMs : parseInstant(at);
      if (atMs === null) {
        return give(
          reply,
          validationProblem([{ path: 'at', message: 'must be RFC 3339, such as 2026-11-21T08:30:00Z' }]),
        );
      }
      if (!context.usageReady()) return give(reply, problem('usage_not_ready'));
      try {
        const found = await readEntitlements({ db: context.pg, ch: context.ch, nowMs }, tenant, id, atMs);
        if (found === null) return give(reply, problem('customer_not_found'));
        return give(reply, { status: 200, body: { items: found.map(entitlementJson) } });
      } catch (error) {
        if (!(error instanceof QueryError)) throw error;
        context.log.warn({ error }, 'entitlements could not be read');
        return give(reply, problem('usage_unavailable'));
      }
    },
  );

  app.get(
    '/v1/customers/:id/ledger',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'listLedger',
        summary: 'List the ledger of a customer, newest first',
        tags,
        params: CUSTOMER_PARAMS,
        querystring: object(PAGE_QUERY),
        response: responses({ 200: listOf(TransactionSchema, 'Transactions, newest first') }, [
          'customer_not_found',
          'cursor_invalid',
        ]),
      },
    },
    async (request, reply) => {
      const { tenant } = callerOf(request);
      const { id } = request.params;
      const { limit = LIST_LIMIT_DEFAULT, cursor } = request.query;
      const scope = `ledger ${tenant} ${id}`;
      const after = cursor === undefined ? null : decodeCursor(scope, cursor, ['string']);
      if (cursor !== undefined && (after === null || !/^[0-9]{1,18}$/.test(String(after[0])))) {
        return give(reply, problem('cursor_invalid'));
      }
      if (!(await known(tenant, id))) return give(reply, problem('customer_not_found'));
      const before = after === null ? null : BigInt(after[0]!);
      const found = await listTransactions(context.pg, { tenant, customer: id, before, limit: limit + 1 });
      const page = cutPage(found, { scope, limit, keyOf: (one) => [one.id.toString()] });
      return give(reply, { status: 200, body: { ...page, items: page.items.map(transactionJson) } });
    },
  );

  app.get(
    '/v1/customers/:id/grants',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'listGrants',
        summary: 'List the grants of a customer, in the order of issue',
        tags,
        params: CUSTOMER_PARAMS,
        querystring: object(PAGE_QUERY),
        response: responses({ 200: listOf(GrantSchema, 'Grants, oldest first') }, [
          'customer_not_found',
          'cursor_invalid',
        ]),
      },
    },
    async (request, reply) => {
      const { tenant } = callerOf(request);
      const { id } = request.params;
      const { limit = LIST_LIMIT_DEFAULT, cursor } = request.query;
      if (!(await known(tenant, id))) return give(reply, problem('customer_not_found'));
      const grants = await listGrants(context.pg, tenant, id);
      const order = (grant: Grant) => `${String(grant.createdAtMs).padStart(16, '0')} ${grant.id}`;
      const page = pageOf(grants, order, { scope: `grants ${tenant} ${id}`, limit, cursor });
      if (page === null) return give(reply, problem('cursor_invalid'));
      return give(reply, { status: 200, body: { ...page, items: page.items.map(grantJson) } });
    },
  );

  app.post(
    '/v1/customers/:id/grants',
    {
      config: { scope: 'admin' },
      schema: {
        operationId: 'issueGrant',
        summary: 'Grant a customer credit',
        description:
          'The credit covers what has accrued already and what comes, before the customer is charged.',
        tags,
        headers: IDEMPOTENCY_HEADERS,
        params: CUSTOMER_PARAMS,
        body: object({
          amount: Money('In the currency of the customer, more than zero'),
          reason: Type.String({ minLength: 1, maxLength: 500, description: 'For people and the audit' }),
          expiresAt: Type.Optional(Nullable(Instant('In the future; never when absent'))),
          priority: Type.Optional(
            Type.Integer({
              minimum: 0,
              maximum: 1_000,
              description: `The lower is used first; ${PRIORITY_DEFAULT} when absent`,
            }),
          ),
        }),
        response: responses({ 201: GrantSchema }, ['customer_not_found'], { write: true }),
      },
    },
    (request, reply) => {
      const { id } = request.params;
      const { reason, priority = PRIORITY_DEFAULT } = request.body;
      const key = request.headers['idempotency-key'];
      return write(context, request, reply, {
        action: 'grant.issue',
        async effect(tx, { tenant, keyId }, nowMs) {
          const customer = await readCustomer(tx, tenant, id);
          if (customer === null) return { answer: problem('customer_not_found'), changed: null };
          const mistakes: Mistake[] = [];
          const amount = parseAmount(request.body.amount, customer.currency);
          if (amount === null || amount <= 0n) {
            mistakes.push({
              path: 'amount',
              message: `must be more than zero, in ${customer.currency} and no finer than its minor unit`,
            });
          }
          const expiresAtMs =
            request.body.expiresAt == null ? null : (parseInstant(request.body.expiresAt) ?? NaN);
          if (expiresAtMs !== null && !(expiresAtMs > nowMs)) {
            mistakes.push({ path: 'expiresAt', message: 'must be RFC 3339 and in the future' });
          }
          if (mistakes.length > 0 || amount === null)
            return { answer: validationProblem(mistakes), changed: null };
          const grant = await issueGrant(tx, {
            tenant,
            customer: id,
            id: grantId(typeof key === 'string' ? `${tenant} ${id} ${key}` : context.randomBytes(32)),
            amount,
            reason,
            expiresAtMs,
            priority,
            actor: keyId,
            nowMs,
          });
          return {
            answer: { status: 201, body: grantJson(grant) },
            changed: `customer/${id}/grant/${grant.id}`,
          };
        },
      });
    },
  );
}

/** The same for the same idempotency key, so that not even a forgotten answer makes a second grant. */
function grantId(seed: string | Uint8Array): string {
  return `gr_${createHash('sha256').update(seed).digest('hex').slice(0, 24)}`;
}
