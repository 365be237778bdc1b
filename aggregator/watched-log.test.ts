import { beforeEach, describe, expect, test } from 'vitest';
import { createLog } from '../runtime/log.ts';
import { markOf, type StoredMessage, type StreamFacts } from './log-mark.ts';
import { LogError, type PulledMessage, type ReadOptions, type ShardLog, type Timing } from './ports.ts';
import { watchedLog, type Undelivered } from './watched-log.ts';

const SILENCE_MS = 10_000;

/** Time that passes when the test says so. */
class ToldTiming implements Timing {
  #ms = 0;
  #sleepers: { readonly dueMs: number; readonly wake: () => void }[] = [];

  now(): number {
    return this.#ms;
  }
  elapsedMs(): number {
    return this.#ms;
  }
  random(): number {
    return 0;
  }
  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal?.aborted) return resolve();
      signal?.addEventListener('abort', () => resolve(), { once: true });
      this.#sleepers.push({ dueMs: this.#ms + ms, wake: resolve });
    });
  }
  async pass(ms: number): Promise<void> {
    this.#ms += ms;
    for (const { dueMs, wake } of this.#sleepers) if (dueMs <= this.#ms) wake();
    this.#sleepers = this.#sleepers.filter(({ dueMs }) => dueMs > this.#ms);
    await settled();
  }
}

/** Everything that only waits for answers of this test's own objects has happened. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** A log whose consumers hand over what they are given, whatever it holds. */
class ToldLog implements ShardLog {
  readonly name = 'USAGE_0';
  last = 0;
  created = 'once';
  contradiction: string | null = null;
  /** Sequences that cannot be got. */
  readonly lost = new Set<number>();
  failure: Error | null = null;
  /** What the next request for facts waits for. */
  slow: Promise<void> | null = null;
  /** Requests so far: facts and single messages. */
  requests = 0;
  /** Where each consumer began. */
  readonly consumers: number[] = [];
  #give: (message: PulledMessage) => void = () => {};

  async facts(): Promise<StreamFacts> {
    this.requests += 1;
    const { slow } = this;
    this.slow = null;
    await slow;
    if (this.failure !== null) throw this.failure;
    const { name, created, last: lastSequence, contradiction } = this;
    return { name, created, firstSequence: 1, lastSequence, contradiction };
  }
  async messageAt(sequence: number): Promise<StoredMessage | null> {
    this.requests += 1;
    await Promise.resolve();
    if (this.failure !== null) throw this.failure;
    if (sequence > this.last || this.lost.has(sequence)) return null;
    const message = Uint8Array.of(sequence);
    return { ...markOf(sequence, 1_000 + sequence, message), message };
  }
  async messageFrom(sequence: number, until: number): Promise<StoredMessage | null> {
    for (let at = sequence; at <= until; at++) {
      const present = await this.messageAt(at);
      if (present !== null) return present;
    }
    return null;
  }
  async *read({ from, signal, onPosition }: ReadOptions): AsyncGenerator<PulledMessage, void, void> {
    this.consumers.push(from);
    const queue: PulledMessage[] = [];
    let wake: () => void = () => {};
    this.#give = (message) => {
      queue.push(message);
      wake();
    };
    signal.addEventListener('abort', () => wake(), { once: true });
    onPosition();
    while (!signal.aborted) {
      const message = queue.shift();
      if (message !== undefined) yield message;
      else await new Promise<void>((resolve) => (wake = resolve));
    }
  }
  deliver(sequence: number): void {
    this.#give({ sequence, timeMs: 1_000 + sequence, data: Uint8Array.of(sequence) });
  }
  size(): Promise<never> {
    throw new Error('nobody asks for the size');
  }
  purge(): Promise<never> {
    throw new Error('nobody purges');
  }
  tell(): void {}
}

let timing: ToldTiming;
let log: ToldLog;
let findings: (Undelivered | null)[];
let got: number[];
let positions: number;
let stop: AbortController;
let ended: Promise<unknown>;
/** While set, whoever reads is busy with the message that he took. */
let busy: Promise<void> | null;

function begin(from = 1): void {
  const watched = watchedLog(log, {
    shard: 0,
    silenceMs: SILENCE_MS,
    timing,
    log: createLog('test', 'silent'),
    onFinding: (finding) => findings.push(finding),
  });
  const reading = watched.read({
    from,
    maxBytesInFlight: 1_000,
    signal: stop.signal,
    onPosition: () => (positions += 1),
  });
  const take = async (): Promise<null> => {
    for await (const { sequence } of reading) {
      got.push(sequence);
      if (busy !== null) await busy;
    }
    return null;
  };
  ended = take().catch((error: unknown) => error);
}

beforeEach(() => {
  timing = new ToldTiming();
  log = new ToldLog();
  [findings, got, positions, stop, busy] = [[], [], 0, new AbortController(), null];
});

