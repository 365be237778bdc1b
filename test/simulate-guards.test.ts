import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

// On the compiled code, of which each guard is taken out in turn: bench/simulate/guards.ts.

test('without any one of its guards the simulation finds a wrong total', async () => {
  const main = fileURLToPath(new URL('../dist/bench/simulate/main.js', import.meta.url));
  // It ends with 1 when a guard is missed: the list says which.
  const run = promisify(execFile)(process.execPath, [main, '--break', 'all', '--seeds', '2000', '--json']);
  const { stdout } = await run.catch((error: { stdout: string }) => error);
  const caught = JSON.parse(stdout) as { guard: string; seed: number | null }[];
  expect(caught.length).toBeGreaterThanOrEqual(7);
  expect(caught.filter(({ seed }) => seed === null)).toEqual([]);
}, 600_000);
