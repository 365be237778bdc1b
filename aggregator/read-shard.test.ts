import { expect, test } from 'vitest';
import { createLog } from '../runtime/log.ts';
import type { Gap } from './gap.ts';
import { Counted, PassedOver } from './passed-over.ts';
import { markOf, type LogMark } from './log-mark.ts';
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
    messageFrom: (sequence, until) => {
      const at = sequences.find((one) => one >= sequence && one <= until);
      return Promise.resolve(at === undefined ? null : { ...markOf(at, 1_000, data), message: data });
    },
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

test('a message of a log that came and went while it was read is not handed over', async () => {
  // The broker lost its end, handed out what came behind, and found its end again before anybody had compared.
  const lost = logOf([10, 11, 12]);
  let readings = 0;
  const log: ShardLog = {
    ...lost,
    async *read(o) {
      readings += 1;
      if (readings > 1) return yield* lost.read(o);
      o.onPosition();
      yield { sequence: 11, timeMs: 2_000, data: Uint8Array.of(2) };
      yield { sequence: 12, timeMs: 2_000, data: Uint8Array.of(2) };
    },
  };
  const { got, marks, lost: why } = await readOf([10, 11, 12], 0, null, log);
  expect(why).toBeNull();
  expect(got).toEqual([11, 12]);
  expect(marks).toEqual([11, 12].map((sequence) => markOf(sequence, 1_000, Uint8Array.of(1))));
  expect(readings).toBe(2);
});

test('what is handed over again and again is taken, also when it cannot be looked up', async () => {
  const sound = logOf([10, 11]);
  const log: ShardLog = {
    ...sound,
    messageAt: (sequence) => (sequence === 11 ? Promise.resolve(null) : sound.messageAt(sequence)),
  };
  expect((await readOf([10, 11], 0, null, log)).got).toEqual([11]);
});

/** Nothing is known of the messages in it: all that is there is new. */
function passedOverOf(gap: Gap | null): PassedOver {
  const watermark = { incarnation: 1, sequence: 10, streamCreated: 'once', fingerprint: '', acceptedAtMs: 0 };
  const tables = { loadMarks: () => Promise.resolve([]) };
  const counted = new Counted({ tables, shard: 0, beginnings: [], watermark });
  return new PassedOver(counted, gap === null ? [] : [gap], 10);
}

async function readOf(
  sequences: readonly number[],
  holeUntil: number,
  passedOver: Gap | null = null,
  log = logOf(sequences),
  last: LogMark | null = markOf(10, 1_000, Uint8Array.of(1)),
): Promise<{
  readonly got: readonly number[];
  readonly marks: readonly LogMark[];
  readonly lost: LogLostError | null;
}> {
  const stop = new AbortController();
  const messages = readShard(log, {
    created: 'once',
    behind: 10,
    last,
    holeUntil,
    passedOver: passedOverOf(passedOver),
    maxBytesInFlight: 1_000,
    log: createLog('test', 'silent'),
    timing,
    signal: stop.signal,
  });
  const got: number[] = [];
  const marks: LogMark[] = [];
  try {
    for await (const { sequence, timeMs, checksum } of messages) {
      got.push(sequence);
      marks.push({ sequence, timeMs, checksum });
      if (sequence === sequences.at(-1)) stop.abort();
    }
    return { got, marks, lost: null };
  } catch (error) {
    if (error instanceof LogLostError) return { got, marks, lost: error };
    throw error;
  }
}

test('a log without a hole is read from behind the place', async () => {
  expect(await readOf([9, 10, 11, 12], 0)).toMatchObject({ got: [11, 12], lost: null });
});

test('a hole that was there when the incarnation began is passed over', async () => {
  expect(await readOf([10, 15, 16], 14)).toMatchObject({ got: [15, 16], lost: null });
  expect(await readOf([10, 15, 16], 20)).toMatchObject({ got: [15, 16], lost: null });
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

test('a hole that was passed over and is filled again is a loss: its messages lie in front of the place', async () => {
  expect(await readOf([5, 10, 11], 0, { from: 6, to: 9 })).toMatchObject({ got: [11], lost: null });
  const { got, lost } = await readOf([5, 7, 10, 11], 0, { from: 6, to: 9 });
  expect(got).toEqual([]);
  expect(lost?.isHole).toBe(true);
  expect(lost?.message).toContain('has message 7 again');
});

test('also when it was passed over and filled while the log was read', async () => {
  const sequences = [10, 15, 16];
  const data = Uint8Array.of(1);
  const log: ShardLog = {
    ...logOf(sequences),
    async *read({ onPosition, signal }) {
      onPosition();
      yield { sequence: 15, timeMs: 1_000, data };
      // The broker comes back with what it had before, and reading begins anew.
      sequences.splice(1, 0, 12);
      onPosition();
      await new Promise((resolve) => setImmediate(resolve));
      if (!signal.aborted) yield { sequence: 16, timeMs: 1_000, data };
    },
  };
  const { got, lost } = await readOf(sequences, 14, null, log);
  expect(got).toEqual([15]);
  expect(lost?.message).toContain('has message 12 again');
});

test('what comes back in front of the place is a loss where nothing was: nobody has looked at it', async () => {
  const withoutStart = (firstSequence: number): ShardLog => ({
    ...logOf([11, 12]),
    facts: () => Promise.resolve({ name: 'USAGE_0', created: 'once', firstSequence, lastSequence: 12 }),
  });
  expect(await readOf([11, 12], 0, null, withoutStart(11), null)).toMatchObject({
    got: [11, 12],
    lost: null,
  });
  const { got, lost } = await readOf([11, 12], 0, null, withoutStart(1), null);
  expect(got).toEqual([]);
  expect(lost?.message).toContain('starts at 1, but nothing was there up to 10');
});
