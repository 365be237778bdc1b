// Credit grants: issuing, listing, expiring, and applying them to what usage has accrued.
import type { Amount, Currency } from '../contract/money.ts';
import { isCurrency } from '../contract/money.ts';
import { formatInstant } from '../contract/window.ts';
import type { Db } from '../runtime/postgres.ts';
import { burn, giveBack, type GrantUse } from './burn.ts';
import { askToRead } from './customers.ts';
import { groupBy } from './group-by.ts';
import { move, type TransactionDraft } from './journal.ts';
import { postTransactions } from './journal-store.ts';

export interface Grant {
  readonly tenant: string;
  readonly id: string;
  readonly customer: string;
  readonly currency: Currency;
  readonly kind: 'promotional';
  readonly amount: Amount;
  readonly used: Amount;
  readonly expired: Amount;
  readonly remaining: Amount;
  /** The lower burns first. */
  readonly priority: number;
  readonly reason: string;
  readonly actor: string;
  readonly expiresAtMs: number | null;
  readonly createdAtMs: number;
}

interface GrantRow {
  tenant: string;
  id: string;
  customer: string;
  currency: string;
  kind: 'promotional';
  amount: string;
  used: string;
  expired: string;
  priority: number;
  reason: string;
  actor: string;
  expires_at: number | null;
  created_at: number;
}

function grantOf(row: GrantRow): Grant {
  if (!isCurrency(row.currency)) throw new Error(`grant ${row.id} has the currency ${row.currency}`);
  const [amount, used, expired] = [BigInt(row.amount), BigInt(row.used), BigInt(row.expired)];
  return {
    tenant: row.tenant,
    id: row.id,
    customer: row.customer,
    currency: row.currency,
    kind: row.kind,
    amount,
    used,
    expired,
    remaining: amount - used - expired,
    priority: row.priority,
    reason: row.reason,
    actor: row.actor,
    expiresAtMs: row.expires_at,
    createdAtMs: row.created_at,
  };
}

export interface GrantDraft {
  readonly tenant: string;
  readonly customer: string;
  /** Chosen by the caller; issuing the same id again with the same content changes nothing. */
  readonly id: string;
  /** Minor units of the customer's currency, positive. */
  readonly amount: Amount;
  readonly reason: string;
  readonly expiresAtMs: number | null;
  readonly priority: number;
  readonly actor: string;
  readonly nowMs: number;
}

/**
 * Gives a customer credit. It covers what has accrued already with the next posting pass.
 *
 * @throws IdempotencyKeyReused when the id stands for another grant.
 */
export async function issueGrant(tx: Db, draft: GrantDraft): Promise<Grant> {
  const { tenant, customer, id } = draft;
  if (draft.amount <= 0n) throw new Error('a grant is positive');
  const [owner] = await tx.query<{ currency: string }>(
    'SELECT currency FROM ledger.customers WHERE tenant = $1 AND id = $2',
    [tenant, customer],
  );
  if (owner === undefined || !isCurrency(owner.currency)) throw new Error(`there is no customer ${customer}`);
  const [earlier] = await tx.query<GrantRow>('SELECT * FROM ledger.grants WHERE tenant = $1 AND id = $2', [
    tenant,
    id,
  ]);
  const effectiveAtMs = earlier?.created_at ?? draft.nowMs;
  const transaction: TransactionDraft = {
    tenant,
    customer,
    currency: owner.currency,
    kind: 'grant_issue',
    idempotencyKey: `grant/${id}/issue`,
    effectiveAtMs,
    detail: {
      grant: id,
      reason: draft.reason,
      actor: draft.actor,
      priority: String(draft.priority),
      expiresAt: draft.expiresAtMs === null ? 'never' : formatInstant(draft.expiresAtMs),
    },
    postings: move('credit', 'credit_expense', draft.amount),
  };
  await postTransactions(tx, tenant, [transaction], draft.nowMs);
  await tx.query(
    `INSERT INTO ledger.grants (tenant, id, customer, currency, kind, amount, priority, reason, actor, expires_at, created_at)
     VALUES ($1, $2, $3, $4, 'promotional', $5, $6, $7, $8, $9, $10) ON CONFLICT (tenant, id) DO NOTHING`,
    [
      tenant,
      id,
      customer,
      owner.currency,
      draft.amount.toString(),
      draft.priority,
      draft.reason,
      draft.actor,
      draft.expiresAtMs === null ? null : formatInstant(draft.expiresAtMs),
      formatInstant(draft.nowMs),
    ],
  );
  // What accrued before the grant is covered by the next pass.
  await askToRead(tx, tenant, customer);
  const [row] = await tx.query<GrantRow>('SELECT * FROM ledger.grants WHERE tenant = $1 AND id = $2', [
    tenant,
    id,
  ]);
  return grantOf(row!);
}

/** In the order of issue. */
export async function listGrants(db: Db, tenant: string, customer: string): Promise<Grant[]> {
  const rows = await db.query<GrantRow>(
    'SELECT * FROM ledger.grants WHERE tenant = $1 AND customer = $2 ORDER BY created_at, id',
    [tenant, customer],
  );
  return rows.map(grantOf);
}

