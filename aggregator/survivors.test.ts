import { expect, test } from 'vitest';
import type { Beginning } from './incarnation-rows.ts';
import type { StoredMessage } from './log-mark.ts';
import { findSurvivors } from './survivors.ts';
import { fingerprintOf, type Watermark } from './watermark.ts';

/** What a log holds: by sequence, a text; nothing where a message is missing. */
type Messages = Readonly<Record<number, string>>;

function stored(sequence: number, text: string): StoredMessage {
  const message = new TextEncoder().encode(text);
  return { sequence, timeMs: sequence, checksum: text.charCodeAt(0), message };
}

/** An incarnation: behind which sequence it began, and what it has read. */
interface Read {
  readonly behind: number;
  readonly messages: Messages;
}

/** Requests to the log in the last call. */
let asked = 0;

/** Where counting goes on in a log that holds `now`, after these incarnations, of which each counted all that it read. */
async function survived(reads: readonly Read[], now: Messages): Promise<number> {
  const sequences = (messages: Messages): number[] => Object.keys(messages).map(Number);
  const countedTo = reads.map(({ behind, messages }) => Math.max(behind, ...sequences(messages)));
  const watermarkOf = (at: number, sequence: number): Watermark => ({
    incarnation: at + 1,
    sequence,
    streamCreated: 'now',
    fingerprint: fingerprintOf(stored(sequence, reads[at]!.messages[sequence] ?? '').message),
    acceptedAtMs: 0,
  });
  const beginnings: Beginning[] = reads.map(({ behind }, at) => ({
    watermark: watermarkOf(at, behind),
    sequenceBefore: countedTo[at - 1] ?? 0,
    reason: '',
  }));
  const there = sequences(now);
  asked = 0;
  const found = await findSurvivors({
    tables: {
      loadMarks: async (_, from, to) =>
        reads.flatMap(({ messages }, at) =>
          sequences(messages)
            .filter((sequence) => sequence >= from && sequence <= to)
            .map((sequence) => ({ incarnation: at + 1, mark: stored(sequence, messages[sequence]!) })),
        ),
      loadFirstMarks: async () =>
        new Map(
          reads.flatMap(({ behind, messages }, at) => {
            const read = sequences(messages).filter((sequence) => sequence > behind);
            return read.length === 0 ? [] : [[at + 1, Math.min(...read)] as const];
          }),
        ),
    },
    shardLog: {
      messageAt: async (sequence) => {
        asked += 1;
        return now[sequence] === undefined ? null : stored(sequence, now[sequence]);
      },
      messageFrom: async (sequence, until) => {
        asked += 1;
        const at = sequences(now).find((one) => one >= sequence && one <= until);
        return at === undefined ? null : stored(at, now[at]!);
      },
    },
    shard: 0,
    beginnings,
    watermark: watermarkOf(reads.length - 1, countedTo.at(-1)!),
    stream: {
      name: 'LOG',
      created: 'now',
      firstSequence: Math.min(...there),
      lastSequence: Math.max(...there),
    },
  });
  expect(found.at?.sequence ?? found.survived).toBe(found.survived);
  return found.survived;
}

test('a log that lost its end goes on behind what is left', async () => {
  const all = { 1: 'a', 2: 'b', 3: 'c', 4: 'd' };
  expect(await survived([{ behind: 0, messages: all }], { 1: 'a', 2: 'b' })).toBe(2);
  expect(await survived([{ behind: 0, messages: all }], { 1: 'a', 2: 'b', 3: 'x', 4: 'y' })).toBe(2);
  expect(await survived([{ behind: 0, messages: all }], { 1: 'x', 2: 'y' })).toBe(0);
});

test('each hole is passed over once: the next incarnation begins behind what the last one has read', async () => {
  const now = { 1: 'a', 2: 'b', 4: 'd', 6: 'f', 7: 'g' };
  const first = { behind: 0, messages: { 1: 'a', 2: 'b' } };
  expect(await survived([first], now)).toBe(2);
  // It passed over 3, read 4, and met a hole at 5.
  const second = { behind: 2, messages: { 4: 'd' } };
  expect(await survived([first, second], now)).toBe(4);
});

test('what was counted and is missing now stays counted', async () => {
  const counted = { 1: 'a', 2: 'b', 3: 'c', 4: 'd' };
  expect(await survived([{ behind: 0, messages: counted }], { 1: 'a', 4: 'd', 6: 'f' })).toBe(4);
});

test('a hole that was passed over and is filled again is read', async () => {
  const first = { behind: 0, messages: { 1: 'a' } };
  const second = { behind: 1, messages: { 4: 'd', 5: 'e' } };
  expect(await survived([first, second], { 1: 'a', 2: 'b', 3: 'c', 4: 'd', 5: 'e' })).toBe(1);
  expect(await survived([first, second], { 1: 'a', 3: 'c', 4: 'd', 5: 'e' })).toBeLessThan(3);
  // And once it was read, it is not read again.
  const third = { behind: 1, messages: { 2: 'b', 3: 'c', 4: 'd', 5: 'e' } };
  expect(await survived([first, second, third], { 1: 'a', 2: 'b', 3: 'c', 4: 'd', 5: 'e', 6: 'f' })).toBe(5);
});

test('what stood in the hole before, and was counted then, is no reason to read it again', async () => {
  const first = { behind: 0, messages: { 1: 'a', 2: 'b', 3: 'c' } };
  const second = { behind: 1, messages: { 4: 'x' } };
  expect(await survived([first, second], { 1: 'a', 2: 'b', 3: 'c', 4: 'x', 5: 'y' })).toBe(4);
});

test('a hole of any length takes few requests', async () => {
  const first = { behind: 0, messages: { 1: 'a', 2: 'b' } };
  const second = { behind: 2, messages: { 50_000: 'd', 50_001: 'e' } };
  const now = { 1: 'a', 2: 'b', 50_000: 'd', 50_001: 'e', 100_000: 'f' };
  expect(await survived([first, second], now)).toBe(50_001);
  expect(await survived([first], now)).toBe(2);
  expect(asked).toBeLessThan(50);
});
