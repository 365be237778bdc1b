// Writes and reads the journal. A batch of any number of customers is four statements.
import type { Db } from '../runtime/postgres.ts';
import { isCurrency } from '../contract/money.ts';
import { formatInstant } from '../contract/window.ts';
import {
  assertBalanced,
  chainHash,
  contentOf,
  GENESIS,
  inputHashOf,
  type Account,
  type Detail,
  type LedgerTransaction,
  type TransactionDraft,
  type TransactionKind,
} from './journal.ts';

/** The same idempotency key came with other content. */
export class IdempotencyKeyReused extends Error {
  override readonly name = 'IdempotencyKeyReused';
  readonly code = 'idempotency_key_reused';
}

/**
 * Posts transactions of one tenant, in order, in the caller's database transaction. One that is posted already
 * under its idempotency key is left out; the answer has the ids of all, in the order of the drafts.
 *
 * @throws IdempotencyKeyReused when a key stands for other content.
 */
export async function postTransactions(
  tx: Db,
  tenant: string,
  drafts: readonly TransactionDraft[],
  nowMs: number,
): Promise<bigint[]> {
  if (drafts.length === 0) return [];
  for (const draft of drafts) {
    if (draft.tenant !== tenant) throw new Error('a transaction of another tenant');
    assertBalanced(draft);
  }
  const contents = drafts.map(contentOf);
  const inputHashes = drafts.map((draft, at) => inputHashOf(draft, contents[at]));
  // 1. The head of the chain is locked: transactions of a tenant take turns.
  const head = await lockHead(tx, tenant);
  // 2. What is known already.
  const known = await findKnown(tx, tenant, drafts, inputHashes);
  // 3. Chain the new ones.
  let { id, hash } = head;
  const ids: bigint[] = [];
  const fresh: LedgerTransaction[] = [];
  drafts.forEach((draft, at) => {
    const earlier = known.get(draft.idempotencyKey);
    if (earlier !== undefined) {
      ids.push(earlier);
      return;
    }
    id += 1n;
    const previousHash = hash;
    hash = chainHash(previousHash, { ...draft, id, postedAtMs: nowMs }, contents[at]);
    fresh.push({ ...draft, id, inputHash: inputHashes[at]!, postedAtMs: nowMs, previousHash, hash });
    known.set(draft.idempotencyKey, id);
    ids.push(id);
  });
  if (fresh.length === 0) return ids;
  // 4. Write them. The balances follow by trigger, the sum of zero is checked at commit.
  await insertTransactions(tx, fresh);
  await tx.query('UPDATE ledger.journal_heads SET last_id = $2, last_hash = $3 WHERE tenant = $1', [
    tenant,
    id,
    hash,
  ]);
  return ids;
}

interface HeadRow {
  tenant: string;
  last_id: bigint;
  last_hash: Uint8Array;
}

/**
 * Locks the heads of some tenants' chains until the transaction ends; their other writers wait. As the first
 * statement of a transaction (or after LOCK TABLE) it takes the snapshot too: then no other writer can make a
 * long transaction fail at its end.
 */
export async function lockHeads(tx: Db, tenants: readonly string[]): Promise<Map<string, HeadRow>> {
  const lock = () =>
    tx.query<HeadRow>(
      `SELECT tenant, last_id, last_hash FROM ledger.journal_heads WHERE tenant = ANY($1::text[])
       ORDER BY tenant FOR UPDATE`,
      [tenants],
    );
  let heads = await lock();
  if (heads.length < new Set(tenants).size) {
    await tx.query(
      `INSERT INTO ledger.journal_heads (tenant, last_id, last_hash)
       SELECT DISTINCT tenant, 0, $2::bytea FROM unnest($1::text[]) AS u (tenant) ORDER BY tenant
       ON CONFLICT DO NOTHING`,
      [tenants, Buffer.from(GENESIS)],
    );
    heads = await lock();
  }
  return new Map(heads.map((head) => [head.tenant, head]));
}

async function lockHead(tx: Db, tenant: string): Promise<{ id: bigint; hash: Uint8Array }> {
  const head = (await lockHeads(tx, [tenant])).get(tenant);
  if (head === undefined) throw new Error(`the journal of ${tenant} has no head`);
  return { id: head.last_id, hash: head.last_hash };
}

