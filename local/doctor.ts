// `npm run doctor`: what this machine has and lacks for a local stack, each finding with what to do. Exits 1
// when something would keep `npm start` from working.
import { accessSync, constants, existsSync, mkdirSync, statfsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { findNatsServer } from './engines/nats.ts';
import { postgresPackage } from './engines/postgres.ts';
import { findOnPath } from './engines/process.ts';
import { layoutOf } from './layout.ts';
import { readRunFile } from './run-file.ts';

interface Finding {
  readonly good: boolean;
  readonly what: string;
  readonly detail: string;
}

const layout = layoutOf(process.env);
const require = createRequire(import.meta.url);

function checkNode(): Finding {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const good = (major === 20 && minor >= 15) || (major > 20 && major < 24);
  return {
    good,
    what: 'Node',
    detail: good ? process.version : `${process.version}: use Node 20.15 or later, or Node 22`,
  };
}

async function checkNats(): Promise<Finding> {
  if (process.env['NATS_URL']) return { good: true, what: 'NATS', detail: 'yours, from NATS_URL' };
  try {
    return { good: true, what: 'NATS', detail: await findNatsServer(layout.cache, () => undefined) };
  } catch (error) {
    return { good: false, what: 'NATS', detail: (error as Error).message };
  }
}

function checkPackage(what: string, name: string, variable: string): Finding {
  if (process.env[variable]) return { good: true, what, detail: `yours, from ${variable}` };
  try {
    require.resolve(name);
    return { good: true, what, detail: `package ${name}` };
  } catch {
    return { good: false, what, detail: `package ${name} is missing: run npm ci, or set ${variable}` };
  }
}

function checkRoot(): Finding {
  const isRoot = process.getuid?.() === 0;
  if (!isRoot || process.env['DATABASE_URL'])
    return { good: true, what: 'user', detail: isRoot ? 'root' : 'an ordinary user' };
  const unshare = findOnPath('unshare');
  return {
    good: unshare !== null,
    what: 'user',
    detail:
      unshare === null
        ? 'root, and there is no unshare (package util-linux) to run Postgres as nobody: start as an ordinary user'
        : 'root; Postgres runs as nobody in a user namespace',
  };
}

function checkData(): Finding {
  try {
    mkdirSync(layout.root, { recursive: true });
    accessSync(layout.root, constants.W_OK);
  } catch {
    return {
      good: false,
      what: 'data',
      detail: `${layout.root} cannot be written: set TALLYLINE_DATA to a folder of yours`,
    };
  }
  const disk = statfsSync(layout.root);
  const mebibytes = Math.floor((disk.bavail * disk.bsize) / 1024 ** 2);
  const state = existsSync(layout.secretsFile) ? 'holds data of an earlier start' : 'empty';
  return {
    good: mebibytes >= 512,
    what: 'data',
    detail: `${layout.root}, ${state}, ${mebibytes} MiB free (512 needed)`,
  };
}

async function checkRun(): Promise<Finding[]> {
  const run = readRunFile(layout);
  if (run === null) return [{ good: true, what: 'stack', detail: 'not running; start it with npm start' }];
  const checks = Object.entries(run.metrics).map(async ([stage, url]): Promise<Finding> => {
    const ready = url.replace(/\/metrics$/, '/readyz');
    try {
      const answer = await fetch(ready, { signal: AbortSignal.timeout(3_000) });
      const text = answer.ok ? 'ready' : `not ready: ${(await answer.text()).slice(0, 200)}`;
      return { good: answer.ok, what: stage, detail: text };
    } catch (error) {
      return { good: false, what: stage, detail: `does not answer at ${ready}: ${(error as Error).message}` };
    }
  });
  return Promise.all(checks);
}

const findings = [
  checkNode(),
  await checkNats(),
  checkPackage('Postgres', postgresPackage(process.platform, process.arch), 'DATABASE_URL'),
  checkPackage('ClickHouse', 'chdb', 'CLICKHOUSE_URL'),
  checkRoot(),
  checkData(),
  ...(await checkRun()),
];
for (const { good, what, detail } of findings) {
  process.stdout.write(`${good ? 'ok  ' : 'FAIL'}  ${what.padEnd(13)} ${detail}\n`);
}
const bad = findings.filter((finding) => !finding.good).length;
process.stdout.write(
  bad === 0 ? 'Nothing stands in the way.\n' : `${bad} of ${findings.length} checks failed.\n`,
);
process.exitCode = bad === 0 ? 0 : 1;