describe('a log in which nothing happens', () => {
  test('is asked one question in each silence, and nothing is found', async () => {
    begin();
    await settled();
    const before = log.requests;
    for (let times = 1; times <= 3; times++) {
      await timing.pass(SILENCE_MS);
      expect(log.requests).toBe(before + times);
    }
    expect(findings).toEqual([]);
    expect(log.consumers).toEqual([1]);
  });

  test('is not asked while messages come', async () => {
    begin();
    await settled();
    const before = log.requests;
    for (let sequence = 1; sequence <= 5; sequence++) {
      await timing.pass(SILENCE_MS - 1);
      log.last = sequence;
      log.deliver(sequence);
      await settled();
    }
    expect(got).toEqual([1, 2, 3, 4, 5]);
    expect(log.requests).toBe(before);
  });

  test('is not asked while nobody waits for a message: ClickHouse may be away', async () => {
    let go: () => void = () => {};
    busy = new Promise((resolve) => (go = resolve));
    begin();
    log.last = 2;
    await settled();
    log.deliver(1);
    await settled();
    const before = log.requests;
    await timing.pass(10 * SILENCE_MS);
    expect(log.requests).toBe(before);
    go();
    busy = null;
    log.deliver(2);
    await settled();
    expect(got).toEqual([1, 2]);
    expect(findings).toEqual([]);
  });
});

describe('a log that holds messages and delivers none', () => {
  test('is found when none of them can be got, and again in each silence', async () => {
    log.last = 110;
    for (let sequence = 90; sequence <= 110; sequence++) log.lost.add(sequence);
    begin(90);
    await settled();
    await timing.pass(SILENCE_MS - 1);
    expect(findings).toEqual([]);
    await timing.pass(1);
    const reason = 'the broker finds no message there';
    expect(findings).toEqual([{ from: 90, to: 110, messages: 21, reason }]);
    log.last = 115;
    for (let sequence = 111; sequence <= 115; sequence++) log.lost.add(sequence);
    await timing.pass(SILENCE_MS);
    expect(findings.at(-1)).toEqual({ from: 90, to: 115, messages: 26, reason });
    expect(got).toEqual([]);
  });

  test('is no finding any more when it delivers', async () => {
    log.last = 1;
    log.lost.add(1);
    begin();
    await settled();
    await timing.pass(SILENCE_MS);
    expect(findings).toHaveLength(1);
    log.lost.clear();
    log.deliver(1);
    await settled();
    expect(findings.at(-1)).toBeNull();
    expect(got).toEqual([1]);
  });

  test('is read on by single requests when they can be got, and then by another consumer', async () => {
    log.last = 3;
    begin();
    await settled();
    await timing.pass(SILENCE_MS);
    expect(got).toEqual([1, 2, 3]);
    expect(log.consumers).toEqual([1, 4]);
    // The log is compared before what is read behind a new beginning.
    expect(positions).toBe(3);
    log.last = 4;
    log.deliver(4);
    await settled();
    expect(got).toEqual([1, 2, 3, 4]);
    expect(findings).toEqual([]);
  });

  test('gets another consumer when only a later message can be got: whoever reads finds the hole', async () => {
    log.last = 3;
    log.lost.add(1).add(2);
    begin();
    await settled();
    await timing.pass(SILENCE_MS);
    expect(log.consumers).toEqual([1, 1]);
    log.deliver(3);
    await settled();
    expect(got).toEqual([3]);
  });

  test('is read on when a question of before is answered too late, by a timeout', async () => {
    log.last = 1;
    let timeOut = (_: Error): void => {};
    log.slow = new Promise((_, reject) => (timeOut = reject));
    begin();
    log.deliver(1);
    await settled();
    await timing.pass(SILENCE_MS);
    timeOut(new LogError('away', 'TIMEOUT'));
    await settled();
    expect(got).toEqual([1]);
    expect(log.consumers).toEqual([1, 2]);
  });

  test('is no finding while the broker is away', async () => {
    log.last = 3;
    log.lost.add(1).add(2).add(3);
    begin();
    await settled();
    log.failure = new LogError('away', 'TIMEOUT');
    await timing.pass(SILENCE_MS);
    expect(findings).toEqual([]);
  });
});

describe('a log that contradicts itself', () => {
  test('hands over nothing, though its consumer does', async () => {
    log.last = 20;
    log.contradiction = '109 messages in 20 sequences';
    begin();
    await settled();
    log.deliver(1);
    await settled();
    expect(got).toEqual([]);
    expect(findings.at(-1)).toMatchObject({ to: 20, reason: '109 messages in 20 sequences' });
  });

  test('is found though it says that everything was handed over', async () => {
    log.contradiction = '89 messages in 0 sequences';
    begin();
    await settled();
    await timing.pass(SILENCE_MS);
    expect(findings.at(-1)).toMatchObject({ messages: 1, reason: '89 messages in 0 sequences' });
  });

  test('is read again from the same place when it was replaced', async () => {
    log.contradiction = '89 messages in 0 sequences';
    begin(5);
    await settled();
    await timing.pass(SILENCE_MS);
    log.contradiction = null;
    await timing.pass(SILENCE_MS);
    expect(log.consumers).toEqual([5, 5]);
    log.last = 5;
    log.deliver(5);
    await settled();
    expect(got).toEqual([5]);
    expect(findings.at(-1)).toBeNull();
  });

  test('ends the reading when its stream is gone: another one will be there', async () => {
    log.contradiction = '89 messages in 0 sequences';
    begin();
    await settled();
    await timing.pass(SILENCE_MS);
    const gone = new LogError('gone', 'stream not found');
    log.failure = gone;
    await timing.pass(SILENCE_MS);
    expect(await ended).toBe(gone);
    expect(findings.at(-1)).toBeNull();
  });
});

test('the signal ends the reading, and what was found is not found any more', async () => {
  log.last = 1;
  log.lost.add(1);
  begin();
  await settled();
  await timing.pass(SILENCE_MS);
  expect(findings.at(-1)).not.toBeNull();
  stop.abort();
  expect(await ended).toBeNull();
  expect(findings.at(-1)).toBeNull();
});
