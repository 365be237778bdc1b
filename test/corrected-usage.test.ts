import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { TallylineClient } from '../client/index.ts';
import { connectClickHouse, type ClickHouse } from '../runtime/clickhouse.ts';
import {
  newDataFolder,
  removeDataFolder,
  runCommand,
  startLocalStack,
  type LocalStack,
} from './local-stack.ts';
import { until } from './until.ts';

// Corrections as a product sends them, through the whole stack to what is read: the commands of docs/corrections.md,
// and the client.

const DEADLINE_MS = 60_000;
const data = newDataFolder();
let stack: LocalStack;
let ch: ClickHouse;

beforeAll(async () => {
  stack = await startLocalStack(data);
  ch = connectClickHouse({ url: stack.run().engines.clickhouse, name: 'test', requestTimeoutMs: 30_000 });
});
afterAll(async () => {
  await (ch as ClickHouse | undefined)?.close();
  await (stack as LocalStack | undefined)?.stop();
  removeDataFolder(data);
});

async function ask<T>(path: string): Promise<T> {
  const { api, key } = stack.run();
  const answer = await fetch(`${api}${path}`, { headers: { authorization: `Bearer ${key}` } });
  expect(answer.status, path).toBe(200);
  return (await answer.json()) as T;
}

/** What the meter has of the subject in the day of the examples; '0' when there is nothing. */
async function usageOf(subject: string, meter = 'input_tokens'): Promise<string> {
  const query = new URLSearchParams({
    meter,
    subject,
    from: '2026-11-21T00:00:00Z',
    to: '2026-11-22T00:00:00Z',
  });
  const { rows } = await ask<{ rows: readonly { value: string }[] }>(`/v1/usage?${query}`);
  expect(rows.length).toBeLessThan(2);
  return rows[0]?.value ?? '0';
}

const isUsage = (subject: string, value: string): Promise<void> =>
  until(`${subject} has ${value}`, async () => (await usageOf(subject)) === value, DEADLINE_MS);

/** What events have met so far. */
async function verdicts(): Promise<string[]> {
  const rows = await ch.rows<{ verdict: string }>(
    'SELECT DISTINCT verdict FROM verdict_totals FINAL ORDER BY verdict',
  );
  return rows.map(({ verdict }) => verdict);
}

/** The shell blocks of the document, without those that say where the stack is. */
function commandsOf(document: string): string[] {
  const text = readFileSync(fileURLToPath(new URL(`../docs/${document}`, import.meta.url)), 'utf8');
  const blocks = [...text.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map((match) => match[1]!);
  return blocks.filter((block) => block.startsWith('curl '));
}

function shell(command: string): Promise<unknown> {
  const { api, edge, key } = stack.run();
  const env = { ...process.env, TALLYLINE_API: api, TALLYLINE_EDGE: edge, TALLYLINE_KEY: key };
  return new Promise((resolve, reject) => {
    execFile('sh', ['-c', command], { env }, (error, stdout, stderr) =>
      error === null
        ? resolve(JSON.parse(stdout))
        : reject(new Error(`${command}\n${stderr}`, { cause: error })),
    );
  });
}

test('the commands of the document do what it says', { timeout: DEADLINE_MS * 3 }, async () => {
  const [send, amend, voided, read] = commandsOf('corrections.md') as [string, string, string, string];
  const taken = { accepted: 1, rejected: [] };
  expect(await shell(send)).toEqual(taken);
  await isUsage('fixable', '12000');
  expect(await shell(amend)).toEqual(taken);
  await isUsage('fixable', '1200');
  expect(await shell(voided)).toEqual(taken);
  await isUsage('fixable', '0');
  expect(await shell(read)).toMatchObject({ rows: [] });
  // Again, nothing changes: duplicates.
  for (const command of [amend, voided]) expect(await shell(command)).toEqual(taken);
  await until('they are duplicates', async () => (await verdicts()).includes('duplicate'), DEADLINE_MS);
  expect(await verdicts()).toEqual(['counted', 'duplicate']);
  expect(await usageOf('fixable')).toBe('0');
});

test(
  'the client corrects what it recorded, and hears later of what it could not',
  { timeout: DEADLINE_MS * 3 },
  async () => {
    const { edge, key } = stack.run();
    const time = '2026-11-21T09:30:00Z';
    const use = (input_tokens: number) => ({
      type: 'llm.request',
      subject: 'client',
      time,
      data: { input_tokens, output_tokens: 1 },
    });
    await using client = new TallylineClient({
      url: edge,
      key,
      source: 'sdk',
      batchEventsMax: 3,
      flushOnExit: false,
    });
    for (let at = 0; at < 10; at++) await client.record({ id: `c-${at}`, ...use(100) });
    await client.void('c-3');
    await client.amend('c-4', { ...use(7) });
    await client.amend('c-4', { ...use(40) });
    await client.void('c-5');
    await client.amend('c-5', { ...use(50) });
    await client.amend('c-6', { ...use(1), subject: 'another' });
    await client.void('c-nothing');
    await client.flush();
    // c-0 to c-2 and c-7 to c-9, and what became of c-4 and c-5.
    await isUsage('client', '690');
    await isUsage('another', '1');

    // The original comes late: what was refused is told whole, and can be sent again as it is told.
    type Refused = {
      items: readonly { code: string; event: { id: string; voids?: string; data: object } }[];
    };
    let refused: Refused = { items: [] };
    await until(
      'the void of nothing is refused',
      async () => (refused = await ask<Refused>('/v1/refused?verdict=rejected')).items.length > 0,
      DEADLINE_MS,
    );
    const [{ code, event }] = refused.items as [Refused['items'][0]];
    expect([code, event]).toEqual([
      'correction_target_unknown',
      expect.objectContaining({
        id: 'void',
        source: 'sdk',
        type: 'tallyline.void',
        voids: 'c-nothing',
        data: {},
      }),
    ]);
    await client.record({ id: 'c-nothing', ...use(5_000) });
    await client.flush();
    await isUsage('client', '5690');
    const answer = await fetch(`${edge}/v1/events`, {
      method: 'POST',
      headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
      body: JSON.stringify(event),
    });
    expect(answer.status).toBe(202);
    await isUsage('client', '690');
  },
);

test('what we keep is still what we promised', async () => {
  const verified = await runCommand('local/cli.js', ['verify'], { TALLYLINE_DATA: data });
  expect(verified.stdout).toContain('no finding');
  expect(verified.code).toBe(0);
});
