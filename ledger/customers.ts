// Customers: who pays, in which currency, under which plan, for which subjects' usage.
import { isCurrency, type Currency } from '../contract/money.ts';
import { formatInstant } from '../contract/window.ts';
import type { Db } from '../runtime/postgres.ts';

export interface Customer {
  readonly tenant: string;
  readonly id: string;
  readonly name: string;
  readonly currency: Currency;
  /** Sorted. */
  readonly subjects: readonly string[];
  readonly planKey: string;
  readonly planVersion: number;
  /** Monthly periods are this instant plus n months. */
  readonly anchorMs: number;
  readonly createdAtMs: number;
}

interface CustomerRow {
  tenant: string;
  id: string;
  name: string;
  currency: string;
  subjects: string[];
  plan_key: string;
  plan_version: number;
  anchor: number;
  created_at: number;
}

const SELECT = `
  SELECT c.tenant, c.id, c.name, c.currency, c.plan_key, c.plan_version, c.anchor, c.created_at,
    coalesce((SELECT array_agg(s.subject ORDER BY s.subject) FROM ledger.customer_subjects s
      WHERE s.tenant = c.tenant AND s.customer = c.id), '{}') AS subjects
  FROM ledger.customers c`;

function customerOf(row: CustomerRow): Customer {
  if (!isCurrency(row.currency)) throw new Error(`customer ${row.id} has the currency ${row.currency}`);
  return {
    tenant: row.tenant,
    id: row.id,
    name: row.name,
    currency: row.currency,
    subjects: row.subjects,
    planKey: row.plan_key,
    planVersion: row.plan_version,
    anchorMs: row.anchor,
    createdAtMs: row.created_at,
  };
}

/** What a customer is put with. Currency, plan and anchor are fixed once usage is posted. */
export interface CustomerDraft {
  readonly tenant: string;
  readonly id: string;
  readonly name: string;
  readonly currency: Currency;
  readonly subjects: readonly string[];
  readonly planKey: string;
  readonly planVersion?: number;
  readonly anchorMs: number;
  readonly nowMs: number;
}

/** A customer that cannot be put as asked; the message says what to change. */
export class CustomerRefused extends Error {
  override readonly name = 'CustomerRefused';
  readonly code: 'plan_unknown' | 'plan_currency' | 'subject_taken' | 'terms_fixed' | 'subject_billed';

  constructor(code: CustomerRefused['code'], message: string) {
    super(message);
    this.code = code;
  }
}

/**
 * Creates the customer or changes it to what is asked; the same again changes nothing. Its usage is read anew
 * from the anchor on, so that events from before the customer was known are billed too.
 */
export async function putCustomer(tx: Db, draft: CustomerDraft): Promise<Customer> {
  const { tenant, id } = draft;
  const before = await readCustomer(tx, tenant, id);
  const [plan] = await tx.query<{ version: number; currency: string }>(
    `SELECT version, definition->>'currency' AS currency FROM ledger.plans
     WHERE tenant = $1 AND key = $2 AND ($3::integer IS NULL OR version = $3) ORDER BY version DESC LIMIT 1`,
    [
      tenant,
      draft.planKey,
      draft.planVersion ?? (before?.planKey === draft.planKey ? before.planVersion : null),
    ],
  );
  if (plan === undefined) {
    throw new CustomerRefused(
      'plan_unknown',
      `There is no plan ${JSON.stringify(draft.planKey)} of that version: publish it first.`,
    );
  }
  if (plan.currency !== draft.currency) {
    throw new CustomerRefused(
      'plan_currency',
      `The plan is in ${plan.currency}, the customer in ${draft.currency}: they must be the same.`,
    );
  }
  if (before !== null) await checkFixedTerms(tx, before, { ...draft, planVersion: plan.version });
  await tx.query(
    `INSERT INTO ledger.customers (tenant, id, name, currency, plan_key, plan_version, anchor, created_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
     ON CONFLICT (tenant, id) DO UPDATE SET name = excluded.name, currency = excluded.currency,
       plan_key = excluded.plan_key, plan_version = excluded.plan_version, anchor = excluded.anchor`,
    [
      tenant,
      id,
      draft.name,
      draft.currency,
      draft.planKey,
      plan.version,
      formatInstant(draft.anchorMs),
      formatInstant(draft.nowMs),
    ],
  );
  await putSubjects(tx, tenant, id, draft.subjects);
  await askToRead(tx, tenant, id);
  const after = await readCustomer(tx, tenant, id);
  if (after === null) throw new Error(`customer ${id} was put and is not there`);
  return after;
}

