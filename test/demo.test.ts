import { spawn } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import Stripe from 'stripe';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  newDataFolder,
  removeDataFolder,
  runCommand,
  startLocalStack,
  type LocalStack,
} from './local-stack.ts';

// One trace in, one invoice out, through real engines: exact on a quiet machine, exact when every stage is
// killed on the way, unchanged when it is replayed.

const root = fileURLToPath(new URL('..', import.meta.url));
const realTrace = join(root, '..', 'shared', 'data', 'azure-llm-inference-code-2023.csv');
const data = newDataFolder();
let stack: LocalStack | undefined;

beforeAll(async () => {
  stack = await startLocalStack(data);
});

afterAll(async () => {
  await stack?.stop();
  removeDataFolder(data);
});

interface Report {
  readonly ok: boolean;
  readonly repeated: boolean;
  readonly conservation: { readonly replay: Record<string, string>; readonly total: Record<string, string> };
  readonly usage: readonly { subject: string; meter: string; value: string }[];
  readonly invoices: readonly {
    customer: string;
    isNew: boolean;
    id: string;
    currency: string;
    total: string;
    lines: readonly { kind: string; description: string; quantity: string; amount: string }[];
    delivery: { stripeInvoiceId: string; stripeTotal: string } | null;
  }[];
  readonly faults: readonly string[];
}

async function demo(file: string): Promise<Report> {
  const finished = await runCommand('local/demo/main.js', [file, '--json'], { TALLYLINE_DATA: data });
  if (finished.stdout === '') throw new Error(finished.stderr);
  const report = JSON.parse(finished.stdout) as Report;
  expect(report.faults).toEqual([]);
  expect(finished.code).toBe(0);
  return report;
}

/** The file summed without any code of ours: customer n mod 5, columns 2 and 3. */
function sumFile(path: string): { input: bigint; output: bigint }[] {
  const sums = Array.from({ length: 5 }, () => ({ input: 0n, output: 0n }));
  const lines = readFileSync(path, 'utf8').trim().split('\n').slice(1);
  lines.forEach((line, at) => {
    const [, input, output] = line.trim().split(',');
    const sum = sums[at % 5]!;
    sum.input += BigInt(input!);
    sum.output += BigInt(output!);
  });
  return sums;
}

/**
 * The demo plan rated by hand, in cents, from whole tokens. Input: 100,000 included, the next 2,000,000 at
 * 0.000003 USD, the rest at 0.0000025 USD. Output: 0.000015 USD each. One rounding a line, half away from zero.
 */
function invoiceByHand(sum: { input: bigint; output: bigint }): { input: bigint; output: bigint } {
  const billable = sum.input > 100_000n ? sum.input - 100_000n : 0n;
  const firstTier = billable < 2_000_000n ? billable : 2_000_000n;
  // 10^-7 USD: 30 and 25 of them a token, 150 for output; 10^5 of them are a cent.
  const input = firstTier * 30n + (billable - firstTier) * 25n;
  const output = sum.output * 150n;
  const cents = (exact: bigint): bigint => (exact + 50_000n) / 100_000n;
  return { input: cents(input), output: cents(output) };
}

const decimal = (cents: bigint): string => `${cents / 100n}.${String(cents % 100n).padStart(2, '0')}`;

async function expectInvoices(report: Report, path: string): Promise<void> {
  const sums = sumFile(path);
  const { stripe } = stack!.run();
  const url = new URL(stripe);
  const client = new Stripe(stack!.secrets().stripeKey, {
    host: url.hostname,
    port: url.port,
    protocol: 'http',
  });
  expect(report.invoices).toHaveLength(5);
  for (const [at, invoice] of report.invoices.entries()) {
    const byHand = invoiceByHand(sums[at]!);
    expect(invoice.lines.map((line) => line.amount)).toEqual([decimal(byHand.input), decimal(byHand.output)]);
    expect(invoice.total).toBe(decimal(byHand.input + byHand.output));
    const remote = await client.invoices.retrieve(invoice.delivery!.stripeInvoiceId);
    expect(BigInt(remote.total)).toBe(byHand.input + byHand.output);
    const lines = await client.invoices.listLineItems(remote.id!, { limit: 100 });
    const amounts = lines.data.map((line) => BigInt(line.amount)).sort((a, b) => Number(a - b));
    expect(amounts).toEqual([byHand.input, byHand.output].sort((a, b) => Number(a - b)));
  }
}

function makeTrace(name: string, rows: number): string {
  let state = 42;
  const next = (bound: number): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return Math.floor((state / 2 ** 32) * bound);
  };
  const lines = ['TIMESTAMP,ContextTokens,GeneratedTokens'];
  for (let row = 0; row < rows; row++) {
    const time = new Date(Date.UTC(2026, 1, 1) + row * 60_000).toISOString();
    lines.push(`${time},${next(9_000)},${next(700)}`);
  }
  const path = join(data, name);
  writeFileSync(path, `${lines.join('\n')}\n`);
  return path;
}

describe('the demo', () => {
  test.skipIf(!existsSync(realTrace))(
    'the real trace: counted once, invoiced to the cent, unchanged when replayed',
    async () => {
      const first = await demo(realTrace);
      expect(first.repeated).toBe(false);
      expect(first.conservation.replay).toMatchObject({ counted: '8819', duplicate: '0', unaccounted: '0' });
      const sums = sumFile(realTrace);
      expect(first.usage.map((line) => line.value)).toEqual(
        sums.flatMap((sum) => [String(sum.input), String(sum.output)]),
      );
      await expectInvoices(first, realTrace);

      const second = await demo(realTrace);
      expect(second.repeated).toBe(true);
      expect(second.conservation.replay).toMatchObject({ counted: '0', duplicate: '8819', unaccounted: '0' });
      expect(second.usage).toEqual(first.usage);
      expect(second.invoices.map(({ isNew: _, ...invoice }) => invoice)).toEqual(
        first.invoices.map(({ isNew: _, ...invoice }) => invoice),
      );
    },
    120_000,
  );

  test('kill -9 of each stage during the replay leaves the totals exact', async () => {
    const path = makeTrace('crashes.csv', 20_000);
    const replay = spawn(process.execPath, [join(root, 'dist/local/demo/main.js'), path, '--json'], {
      cwd: root,
      env: { ...process.env, TALLYLINE_DATA: data },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const stdout: Buffer[] = [];
    let stderr = '';
    replay.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
    replay.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
    const ended = new Promise<number | null>((resolve) => replay.once('close', resolve));
    let over = false;
    void ended.then(() => (over = true));

    const kills: Record<string, number> = {};
    const stages = ['ingest', 'aggregator', 'ledger', 'billing-sync'] as const;
    for (let round = 0; !over && round < 12; round++) {
      const stage = stages[round % stages.length]!;
      const pid = stack!.run().pids[stage];
      if (pid !== undefined) {
        try {
          process.kill(pid, 'SIGKILL');
          kills[stage] = (kills[stage] ?? 0) + 1;
        } catch {
          // Between its death and its restart there is nothing to kill.
        }
      }
      await new Promise((resolve) => setTimeout(resolve, 150));
    }
    const code = await ended;
    expect(stderr).not.toContain('NOT add up');
    if (stdout.length === 0) throw new Error(`no report:\n${stderr}`);
    const report = JSON.parse(Buffer.concat(stdout).toString()) as Report;
    expect(report.faults).toEqual([]);
    expect(code).toBe(0);
    expect(Object.keys(kills).sort()).toEqual([...stages].sort());
    expect(report.conservation.replay['counted']).toBe('20000');
    await expectInvoices(report, path);
  }, 180_000);
});
