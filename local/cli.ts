#!/usr/bin/env node
// `npx tallyline verify`: is what we keep still what we promised? The hash chain of the journal, and every
// invariant that SQL can say, in Postgres and in ClickHouse. Exits 1 on a finding, 2 when it could not look.
import { readFile } from 'node:fs/promises';
import { CHECKS, checkFile } from '../aggregator/checks.ts';
import { verifyLedger, type Finding } from '../ledger/verify.ts';
import { connectClickHouse } from '../runtime/clickhouse.ts';
import { createLog } from '../runtime/log.ts';
import { connectPostgres } from '../runtime/postgres.ts';
import { layoutOf } from './layout.ts';
import { readRunFile } from './run-file.ts';

const checkTimeoutMs = 600_000;
const findingsShownMax = 20;

const usage = `usage: npx tallyline verify

Verifies the ledger (hash chain, checks) and the rollups of the running local stack, or of the engines that
DATABASE_URL and CLICKHOUSE_URL name. Exits 0 when all is well, 1 on a finding.
`;

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

const [command, ...rest] = process.argv.slice(2);
if (command !== 'verify' || rest.length > 0) {
  process.stderr.write(usage);
  process.exitCode = command === '--help' ? 0 : 2;
} else {
  verify().then(
    (code) => (process.exitCode = code),
    (error: unknown) => {
      process.stderr.write(
        `tallyline verify could not look: ${error instanceof Error ? error.message : String(error)}\n`,
      );
      process.exitCode = 2;
    },
  );
}
