#!/usr/bin/env node
// The commands of the operator.
//
// `npx tallyline verify`: is what we keep still what we promised? The hash chain of the journal, and every
// invariant that SQL can say, in Postgres and in ClickHouse. Exits 1 on a finding, 2 when it could not look.
//
// `npx tallyline quota`: what a tenant may send; see quota.ts.
//
// `npx tallyline refused`: events that do not count, listed, exported and sent again; see refused.ts.
//
// `npx tallyline backfill`: hours of a meter counted by another of its versions; see backfill.ts.
//
// `npx tallyline replay`: historic events from files through the edge; see replay.ts.
//
// `npx tallyline log replace`: another log in place of one that does not deliver; see log.ts.
import { readFile } from 'node:fs/promises';
import { CHECKS, checkFile } from '../aggregator/checks.ts';
import { verifyLedger, type Finding } from '../ledger/verify.ts';
import { connectClickHouse } from '../runtime/clickhouse.ts';
import { createLog } from '../runtime/log.ts';
import { connectPostgres } from '../runtime/postgres.ts';
import { backfillCommand, backfillUsage } from './backfill.ts';
import { layoutOf } from './layout.ts';
import { logCommand, logUsage } from './log.ts';
import { quotaCommand, quotaUsage } from './quota.ts';
import { refusedCommand, refusedUsage } from './refused.ts';
import { replayCommand, replayUsage } from './replay.ts';
import { readRunFile } from './run-file.ts';

const checkTimeoutMs = 600_000;
const findingsShownMax = 20;

const usage = `usage: npx tallyline verify

Verifies the ledger (hash chain, checks) and the rollups of the running local stack, or of the engines that
DATABASE_URL and CLICKHOUSE_URL name. Exits 0 when all is well, 1 on a finding.

${quotaUsage}
${refusedUsage}
${backfillUsage}
${replayUsage}
${logUsage}`;

async function verifyClickHouse(url: string): Promise<Finding[]> {
  const ch = connectClickHouse({ url, name: 'tallyline verify', requestTimeoutMs: checkTimeoutMs });
  try {
    const findings: Finding[] = [];
    for (const check of CHECKS) {
      const sql = await readFile(checkFile(check), 'utf8');
      const rows = await ch.rows<Record<string, unknown>>(sql.trim().replace(/;$/, ''));
      for (const row of rows) {
        findings.push({ check, tenant: String(row['tenant'] ?? ''), detail: JSON.stringify(row) });
      }
    }
    return findings;
  } finally {
    await ch.close();
  }
}

async function verify(): Promise<number> {
  const run = readRunFile(layoutOf(process.env));
  const database = process.env['DATABASE_URL'] || run?.engines.database;
  const clickhouse = process.env['CLICKHOUSE_URL'] || run?.engines.clickhouse;
  if (database === undefined || clickhouse === undefined) {
    process.stderr.write(
      'No stack runs here: start it with npm start, or set DATABASE_URL and CLICKHOUSE_URL.\n',
    );
    return 2;
  }
  const log = createLog('verify', 'silent');
  const pg = connectPostgres({
    url: database,
    name: 'tallyline verify',
    poolMax: 1,
    log,
    statementTimeoutMs: checkTimeoutMs,
  });
  try {
    const ledger = await verifyLedger(pg);
    const findings = [...ledger.findings, ...(await verifyClickHouse(clickhouse))];
    const checks = ledger.checks.length + CHECKS.length;
    process.stdout.write(
      `verified ${ledger.transactions} transactions of ${ledger.tenants} tenants in their chains, and ${checks} checks: ${findings.length === 0 ? 'no finding' : `${findings.length} findings`}\n`,
    );
    for (const { check, tenant, detail } of findings.slice(0, findingsShownMax)) {
      process.stdout.write(`  ${check}  ${tenant}  ${detail}\n`);
    }
    return findings.length === 0 ? 0 : 1;
  } finally {
    await pg.close();
  }
}

/** Null: there is no such command. */
function commandOf([name, ...rest]: readonly string[]): Promise<number> | null {
  if (name === 'verify' && rest.length === 0) return verify();
  if (name === 'quota') return quotaCommand(rest);
  if (name === 'refused') return refusedCommand(rest);
  if (name === 'backfill') return backfillCommand(rest);
  if (name === 'replay') return replayCommand(rest);
  if (name === 'log') return logCommand(rest);
  return null;
}

const args = process.argv.slice(2);
const running = commandOf(args);
if (running === null) {
  process.stderr.write(usage);
  process.exitCode = args[0] === '--help' ? 0 : 2;
} else {
  running.then(
    (code) => (process.exitCode = code),
    (error: unknown) => {
      process.stderr.write(
        `tallyline ${args[0]} could not be done: ${error instanceof Error ? error.message : String(error)}\n`,
      );
      process.exitCode = 2;
    },
  );
}