/** Asks the next posting pass to read all of a customer's usage and to apply its credit. */
export async function askToRead(tx: Db, tenant: string, customer: string): Promise<void> {
  await tx.query(
    `INSERT INTO ledger.customers_to_read AS r (tenant, customer) VALUES ($1, $2)
     ON CONFLICT (tenant, customer) DO UPDATE SET revision = r.revision + 1`,
    [tenant, customer],
  );
}

async function checkFixedTerms(tx: Db, before: Customer, draft: CustomerDraft): Promise<void> {
  const same =
    before.currency === draft.currency &&
    before.planKey === draft.planKey &&
    before.planVersion === draft.planVersion &&
    before.anchorMs === draft.anchorMs;
  const lost = before.subjects.filter((subject) => !draft.subjects.includes(subject));
  if (same && lost.length === 0) return;
  const posted = await tx.query(
    `SELECT 1 FROM ledger.usage_posted WHERE tenant = $1 AND customer = $2 LIMIT 1`,
    [before.tenant, before.id],
  );
  if (posted.length === 0) return;
  if (!same) {
    throw new CustomerRefused(
      'terms_fixed',
      `Usage of ${before.id} is already posted in ${before.currency} under ${before.planKey} version ${before.planVersion}, counted from ${formatInstant(before.anchorMs)}: currency, plan and anchor can no longer change.`,
    );
  }
  throw new CustomerRefused(
    'subject_billed',
    `Usage of ${before.id} is already posted: the subject ${JSON.stringify(lost[0])} cannot be taken away.`,
  );
}

async function putSubjects(
  tx: Db,
  tenant: string,
  customer: string,
  subjects: readonly string[],
): Promise<void> {
  await tx.query(
    'DELETE FROM ledger.customer_subjects WHERE tenant = $1 AND customer = $2 AND NOT subject = ANY($3::text[])',
    [tenant, customer, subjects],
  );
  await tx.query(
    `INSERT INTO ledger.customer_subjects (tenant, subject, customer)
     SELECT $1, subject, $2 FROM unnest($3::text[]) AS u (subject) ON CONFLICT (tenant, subject) DO NOTHING`,
    [tenant, customer, [...new Set(subjects)]],
  );
  const [taken] = await tx.query<{ subject: string; customer: string }>(
    `SELECT subject, customer FROM ledger.customer_subjects
     WHERE tenant = $1 AND subject = ANY($2::text[]) AND customer <> $3 ORDER BY subject LIMIT 1`,
    [tenant, subjects, customer],
  );
  if (taken !== undefined) {
    throw new CustomerRefused(
      'subject_taken',
      `The subject ${JSON.stringify(taken.subject)} belongs to customer ${taken.customer}: a subject is billed to one customer.`,
    );
  }
}

export async function readCustomer(db: Db, tenant: string, id: string): Promise<Customer | null> {
  const [row] = await db.query<CustomerRow>(`${SELECT} WHERE c.tenant = $1 AND c.id = $2`, [tenant, id]);
  return row === undefined ? null : customerOf(row);
}

/** By id, after an id. */
export async function listCustomers(
  db: Db,
  tenant: string,
  o: { afterId: string | null; limit: number },
): Promise<Customer[]> {
  const rows = await db.query<CustomerRow>(
    `${SELECT} WHERE c.tenant = $1 AND ($2::text IS NULL OR c.id > $2) ORDER BY c.id LIMIT $3`,
    [tenant, o.afterId, o.limit],
  );
  return rows.map(customerOf);
}

/** The customers with these ids that there are. */
export async function customersByIds(db: Db, tenant: string, ids: readonly string[]): Promise<Customer[]> {
  const rows = await db.query<CustomerRow>(
    `${SELECT} WHERE c.tenant = $1 AND c.id = ANY($2::text[]) ORDER BY c.id`,
    [tenant, ids],
  );
  return rows.map(customerOf);
}

/** The customers of these subjects; subjects nobody has are not in the answer. */
export async function customersOfSubjects(
  db: Db,
  tenant: string,
  subjects: readonly string[],
): Promise<Customer[]> {
  const rows = await db.query<CustomerRow>(
    `${SELECT} WHERE c.tenant = $1 AND c.id IN
       (SELECT customer FROM ledger.customer_subjects WHERE tenant = $1 AND subject = ANY($2::text[])) ORDER BY c.id`,
    [tenant, subjects],
  );
  return rows.map(customerOf);
}