async function findKnown(
  tx: Db,
  tenant: string,
  drafts: readonly TransactionDraft[],
  inputHashes: readonly string[],
): Promise<Map<string, bigint>> {
  const rows = await tx.query<{ id: bigint; idempotency_key: string; input_hash: string }>(
    'SELECT id, idempotency_key, input_hash FROM ledger.transactions WHERE tenant = $1 AND idempotency_key = ANY($2::text[])',
    [tenant, drafts.map((draft) => draft.idempotencyKey)],
  );
  const stored = new Map(rows.map((row) => [row.idempotency_key, row]));
  drafts.forEach((draft, at) => {
    const earlier = stored.get(draft.idempotencyKey);
    if (earlier !== undefined && earlier.input_hash !== inputHashes[at]) {
      throw new IdempotencyKeyReused(
        `idempotency key ${draft.idempotencyKey} stands for another transaction (${earlier.id})`,
      );
    }
  });
  return new Map(rows.map((row) => [row.idempotency_key, row.id]));
}

async function insertTransactions(tx: Db, fresh: readonly LedgerTransaction[]): Promise<void> {
  const column = <T>(read: (one: LedgerTransaction) => T): T[] => fresh.map(read);
  await tx.query(
    `INSERT INTO ledger.transactions (tenant, id, customer, currency, kind, idempotency_key, input_hash,
       effective_at, posted_at, detail, previous_hash, hash)
     SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
       $8::timestamptz[], $9::timestamptz[], $10::jsonb[], $11::bytea[], $12::bytea[])`,
    [
      column((one) => one.tenant),
      column((one) => one.id.toString()),
      column((one) => one.customer),
      column((one) => one.currency),
      column((one) => one.kind),
      column((one) => one.idempotencyKey),
      column((one) => one.inputHash),
      column((one) => formatInstant(one.effectiveAtMs)),
      column((one) => formatInstant(one.postedAtMs)),
      column((one) => JSON.stringify(one.detail)),
      column((one) => Buffer.from(one.previousHash)),
      column((one) => Buffer.from(one.hash)),
    ],
  );
  const postings = fresh.flatMap((one) =>
    one.postings.map((posting, ordinal) => ({
      tenant: one.tenant,
      id: one.id.toString(),
      ordinal,
      ...posting,
    })),
  );
  await tx.query(
    `INSERT INTO ledger.postings (tenant, transaction_id, ordinal, account, amount)
     SELECT * FROM unnest($1::text[], $2::bigint[], $3::smallint[], $4::text[], $5::numeric[])`,
    [
      postings.map((one) => one.tenant),
      postings.map((one) => one.id),
      postings.map((one) => one.ordinal),
      postings.map((one) => one.account),
      postings.map((one) => one.amount.toString()),
    ],
  );
}

interface TransactionRow {
  tenant: string;
  id: bigint;
  customer: string;
  currency: string;
  kind: TransactionKind;
  idempotency_key: string;
  input_hash: string;
  effective_at: number;
  posted_at: number;
  detail: Detail;
  previous_hash: Uint8Array;
  hash: Uint8Array;
  postings: { account: Account; amount: string }[];
}

function transactionOf(row: TransactionRow): LedgerTransaction {
  if (!isCurrency(row.currency)) throw new Error(`transaction ${row.id} has the currency ${row.currency}`);
  return {
    tenant: row.tenant,
    id: row.id,
    customer: row.customer,
    currency: row.currency,
    kind: row.kind,
    idempotencyKey: row.idempotency_key,
    inputHash: row.input_hash,
    effectiveAtMs: row.effective_at,
    postedAtMs: row.posted_at,
    detail: row.detail,
    previousHash: row.previous_hash,
    hash: row.hash,
    postings: row.postings.map(({ account, amount }) => ({ account, amount: BigInt(amount) })),
  };
}

const SELECT = `
  SELECT t.*, (SELECT json_agg(json_build_object('account', p.account, 'amount', p.amount::text) ORDER BY p.ordinal)
    FROM ledger.postings p WHERE p.tenant = t.tenant AND p.transaction_id = t.id) AS postings
  FROM ledger.transactions t`;

/** A customer's transactions, newest first, before an id. */
export async function listTransactions(
  db: Db,
  o: { tenant: string; customer: string; before: bigint | null; limit: number },
): Promise<LedgerTransaction[]> {
  const rows = await db.query<TransactionRow>(
    `${SELECT} WHERE t.tenant = $1 AND t.customer = $2 AND ($3::bigint IS NULL OR t.id < $3) ORDER BY t.id DESC LIMIT $4`,
    [o.tenant, o.customer, o.before, o.limit],
  );
  return rows.map(transactionOf);
}

/** A tenant's transactions in the order of the chain, after an id. */
export async function readChain(
  db: Db,
  tenant: string,
  after: bigint,
  limit: number,
): Promise<LedgerTransaction[]> {
  const rows = await db.query<TransactionRow>(
    `${SELECT} WHERE t.tenant = $1 AND t.id > $2 ORDER BY t.id LIMIT $3`,
    [tenant, after, limit],
  );
  return rows.map((row) => transactionOf({ ...row, postings: row.postings ?? [] }));
}
