import { spawn } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { ReplayState } from '../local/replay/progress-file.ts';
import {
  newDataFolder,
  removeDataFolder,
  runCommand,
  startLocalStack,
  type LocalStack,
} from './local-stack.ts';
import { until } from './until.ts';

// History from files, through the edge and counted: exact when the command is killed, and once when it is repeated.

const cli = join(fileURLToPath(new URL('..', import.meta.url)), 'dist/local/cli.js');
const data = newDataFolder();
const env = { TALLYLINE_DATA: data };
const EVENTS = 20_000;
let stack: LocalStack | undefined;

beforeAll(async () => {
  stack = await startLocalStack(data);
});

afterAll(async () => {
  await stack?.stop();
  removeDataFolder(data);
});

async function ask<T>(path: string, body?: object): Promise<T> {
  const { api, adminKey } = stack!.run();
  const response = await fetch(new URL(path, api), {
    method: body === undefined ? 'GET' : 'POST',
    headers: { authorization: `Bearer ${adminKey}`, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  expect(response.ok, `${path}: ${response.status}`).toBe(true);
  return (await response.json()) as T;
}

async function valueOf(meter: string): Promise<string> {
  const query = `meter=${meter}&from=2025-01-01T00:00:00Z&to=2026-01-01T00:00:00Z&window=total`;
  const { rows } = await ask<{ rows: { value: string }[] }>(`/v1/usage?${query}`);
  return rows[0]?.value ?? '0';
}

const tallyline = (...args: string[]) => runCommand('local/cli.js', args, env);

test('a replay that is killed and resumed counts every event of the file once', async () => {
  await ask('/v1/meters', { key: 'moves', eventType: 'warehouse.move', aggregation: 'count' });
  await ask('/v1/meters', {
    key: 'weight',
    eventType: 'warehouse.move',
    aggregation: 'sum',
    valueProperty: 'weight',
  });
  const line = (n: number): string =>
    `{"id":"m-${n}","type":"warehouse.move","subject":"s-${n % 7}","time":"2025-03-01T00:00:${String(n % 60).padStart(2, '0')}Z","data":{"weight":${n}.000000001}}`;
  const lines = Array.from({ length: EVENTS }, (_, n) => line(n));
  // Four lines that cannot count, and one that repeats another.
  lines[5_000] = line(5_000).replace('5000.000000001', '12345678901234567890.5');
  lines[9_999] = lines[9_999]!.replace('"id":"m-9999",', '');
  lines[12_000] = '{"id": no json';
  lines[19_999] = '{"id":"\xff"}';
  lines[15_000] = line(14_999);
  const file = join(data, 'moves.ndjson.gz');
  writeFileSync(file, gzipSync(Buffer.from(lines.join('\n'), 'latin1')));
  const stateFile = `${file}.replay.json`;
  const stateNow = (): ReplayState | null =>
    existsSync(stateFile) ? (JSON.parse(readFileSync(stateFile, 'utf8')) as ReplayState) : null;

  // A quota makes it slow enough to be killed on the way, behind the first of the rejected lines.
  expect((await tallyline('quota', 'demo', '--events', '3000', '--bytes', 'none')).code).toBe(0);
  const child = spawn(process.execPath, [cli, 'replay', file, '--no-wait'], {
    env: { ...process.env, ...env },
    stdio: 'ignore',
  });
  const closed = new Promise((resolve) => child.once('close', resolve));
  await until('a part of the file is sent', () => (stateNow()?.records ?? 0) > 6_000, 60_000);
  child.kill('SIGKILL');
  await closed;
  expect(stateNow()!.isFinished).toBe(false);
  expect(stateNow()!.records).toBeLessThan(EVENTS);
  expect((await tallyline('quota', 'demo', '--events', 'none', '--bytes', 'none')).code).toBe(0);

  // What the killed process wrote behind its last state is written again, not twice.
  const rejectedFile = `${file}.rejected.ndjson`;
  writeFileSync(rejectedFile, '{"torn', { flag: 'a' });
  const resumed = await tallyline('replay', file, '--resume');
  expect(resumed.stdout).toContain('20,000 events sent, 19,996 accepted, 4 rejected');
  expect(resumed.code).toBe(1);
  const rejected = readFileSync(rejectedFile, 'utf8').trim().split('\n');
  const reasons = rejected.map((text) => JSON.parse(text) as { file: string; line: number; code: string });
  expect(reasons.map(({ line: at, code }) => [at, code])).toEqual([
    [5_001, 'number_not_exact'],
    [10_000, 'field_missing'],
    [12_001, 'line_not_json'],
    [20_000, 'line_not_json'],
  ]);
  expect(rejected[0]).toContain('"weight":12345678901234567890.5');

  const left = lines.length - 5;
  expect(await valueOf('moves')).toBe(String(left));
  const all = (BigInt(EVENTS) * BigInt(EVENTS - 1)) / 2n;
  const whole = all - 5_000n - 9_999n - 12_000n - 19_999n - 15_000n;
  expect(await valueOf('weight')).toBe(`${whole}.${String(left).padStart(9, '0')}`);

  // Once more from the beginning: nothing but duplicates.
  expect((await tallyline('replay', file)).stderr).toContain('move it away');
  const moved = join(data, 'again.ndjson');
  writeFileSync(moved, lines.slice(0, 5_000).join('\n'));
  const again = await tallyline('replay', moved);
  expect(again.stdout).toContain('of these: 0 counted, 5,000 duplicate, 0 conflict');
  expect(again.code).toBe(0);
  expect(await valueOf('moves')).toBe(String(left));

  // Another file under the same name is not gone on with.
  writeFileSync(moved, lines.slice(1, 5_001).join('\n'));
  const other = await tallyline('replay', moved, '--resume');
  expect(other.stderr).toContain('is not what it was');
  expect(other.code).toBe(2);
});

test('a CSV and an array without ids count once, however often they are replayed', async () => {
  await ask('/v1/meters', {
    key: 'paid',
    eventType: 'till.sale',
    aggregation: 'sum',
    valueProperty: 'amount',
  });
  const csv = join(data, 'sales.csv');
  const rows = Array.from({ length: 500 }, (_, n) => `shop-${n % 3},2025-05-01 10:00:00.5,0.10,`);
  writeFileSync(csv, `shop,at,amount,note\n${rows.join('\n')}\n`);
  const columns = ['--type', 'till.sale', '--subject-column', 'shop', '--time-column', 'at'];
  expect((await tallyline('replay', csv, ...columns)).stderr).toContain('--id-column or --id-from-line');
  const first = await tallyline('replay', csv, ...columns, '--id-from-line');
  expect(first.stdout).toContain('of these: 500 counted, 0 duplicate');
  expect(first.code).toBe(0);
  // Equal rows are not one sale, and the same file again is no other sale.
  const second = await tallyline('replay', csv, ...columns, '--id-from-line');
  expect(second.stdout).toContain('of these: 0 counted, 500 duplicate');
  expect(await valueOf('paid')).toBe('50');

  const array = join(data, 'sales.json');
  const sale = {
    type: 'till.sale',
    subject: 'shop-9',
    time: '2025-05-01T00:00:00Z',
    data: { amount: '1.5' },
  };
  writeFileSync(array, JSON.stringify([sale, sale, sale], null, 2));
  expect((await tallyline('replay', array)).stdout).toContain('0 accepted, 3 rejected');
  expect((await tallyline('replay', array, '--id-from-line')).stderr).toContain('move it away');
  // --resume would take the three for dealt with; the records are other ones with ids, and it says so.
  expect((await tallyline('replay', array, '--id-from-line', '--resume')).stderr).toContain(
    'is not what it was',
  );
  const renamed = join(data, 'more.json');
  writeFileSync(renamed, readFileSync(array));
  const counted = await tallyline('replay', renamed, '--id-from-line', '--name', 'sales.json');
  expect(counted.stdout).toContain('of these: 3 counted');
  expect(await valueOf('paid')).toBe('54.5');

  // The edge has lived through all of it, so it tells exactly what the log got.
  interface Stages {
    readonly edge: { accepted: string; missing: string; provenTo: string | null };
    readonly aggregator: { received: string; beyondAccepted: string };
    readonly raw: { difference: string };
  }
  const stages = async (): Promise<Stages> => (await ask<{ stages: Stages }>('/v1/conservation')).stages;
  await until(
    'the edge has told what it acknowledged, and it is found in the log',
    async () => {
      const { edge, aggregator } = await stages();
      return edge.provenTo !== null && edge.accepted === aggregator.received;
    },
    60_000,
  );
  expect(await stages()).toMatchObject({
    edge: { missing: '0' },
    aggregator: { beyondAccepted: '0' },
    raw: { difference: '0' },
  });
});
