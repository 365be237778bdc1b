/**
 * Whose changes a posting pass asks ClickHouse for. Where few subjects have a customer, their names go along with the
 * question: of 100,000 changed subjects of which 1,000 are billed, finding these took 30 ms of processor time instead
 * of 110, and 500 rows came back instead of 49,000.
 */
import type { Db } from '../runtime/postgres.ts';
import { batchesOf } from './usage-batches.ts';

/** Each question reads what changed once more, so that beyond some of them it costs less to ask for everything. */
const QUESTIONS_MAX = 4;
const SUBJECTS_MAX = 8_000;

const SUBJECTS = `
  SELECT DISTINCT subject FROM ledger.customer_subjects LIMIT ${SUBJECTS_MAX + 1}`;

// Plans first: there are few of them, and looking into each customer's took a hundred times as long.
const SUBJECTS_OF_UNIQUES = `
  WITH unique_plans AS MATERIALIZED (
    SELECT p.tenant, p.key, p.version FROM ledger.plans p
    WHERE EXISTS (
      SELECT 1 FROM jsonb_array_elements(p.definition->'prices') AS price
      JOIN ledger.meters m ON m.tenant = p.tenant AND m.key = price->>'meter'
      WHERE m.definition->>'aggregation' = 'unique_count'))
  SELECT DISTINCT s.subject FROM unique_plans p
  JOIN ledger.customers c ON c.tenant = p.tenant AND c.plan_key = p.key AND c.plan_version = p.version
  JOIN ledger.customer_subjects s ON s.tenant = c.tenant AND s.customer = c.id
  LIMIT ${SUBJECTS_MAX + 1}`;

/**
 * Lists of subjects, each for one question, that together hold everyone who is billed (for a unique count). `null`
 * stands for all subjects there are. No list: nobody is billed, and nothing has to be asked.
 */
export async function billedSubjects(
  db: Db,
  part: 'totals' | 'uniques',
): Promise<readonly (readonly string[] | null)[]> {
  const rows = await db.query<{ subject: string }>(part === 'totals' ? SUBJECTS : SUBJECTS_OF_UNIQUES);
  const batches = batchesOf(rows, (row) => row.subject);
  if (rows.length > SUBJECTS_MAX || batches.length > QUESTIONS_MAX) return [null];
  return batches.map((batch) => batch.map((row) => row.subject));
}