/** What credit has to do for one customer: cover a period's charges, or give back what it covered too much. */
interface CreditNeed {
  readonly customer: string;
  readonly currency: Currency;
  readonly periodStartMs: number;
  /** Charges not invoiced, less the credit applied to them and not invoiced: positive to burn, negative to give back. */
  readonly uncovered: Amount;
  /** Credit applied and not yet on an invoice: the most that can be given back. */
  readonly returnable: Amount;
}

interface NeedRow {
  customer: string;
  currency: string;
  period_start: number;
  accrued: string;
  applied: string;
}

/**
 * Burns or gives back credit for these customers, period by period, the oldest first, so that afterwards no
 * charge that is not invoiced yet is uncovered while credit remains. Posts one transaction a customer and period.
 */
export async function applyCredit(
  tx: Db,
  tenant: string,
  customers: readonly string[],
  nowMs: number,
): Promise<number> {
  const needs = await readNeeds(tx, tenant, customers);
  if (needs.length === 0) return 0;
  const grants = await readGrants(tx, tenant, needs);
  const uses = await readUses(tx, tenant, needs);
  const length = await chainLength(tx, tenant);
  const drafts: TransactionDraft[] = [];
  const applied: { need: CreditNeed; uses: GrantUse[]; total: Amount }[] = [];
  // What is given back first: it may cover another period's charges in the same turn.
  for (const need of [...needs].sort((a, b) => Number(a.uncovered > 0n) - Number(b.uncovered > 0n))) {
    const mine = grants.get(need.customer) ?? [];
    const earlier = uses.get(`${need.customer} ${need.periodStartMs}`) ?? [];
    const back = -need.uncovered < need.returnable ? -need.uncovered : need.returnable;
    const taken = need.uncovered > 0n ? burn(mine, need.uncovered, nowMs) : giveBack(earlier, back);
    const total = taken.reduce((sum, use) => sum + use.amount, 0n);
    if (total === 0n) continue;
    for (const use of taken) {
      const at = mine.findIndex((grant) => grant.id === use.grantId);
      mine[at] = {
        ...mine[at]!,
        used: mine[at]!.used + use.amount,
        remaining: mine[at]!.remaining - use.amount,
      };
    }
    applied.push({ need, uses: taken, total });
    drafts.push(burnTransaction(tenant, need, taken, total, length, nowMs));
  }
  const ids = await postTransactions(tx, tenant, drafts, nowMs);
  await recordUses(tx, tenant, applied, ids);
  return drafts.length;
}

async function readNeeds(tx: Db, tenant: string, customers: readonly string[]): Promise<CreditNeed[]> {
  const rows = await tx.query<NeedRow>(
    `SELECT c.id AS customer, c.currency, u.period_start, u.accrued::text AS accrued,
       (coalesce(a.amount, 0) - coalesce(a.invoiced_amount, 0))::text AS applied
     FROM (SELECT customer, period_start, sum(amount - invoiced_amount) AS accrued FROM ledger.usage_posted
       WHERE tenant = $1 AND customer = ANY($2::text[]) GROUP BY customer, period_start) u
     JOIN ledger.customers c ON c.tenant = $1 AND c.id = u.customer
     LEFT JOIN ledger.credit_applied a ON a.tenant = $1 AND a.customer = u.customer AND a.period_start = u.period_start
     WHERE u.accrued <> coalesce(a.amount, 0) - coalesce(a.invoiced_amount, 0)
     ORDER BY c.id, u.period_start`,
    [tenant, customers],
  );
  return rows.map((row) => {
    if (!isCurrency(row.currency))
      throw new Error(`customer ${row.customer} has the currency ${row.currency}`);
    const applied = BigInt(row.applied);
    return {
      customer: row.customer,
      currency: row.currency,
      periodStartMs: row.period_start,
      uncovered: BigInt(row.accrued) - applied,
      returnable: applied > 0n ? applied : 0n,
    };
  });
}

async function readGrants(
  tx: Db,
  tenant: string,
  needs: readonly CreditNeed[],
): Promise<Map<string, Grant[]>> {
  const rows = await tx.query<GrantRow>(
    'SELECT * FROM ledger.grants WHERE tenant = $1 AND customer = ANY($2::text[]) ORDER BY created_at, id',
    [tenant, [...new Set(needs.map((need) => need.customer))]],
  );
  const byCustomer = new Map<string, Grant[]>();
  for (const grant of rows.map(grantOf)) {
    const list = byCustomer.get(grant.customer);
    if (list === undefined) byCustomer.set(grant.customer, [grant]);
    else list.push(grant);
  }
  return byCustomer;
}

