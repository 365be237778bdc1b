import { expect, test } from 'vitest';
import { retry } from './retry.ts';

const quick = { attempts: 3, baseMs: 1, maxMs: 1 };

async function countingRuns(options: Parameters<typeof retry>[1], failures: number) {
  let runs = 0;
  const outcome = await retry(async () => {
    runs++;
    if (runs <= failures) throw new Error(`failure ${runs}`);
    return 'done';
  }, options).catch((error: unknown) => (error as Error).message);
  return { runs, outcome };
}

test.each([
  { name: 'success at once', failures: 0, retryable: true, runs: 1, outcome: 'done' },
  { name: 'success after failures', failures: 2, retryable: true, runs: 3, outcome: 'done' },
  { name: 'attempts are spent', failures: 9, retryable: true, runs: 3, outcome: 'failure 3' },
  { name: 'not retryable', failures: 9, retryable: false, runs: 1, outcome: 'failure 1' },
])('$name: runs $runs times', async ({ failures, retryable, runs, outcome }) => {
  const result = await countingRuns({ ...quick, retryable: () => retryable }, failures);
  expect(result).toEqual({ runs, outcome });
});

test('every retry is reported with the attempt that failed', async () => {
  const seen: number[] = [];
  await countingRuns(
    { ...quick, retryable: () => true, onRetry: (_error, attempt) => seen.push(attempt) },
    2,
  );
  expect(seen).toEqual([1, 2]);
});

test('an aborted signal ends the waiting with the last error', async () => {
  const stop = new AbortController();
  const result = await countingRuns(
    {
      attempts: 10,
      baseMs: 3_600_000,
      maxMs: 3_600_000,
      retryable: () => true,
      signal: stop.signal,
      onRetry: () => stop.abort(),
    },
    9,
  );
  expect(result).toEqual({ runs: 1, outcome: 'failure 1' });
});
