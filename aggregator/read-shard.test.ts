import { expect, test } from 'vitest';
import { createLog } from '../runtime/log.ts';
import { markOf } from './log-mark.ts';
import type { ShardLog, Timing } from './ports.ts';
import { LogLostError, readShard } from './read-shard.ts';

const timing: Timing = {
  now: () => 0,
  elapsedMs: () => 0,
  sleep: () => Promise.resolve(),
  random: () => 0,
};

/** A log that hands over these sequences, and then nothing. */
function logOf(sequences: readonly number[]): ShardLog {
  const name = 'USAGE_0';
  const data = Uint8Array.of(1);
  return {
    name,
    facts: () =>
      Promise.resolve({ name, created: 'once', firstSequence: 1, lastSequence: sequences.at(-1) ?? 0 }),
    messageAt: (sequence) =>
      Promise.resolve(
        sequences.includes(sequence) ? { ...markOf(sequence, 1_000, data), message: data } : null,
      ),
    async *read({ from, onPosition }) {
      onPosition();
      for (const sequence of sequences.filter((one) => one >= from)) {
        await Promise.resolve();
        yield { sequence, timeMs: 1_000, data };
      }
    },
    size: () => Promise.reject(new Error('nobody asks for the size')),
    purge: () => Promise.reject(new Error('nobody purges')),
    tell: () => {},
  };
}

async function readOf(
  sequences: readonly number[],
  holeUntil: number,
): Promise<{ readonly got: readonly number[]; readonly lost: LogLostError | null }> {
  const stop = new AbortController();
  const messages = readShard(logOf(sequences), {
    created: 'once',
    behind: 10,
    last: null,
    holeUntil,
    maxBytesInFlight: 1_000,
    log: createLog('test', 'silent'),
    timing,
    signal: stop.signal,
  });
  const got: number[] = [];
  try {
    for await (const { sequence } of messages) {
      got.push(sequence);
      if (sequence === sequences.at(-1)) stop.abort();
    }
    return { got, lost: null };
  } catch (error) {
    if (error instanceof LogLostError) return { got, lost: error };
    throw error;
  }
}

test('a log without a hole is read from behind the place', async () => {
  expect(await readOf([9, 10, 11, 12], 0)).toEqual({ got: [11, 12], lost: null });
});

test('a hole that was there when the incarnation began is passed over', async () => {
  expect(await readOf([10, 15, 16], 14)).toEqual({ got: [15, 16], lost: null });
  expect(await readOf([10, 15, 16], 20)).toEqual({ got: [15, 16], lost: null });
});

test('a hole that has grown since is a loss: what was acknowledged in it is nowhere but in the journals', async () => {
  const { got, lost } = await readOf([10, 15, 16], 13);
  expect(got).toEqual([]);
  expect(lost?.isHole).toBe(true);
  expect(lost?.message).toContain('continues at 15 where 11 was next');
});

test('a hole behind what was read is a loss, however much was known at the beginning', async () => {
  const { got, lost } = await readOf([10, 11, 15], 20);
  expect(got).toEqual([11]);
  expect(lost?.isHole).toBe(true);
});
