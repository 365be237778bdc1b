/**
 * Verifies what the ledger keeps, without trusting the code or the triggers that wrote it.
 *
 * 1. The chain of every tenant: ids 1, 2, 3 … without a gap, each transaction naming the hash before it, each
 *    hash (and each input hash) computed anew from what the rows say, and the head equal to the last link. A row
 *    that was changed, inserted, removed or put elsewhere by hand shows here, at its id.
 * 2. Every file of `checks/`: each must return no row, and says at its top when it fires.
 *
 * Everything is read from one snapshot, so that postings of the moment are no findings. The chain is read in
 * pages, so that memory does not grow with the journal.
 */
import { readdir, readFile } from 'node:fs/promises';
import type { Db, Postgres } from '../runtime/postgres.ts';
import { readChain } from './journal-store.ts';
import { chainHash, GENESIS, inputHashOf, type LedgerTransaction } from './journal.ts';

export interface Finding {
  /** 'chain', or the name of the check: "0001-zero-sum". */
  readonly check: string;
  readonly tenant: string;
  /** For people: what is wrong and where. */
  readonly detail: string;
}

export interface Verification {
  readonly tenants: number;
  /** Transactions whose hash was computed anew. */
  readonly transactions: bigint;
  readonly checks: readonly string[];
  /** Empty when all is well; at most `findingsMax` a check. */
  readonly findings: readonly Finding[];
}

export interface VerifyOptions {
  readonly pageTransactions: number;
  readonly findingsMax: number;
}

export const VERIFY_DEFAULTS: VerifyOptions = { pageTransactions: 1_000, findingsMax: 100 };

export function verifyLedger(pg: Postgres, o: VerifyOptions = VERIFY_DEFAULTS): Promise<Verification> {
  return pg.transaction(
    async (tx) => {
      const tenants = await tx.query<{ tenant: string }>('SELECT tenant FROM ledger.tenants ORDER BY tenant');
      const findings: Finding[] = [];
      let transactions = 0n;
      for (const { tenant } of tenants) {
        const chain = await verifyChain(tx, tenant, o);
        transactions += chain.transactions;
        findings.push(...chain.findings);
      }
      const checks = await readChecks();
      for (const check of checks) findings.push(...(await runCheck(tx, check, o.findingsMax)));
      return { tenants: tenants.length, transactions, checks: checks.map(({ name }) => name), findings };
    },
    // Serializable and read-only: one snapshot for everything, whatever is posted meanwhile.
    { readOnly: true },
  );
}

async function verifyChain(
  tx: Db,
  tenant: string,
  o: VerifyOptions,
): Promise<{ transactions: bigint; findings: Finding[] }> {
  const findings: Finding[] = [];
  let transactions = 0n;
  let link: ChainLink = { id: 0n, hash: GENESIS };
  for (;;) {
    const page = await readChain(tx, tenant, link.id, o.pageTransactions);
    for (const transaction of page) {
      const faults = linkFaults(link, transaction);
      if (findings.length < o.findingsMax) {
        findings.push(...faults.map((detail) => ({ check: 'chain', tenant, detail })));
      }
      // What the row claims is the link that the next one is held against: one changed row is one finding.
      link = { id: transaction.id, hash: transaction.hash };
      transactions += 1n;
    }
    if (page.length < o.pageTransactions) break;
  }
  const [head] = await tx.query<{ last_id: bigint; last_hash: Uint8Array }>(
    'SELECT last_id, last_hash FROM ledger.journal_heads WHERE tenant = $1',
    [tenant],
  );
  if ((head?.last_id ?? 0n) !== link.id || !sameBytes(head?.last_hash ?? GENESIS, link.hash)) {
    const detail = `the head stands at ${head?.last_id ?? 0n}, the chain ends at ${link.id}: its last transactions are gone or were replaced`;
    findings.push({ check: 'chain', tenant, detail });
  }
  return { transactions, findings };
}

interface ChainLink {
  readonly id: bigint;
  readonly hash: Uint8Array;
}

/** What is wrong with a transaction as the successor of a link; empty when it is sound. */
export function linkFaults(before: ChainLink, transaction: LedgerTransaction): string[] {
  const faults: string[] = [];
  const { id } = transaction;
  if (id !== before.id + 1n) faults.push(`transaction ${id} follows ${before.id}: something between is gone`);
  if (!sameBytes(transaction.previousHash, before.hash))
    faults.push(`transaction ${id} does not name the hash of ${before.id}`);
  if (!sameBytes(chainHash(transaction.previousHash, transaction), transaction.hash))
    faults.push(`transaction ${id} is not what was hashed when it was posted`);
  if (inputHashOf(transaction) !== transaction.inputHash)
    faults.push(`transaction ${id} has an input hash that is not its own`);
  return faults;
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, at) => byte === b[at]);
}

export interface Check {
  /** The file's name without ".sql". */
  readonly name: string;
  readonly sql: string;
}

/** The checks of `checks/`, by name. */
export async function readChecks(): Promise<Check[]> {
  const directory = new URL('./checks/', import.meta.url);
  const names = (await readdir(directory)).filter((name) => name.endsWith('.sql')).sort();
  return Promise.all(
    names.map(async (name) => ({
      name: name.slice(0, -'.sql'.length),
      sql: await readFile(new URL(name, directory), 'utf8'),
    })),
  );
}

/** Runs one check; each row that it returns is a finding, told as its columns. */
export async function runCheck(db: Db, check: Check, findingsMax: number): Promise<Finding[]> {
  const query = check.sql.trim().replace(/;$/, '');
  const rows = await db.query<Record<string, unknown>>(`SELECT * FROM (\n${query}\n) AS found LIMIT $1`, [
    findingsMax,
  ]);
  return rows.map((row) => ({
    check: check.name,
    tenant: String(row['tenant']),
    detail: Object.entries(row)
      .filter(([column]) => column !== 'tenant')
      .map(([column, value]) => `${column} ${String(value)}`)
      .join(', '),
  }));
}