async function readUses(
  tx: Db,
  tenant: string,
  needs: readonly CreditNeed[],
): Promise<Map<string, GrantUse[]>> {
  const shrunk = needs.filter((need) => need.uncovered < 0n);
  if (shrunk.length === 0) return new Map();
  const rows = await tx.query<{ customer: string; period_start: number; grant_id: string; amount: string }>(
    `SELECT g.customer, u.period_start, u.grant_id, u.amount::text AS amount FROM ledger.grant_uses u
     JOIN ledger.grants g ON g.tenant = u.tenant AND g.id = u.grant_id
     WHERE u.tenant = $1 AND g.customer = ANY($2::text[]) ORDER BY u.transaction_id, u.grant_id`,
    [tenant, shrunk.map((need) => need.customer)],
  );
  const uses = new Map<string, GrantUse[]>();
  for (const row of rows) {
    const key = `${row.customer} ${row.period_start}`;
    uses.set(key, [...(uses.get(key) ?? []), { grantId: row.grant_id, amount: BigInt(row.amount) }]);
  }
  return uses;
}

/** Makes the key of a credit transaction one of its own: the chain has grown by at least one since the last. */
async function chainLength(tx: Db, tenant: string): Promise<bigint> {
  const [row] = await tx.query<{ last_id: bigint }>(
    'SELECT last_id FROM ledger.journal_heads WHERE tenant = $1',
    [tenant],
  );
  return row?.last_id ?? 0n;
}

function burnTransaction(
  tenant: string,
  need: CreditNeed,
  uses: readonly GrantUse[],
  total: Amount,
  chainLength: bigint,
  nowMs: number,
): TransactionDraft {
  return {
    tenant,
    customer: need.customer,
    currency: need.currency,
    kind: 'credit_burn',
    idempotencyKey: `credit/${need.customer}/${formatInstant(need.periodStartMs)}/${chainLength}`,
    effectiveAtMs: nowMs,
    detail: {
      periodStart: formatInstant(need.periodStartMs),
      grants: uses.map((use) => `${use.grantId}:${use.amount}`).join(' '),
    },
    postings: move('accrued_usage', 'credit', total),
  };
}

async function recordUses(
  tx: Db,
  tenant: string,
  applied: readonly { need: CreditNeed; uses: GrantUse[]; total: Amount }[],
  ids: readonly bigint[],
): Promise<void> {
  if (applied.length === 0) return;
  const flat = applied.flatMap(({ need, uses }, at) =>
    uses.map((use) => ({ ...use, need, id: ids[at]!.toString() })),
  );
  await tx.query(
    `INSERT INTO ledger.grant_uses (tenant, transaction_id, grant_id, period_start, amount)
     SELECT $1, * FROM unnest($2::bigint[], $3::text[], $4::timestamptz[], $5::numeric[])`,
    [
      tenant,
      flat.map((use) => use.id),
      flat.map((use) => use.grantId),
      flat.map((use) => formatInstant(use.need.periodStartMs)),
      flat.map((use) => use.amount.toString()),
    ],
  );
  await tx.query(
    `UPDATE ledger.grants g SET used = g.used + u.amount
     FROM (SELECT id, sum(amount) AS amount FROM unnest($2::text[], $3::numeric[]) AS u (id, amount) GROUP BY id) u
     WHERE g.tenant = $1 AND g.id = u.id`,
    [tenant, flat.map((use) => use.grantId), flat.map((use) => use.amount.toString())],
  );
  await tx.query(
    `INSERT INTO ledger.credit_applied AS a (tenant, customer, period_start, amount)
     SELECT $1, * FROM unnest($2::text[], $3::timestamptz[], $4::numeric[])
     ON CONFLICT (tenant, customer, period_start) DO UPDATE SET amount = a.amount + excluded.amount`,
    [
      tenant,
      applied.map(({ need }) => need.customer),
      applied.map(({ need }) => formatInstant(need.periodStartMs)),
      applied.map(({ total }) => total.toString()),
    ],
  );
}

/** Books the unused part of expired grants back; returns how many. */
export async function expireGrants(tx: Db, nowMs: number): Promise<number> {
  const rows = await tx.query<GrantRow>(
    `SELECT * FROM ledger.grants WHERE expires_at <= $1 AND used + expired < amount ORDER BY tenant, id LIMIT 1000`,
    [formatInstant(nowMs)],
  );
  const byTenant = groupBy(rows.map(grantOf), (grant) => grant.tenant);
  for (const [tenant, grants] of byTenant) {
    const drafts = grants.map((grant): TransactionDraft => ({
      tenant,
      customer: grant.customer,
      currency: grant.currency,
      kind: 'grant_expiry',
      // Credit that is given back after an expiry expires in its turn, under a key of its own.
      idempotencyKey: `grant/${grant.id}/expiry/${grant.expired}`,
      effectiveAtMs: grant.expiresAtMs ?? nowMs,
      detail: { grant: grant.id },
      postings: move('credit_expense', 'credit', grant.remaining),
    }));
    await postTransactions(tx, tenant, drafts, nowMs);
    await tx.query(
      `UPDATE ledger.grants SET expired = amount - used WHERE tenant = $1 AND id = ANY($2::text[])`,
      [tenant, grants.map((grant) => grant.id)],
    );
  }
  return rows.length;
}
