import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { isAlive } from '../local/engines/process.ts';
import {
  newDataFolder,
  removeDataFolder,
  runCommand,
  startLocalStack,
  type LocalStack,
} from './local-stack.ts';
import { until } from './until.ts';

// What a newcomer does in the first ten minutes, done by a machine: start, send, read, stop, start again.

const data = newDataFolder();
let stack: LocalStack;

beforeAll(async () => {
  stack = await startLocalStack(data);
});

afterAll(async () => {
  await (stack as LocalStack | undefined)?.stop();
  removeDataFolder(data);
});

/** The commands that the welcome prints, as a person would copy them. */
function printedCommands(output: string): string[] {
  return [...output.matchAll(/^ {2}(curl -sS (?:.*\\\n)*.*)$/gm)].map((match) => match[1]!);
}

function shell(command: string): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile('sh', ['-c', command], (error, stdout, stderr) =>
      error === null ? resolve(stdout) : reject(new Error(`${command}\n${stderr}`, { cause: error })),
    );
  });
}

interface Usage {
  readonly rows: readonly { readonly value: string }[];
}

describe('the first ten minutes', () => {
  test('the printed curl is accepted and its value is readable within 2 s, once however often it is sent', async () => {
    const [send, read] = printedCommands(stack.output());
    expect(JSON.parse(await shell(send!))).toEqual({ accepted: 1, rejected: [] });
    const value = async (): Promise<string | undefined> =>
      (JSON.parse(await shell(read!)) as Usage).rows[0]?.value;
    await until('the usage is visible', async () => (await value()) === '1200', 2_000);
    expect(JSON.parse(await shell(send!))).toEqual({ accepted: 1, rejected: [] });
    const { api, key } = stack.run();
    const conservation = async (): Promise<Record<string, string>> =>
      (await (
        await fetch(`${api}/v1/conservation`, { headers: { authorization: `Bearer ${key}` } })
      ).json()) as Record<string, string>;
    await until(
      'the repeated event is a duplicate',
      async () => (await conservation())['duplicate'] === '1',
      5_000,
    );
    expect(await value()).toBe('1200');
    expect(await conservation()).toMatchObject({ received: '2', counted: '1', unaccounted: '0' });
  });

  test('every stage answers /healthz, /readyz and /metrics, and no metric names a tenant or a subject', async () => {
    const { metrics } = stack.run();
    expect(Object.keys(metrics).sort()).toEqual(['aggregator', 'billing-sync', 'ingest', 'ledger']);
    for (const url of Object.values(metrics)) {
      for (const path of ['/healthz', '/readyz']) {
        expect((await fetch(url.replace('/metrics', path))).status).toBe(200);
      }
      const text = await (await fetch(url)).text();
      expect(text).toMatch(/^tallyline_/m);
      expect(text).not.toMatch(/(tenant|subject|customer)=/);
    }
  });

  test('the metering lag of both stages is measured', async () => {
    const { metrics } = stack.run();
    const lagOf = async (stage: 'aggregator' | 'ledger', label: string): Promise<boolean> => {
      const text = await (await fetch(metrics[stage]!)).text();
      const count = new RegExp(
        `^tallyline_metering_lag_seconds_count\\{[^}]*stage="${label}"[^}]*\\} (\\d+)`,
        'm',
      ).exec(text);
      return Number(count?.[1] ?? 0) > 0;
    };
    await until('lag to visible', () => lagOf('aggregator', 'visible'), 10_000);
    await until('lag to posted', () => lagOf('ledger', 'posted'), 10_000);
  });

  test('a second start on the same data is refused and says where the first one is', async () => {
    const second = await runCommand('local/main.js', [], { TALLYLINE_DATA: data });
    expect(second.code).toBe(1);
    expect(second.stderr).toContain(`pid ${stack.child.pid}`);
  });

  test('reset is refused while the stack runs', async () => {
    const reset = await runCommand('local/reset.js', [], { TALLYLINE_DATA: data });
    expect(reset.code).toBe(1);
    expect(existsSync(join(data, 'secrets.json'))).toBe(true);
  });

  test('the doctor finds a running stack healthy', async () => {
    const doctor = await runCommand('local/doctor.js', [], { TALLYLINE_DATA: data });
    expect(doctor.stdout).toContain('Nothing stands in the way.');
    expect(doctor.code).toBe(0);
  });

  test('verify finds the chain and every check sound', async () => {
    const verify = await runCommand('local/cli.js', ['verify'], { TALLYLINE_DATA: data });
    expect(verify.stdout + verify.stderr).toMatch(/verified/);
    expect(verify.code).toBe(0);
  });

  test('two stacks side by side do not clash', async () => {
    const otherData = newDataFolder();
    const other = await startLocalStack(otherData);
    try {
      expect(other.run().edge).not.toBe(stack.run().edge);
      const [, read] = printedCommands(other.output());
      expect((JSON.parse(await shell(read!)) as Usage).rows[0]?.value ?? '0').toBe('0');
    } finally {
      expect(await other.stop()).toBe(0);
      removeDataFolder(otherData);
    }
  });

  test('a stop leaves no process, and the next start continues the data on the same addresses', async () => {
    const before = stack.run();
    const [send, read] = printedCommands(stack.output());
    expect(await stack.stop()).toBe(0);
    for (const pid of Object.values(before.pids)) expect(isAlive(pid)).toBe(false);
    expect(existsSync(join(data, 'run.json'))).toBe(false);

    stack = await startLocalStack(data);
    expect(stack.run().edge).toBe(before.edge);
    expect(stack.run().key).toBe(before.key);
    expect((JSON.parse(await shell(read!)) as Usage).rows[0]?.value).toBe('1200');
    await shell(send!);
    expect((JSON.parse(await shell(read!)) as Usage).rows[0]?.value).toBe('1200');
  });
});

describe('what can be wrong', () => {
  test('a port that was asked for and is taken is an error that names it', async () => {
    const squatter = createServer();
    await new Promise<void>((resolve) => squatter.listen(0, '127.0.0.1', resolve));
    const { port } = squatter.address() as { port: number };
    const folder = newDataFolder();
    const start = await runCommand('local/main.js', [], {
      TALLYLINE_DATA: folder,
      TALLYLINE_EDGE_PORT: String(port),
    });
    squatter.close();
    expect(start.code).toBe(1);
    expect(start.stderr).toContain(`Port ${port} (TALLYLINE_EDGE_PORT, for edge) is taken`);
    removeDataFolder(folder);
  });

  test('a killed stack leaves no process behind', async () => {
    const folder = newDataFolder();
    const victim = await startLocalStack(folder);
    const { pids } = victim.run();
    victim.child.kill('SIGKILL');
    const alive = (): string[] => Object.keys(pids).filter((name) => isAlive(pids[name]!));
    await until('all processes are gone', () => alive().length === 0, 40_000).catch((error: unknown) => {
      throw new Error(`still there: ${alive().join(', ')}`, { cause: error });
    });
    const again = await startLocalStack(folder);
    expect(await again.stop()).toBe(0);
    removeDataFolder(folder);
  });
});
