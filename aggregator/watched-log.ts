/**
 * A log that is watched while it is read: a broker may hold messages, say so, and hand over none of them.
 *
 * NATS 2.9.10 does that behind a damaged record (docs/faults.md): it acknowledges what it writes there and never finds
 * it again, over restarts too, and its consumers pass over it without a word. To whoever waits for the next message it
 * looks like a log in which nothing happens. What tells is only that the log says that it goes on.
 *
 *   1. While messages come, or nobody waits for one, nothing is asked. A shard costs one timer, and no request.
 *   2. When one was waited for longer than `silenceMs`, the log is asked how far it goes. If that is further than what
 *      was handed over, the next messages are asked for one by one.
 *   3. If the very next one is there, the consumer is at fault: what can be got is handed over in this way, and then a
 *      new consumer is made. If a later one is there, a new consumer is made too: whoever reads finds the hole.
 *   4. If none can be got, that is a finding: an error that says what to do, once a minute, a gauge, and the reason why
 *      this process is not ready. Looking goes on, since a broker that recovers is a matter of time.
 *   5. A log that contradicts itself (runtime/stream-state.ts) is not read at all: it answers with old messages where
 *      new ones stand, so a watermark that comes of it would vouch for what nobody has counted. That is asked whenever
 *      reading begins, before anything is handed over: a log comes to that only while the broker restarts.
 *
 * Nothing is given up here, and nothing taken away: `npx tallyline log replace` does that, when somebody says so.
 */
import type { Log } from '../runtime/log.ts';
import { retry } from '../runtime/retry.ts';
import type { StreamFacts } from './log-mark.ts';
import { isLogError, type PulledMessage, type ReadOptions, type ShardLog, type Timing } from './ports.ts';

/** Messages of the log that were acknowledged and cannot be read. */
export interface Undelivered {
  readonly from: number;
  readonly to: number;
  readonly messages: number;
  readonly reason: string;
}

export interface WatchOptions {
  readonly shard: number;
  /** How long nothing may come before the log is asked whether there is something. */
  readonly silenceMs: number;
  readonly timing: Timing;
  readonly log: Log;
  /** Called with each finding, and with null when the log delivers again or is not read any more. */
  onFinding(finding: Undelivered | null): void;
}

/** Messages that are asked for one by one before the newest. */
const PROBES_MAX = 32;
const SAY_EVERY_MS = 60_000;
const ASK_AGAIN = { attempts: Number.MAX_SAFE_INTEGER, baseMs: 50, maxMs: 1_000 };

/** What a look at a silent log ends with. `away`: the broker does not answer, and nothing is known. */
type Look =
  | { readonly kind: 'quiet' | 'away' | 'next' | 'later' }
  | { readonly kind: 'undelivered' | 'contradicts'; readonly finding: Undelivered };

export function watchedLog(inner: ShardLog, o: WatchOptions): ShardLog {
  return {
    name: inner.name,
    facts: () => inner.facts(),
    messageAt: (sequence) => inner.messageAt(sequence),
    messageFrom: (sequence, until) => inner.messageFrom(sequence, until),
    read: (reading) => new Watch(inner, o, reading).read(),
    size: () => inner.size(),
    purge: (before, only) => inner.purge(before, only),
    tell: (notice) => inner.tell(notice),
  };
}

class Watch {
  readonly #inner: ShardLog;
  readonly #o: WatchOptions;
  readonly #reading: ReadOptions;
  /** The sequence after the last message handed over. */
  #next: number;
  /** Messages waited for so far; odd while one is. */
  #waits = 0;
  #finding: Undelivered | null = null;
  #saidMs = -Infinity;

  constructor(inner: ShardLog, options: WatchOptions, reading: ReadOptions) {
    this.#inner = inner;
    this.#o = options;
    this.#reading = reading;
    this.#next = reading.from;
  }

  async *read(): AsyncGenerator<PulledMessage, void, void> {
    const { signal } = this.#reading;
    try {
      while (!signal.aborted) {
        const look = yield* this.#stretch();
        if (signal.aborted) return;
        if (look === 'contradicts') await this.#untilSound();
        else if (look === 'next') yield* this.#oneByOne();
      }
    } finally {
      this.#found(null);
    }
  }

  /** Reads on until the signal, or until a look says that a new beginning is needed. */
  async *#stretch(): AsyncGenerator<PulledMessage, Look['kind'] | null, void> {
    const stop = new AbortController();
    const signal = AbortSignal.any([this.#reading.signal, stop.signal]);
    let sound: Promise<boolean> = Promise.resolve(true);
    let beginAgain: Look['kind'] | null = null;
    this.#waits |= 1;
    const watching = this.#watch(signal).then((kind) => {
      beginAgain = kind;
      stop.abort();
    });
    const onPosition = (): void => {
      sound = this.#isSound(signal);
      // Met when the first message comes, if one comes.
      sound.catch(() => {});
      this.#reading.onPosition();
    };
    try {
      for await (const message of this.#inner.read({
        ...this.#reading,
        from: this.#next,
        signal,
        onPosition,
      })) {
        const isSound = await this.#soundAt(() => sound).catch((error: unknown) => {
          // Asked for this beginning, which is over; the next one asks for itself.
          if (signal.aborted && isLogError(error, 'away')) return null;
          throw error;
        });
        if (isSound === null) break;
        if (!isSound) return 'contradicts';
        this.#next = message.sequence + 1;
        if (this.#finding !== null) this.#found(null);
        this.#waits += 1;
        yield message;
        this.#waits += 1;
      }
    } finally {
      stop.abort();
      await watching;
    }
    return beginAgain;
  }

  /** What the newest beginning found: while it was asked for, reading may have begun once more. */
  async #soundAt(newest: () => Promise<boolean>): Promise<boolean> {
    for (;;) {
      const mine = newest();
      try {
        const is = await mine;
        if (mine === newest()) return is;
      } catch (error) {
        if (mine === newest()) throw error;
      }
    }
  }

  /** Asked until it is answered: nothing may be handed over before. */
  #isSound(signal: AbortSignal): Promise<boolean> {
    const ask = async (): Promise<boolean> => (await this.#inner.facts()).contradiction == null;
    return retry(ask, {
      ...ASK_AGAIN,
      timing: this.#o.timing,
      signal,
      retryable: (error) => isLogError(error, 'away'),
    });
  }

  /** Looks whenever it was silent for so long. Ends with the signal, or with what needs a new beginning. */
  async #watch(signal: AbortSignal): Promise<Look['kind'] | null> {
    const { silenceMs, timing } = this.#o;
    for (;;) {
      const waits = this.#waits;
      await timing.sleep(silenceMs, signal);
      if (signal.aborted) return null;
      if (waits % 2 === 0 || waits !== this.#waits) continue;
      const look = await this.#look();
      if (signal.aborted || waits !== this.#waits) continue;
      if (look.kind === 'quiet') this.#found(null);
      else if (look.kind === 'undelivered') this.#found(look.finding);
      else if (look.kind !== 'away') {
        this.#say(look);
        return look.kind;
      }
    }
  }

  async #look(): Promise<Look> {
    try {
      const before = await this.#inner.facts();
      if (before.contradiction != null) return { kind: 'contradicts', finding: contradicting(before) };
      const { firstSequence, lastSequence } = before;
      if (lastSequence < this.#next) return { kind: 'quiet' };
      const from = Math.max(this.#next, firstSequence);
      const probed = await this.#probe(from, lastSequence);
      if (typeof probed === 'number') return { kind: probed === this.#next ? 'next' : 'later' };
      // An answer now says that the broker is there, and did not answer for these messages.
      await this.#inner.facts();
      const messages = lastSequence - from + 1;
      return { kind: 'undelivered', finding: { from, to: lastSequence, messages, reason: probed } };
    } catch {
      // Whoever reads meets it too: the connection, or a stream that is gone.
      return { kind: 'away' };
    }
  }

  /** The first message that can be got, or why none can. */
  async #probe(from: number, to: number): Promise<number | string> {
    const last = Math.min(to, from + PROBES_MAX - 1);
    const sequences = Array.from({ length: last - from + 1 }, (_, at) => from + at);
    if (to > last) sequences.push(to);
    try {
      for (const sequence of sequences) if ((await this.#inner.messageAt(sequence)) !== null) return sequence;
      return 'the broker finds no message there';
    } catch (error) {
      return `the broker fails to give them: ${error instanceof Error ? error.message : String(error)}`;
    }
  }

  /** Hands over what can be got by single requests, as far as it goes without a hole. */
  async *#oneByOne(): AsyncGenerator<PulledMessage, void, void> {
    this.#reading.onPosition();
    while (!this.#reading.signal.aborted) {
      let stored;
      try {
        stored = await this.#inner.messageAt(this.#next);
      } catch {
        return; // A new consumer meets it too.
      }
      if (stored === null) return;
      const { sequence, timeMs, message } = stored;
      this.#next = sequence + 1;
      yield { sequence, timeMs, data: message };
    }
  }

  /** Until the log does not contradict itself any more: it was replaced. @throws LogError when it is gone */
  async #untilSound(): Promise<void> {
    const { silenceMs, timing } = this.#o;
    const { signal } = this.#reading;
    while (!signal.aborted) {
      try {
        const facts = await this.#inner.facts();
        if (facts.contradiction == null) return;
        this.#found(contradicting(facts));
      } catch (error) {
        if (!isLogError(error, 'away')) throw error;
      }
      await timing.sleep(silenceMs, signal);
    }
  }

  #say({ kind }: Look): void {
    const { log, shard } = this.#o;
    if (kind === 'next')
      log.warn({ shard, next: this.#next }, 'the consumer delivers nothing: reading on by single requests');
    if (kind === 'later')
      log.warn({ shard, next: this.#next }, 'the consumer delivers nothing: another one is made');
  }

  #found(finding: Undelivered | null): void {
    const { shard, log, timing } = this.#o;
    if (finding === null && this.#finding === null) return;
    this.#finding = finding;
    this.#o.onFinding(finding);
    if (finding === null) {
      this.#saidMs = -Infinity;
      log.info({ shard }, 'nothing is known to be undelivered in the log any more');
      return;
    }
    const nowMs = timing.elapsedMs();
    if (nowMs - this.#saidMs < SAY_EVERY_MS) return;
    this.#saidMs = nowMs;
    log.error({ shard, ...finding }, tellUndelivered(this.#inner.name, shard, finding));
  }
}

function contradicting(facts: StreamFacts): Undelivered {
  const { lastSequence, contradiction } = facts;
  const from = Math.max(1, facts.firstSequence);
  // How many of them are new cannot be told.
  return {
    from,
    to: lastSequence,
    messages: Math.max(1, lastSequence - from + 1),
    reason: contradiction ?? '',
  };
}

function tellUndelivered(name: string, shard: number, { from, to, reason }: Undelivered): string {
  return (
    `${name} was acknowledged up to ${to}, but nothing can be read of it from ${from} on: ${reason}. Nothing of this ` +
    'shard is counted meanwhile; the journals of the edges keep what they hold. If NATS does not find the messages ' +
    `after a restart, have the log made anew: npx tallyline log replace --shard ${shard} (docs/operating.md tells ` +
    'what it takes and what it cannot bring back)'
  );
}
