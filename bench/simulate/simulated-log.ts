/** The log of one shard, as a broker has it that may lose what it has not synced, and more. */
import { crc32 } from 'node:zlib';
import { sameMark, type LogMark, type StoredMessage, type StreamFacts } from '../../aggregator/log-mark.ts';
import {
  LogError,
  type LogIdentity,
  type PulledMessage,
  type ReadOptions,
  type ShardLog,
} from '../../aggregator/ports.ts';
import type { Publication } from './producer.ts';
import type { Life, World } from './world.ts';

export interface Stored extends LogMark {
  readonly publication: Publication;
}

export class SimulatedLog {
  readonly shard: number;
  readonly #world: World;
  exists = true;
  created = 'first';
  /** From `firstSequence` on; undefined where one is missing. */
  messages: (Stored | undefined)[] = [];
  firstSequence = 1;
  /** Readers notice when it rises: their connection is gone. */
  session = 0;
  syncedTo = 0;
  #generation = 1;

  constructor(shard: number, world: World) {
    this.shard = shard;
    this.#world = world;
  }

  get name(): string {
    return `LOG_${this.shard}`;
  }

  get lastSequence(): number {
    return this.firstSequence + this.messages.length - 1;
  }

  at(sequence: number): Stored | undefined {
    return this.messages[sequence - this.firstSequence];
  }

  /** The first message from one sequence to another, both included. */
  firstIn(from: number, to: number): Stored | undefined {
    for (let at = Math.max(from, this.firstSequence); at <= Math.min(to, this.lastSequence); at++) {
      const stored = this.at(at);
      if (stored !== undefined) return stored;
    }
    return undefined;
  }

  /** Appends; false when there is no stream. */
  append(publication: Publication): boolean {
    if (!this.exists) return false;
    const sequence = this.lastSequence + 1;
    this.messages.push({
      sequence,
      timeMs: this.#world.nowMs,
      checksum: crc32(publication.message),
      publication,
    });
    this.#world.tell(`log ${this.shard} has ${publication.what} at ${sequence}`);
    return true;
  }

  sync(): void {
    this.syncedTo = this.lastSequence;
  }

  /** The broker comes back with less. */
  cutBack(lastSequence: number): void {
    this.#world.tell(`log ${this.shard} is cut back from ${this.lastSequence} to ${lastSequence}`);
    this.messages.length = Math.max(0, lastSequence - this.firstSequence + 1);
    this.#restarted();
  }

  /** The broker comes back with what it had at another time. */
  bringBack(messages: readonly (Stored | undefined)[], firstSequence: number): void {
    this.messages = [...messages];
    this.firstSequence = firstSequence;
    this.#world.tell(`log ${this.shard} is as it was, up to ${this.lastSequence}`);
    this.#restarted();
  }

  /** The broker comes back, and messages in the middle are missing: a block of its storage was lost. */
  pierce(from: number, count: number): void {
    const first = Math.max(from, this.firstSequence + 1);
    // The first and the last it always has: their numbers are what it goes by.
    const end = Math.min(from + count, this.lastSequence);
    if (first >= end) return;
    this.#world.tell(`log ${this.shard} misses ${first} to ${end - 1}`);
    this.messages.fill(undefined, first - this.firstSequence, end - this.firstSequence);
    this.#restarted();
  }

  disconnect(): void {
    this.session += 1;
  }

  remove(): void {
    this.#world.tell(`log ${this.shard} is removed`);
    this.exists = false;
    this.#restarted();
  }

  make(): void {
    if (this.exists) return;
    this.exists = true;
    this.messages = [];
    this.firstSequence = 1;
    this.syncedTo = 0;
    this.created = `generation ${++this.#generation}`;
    this.#world.tell(`log ${this.shard} is made anew`);
  }

  purge(before: number): number {
    // The broker never forgets beyond its end.
    const count = Math.min(this.messages.length, Math.max(0, before - this.firstSequence));
    this.messages.splice(0, count);
    this.firstSequence += count;
    return count;
  }

  #restarted(): void {
    this.session += 1;
    this.syncedTo = Math.min(this.syncedTo, this.lastSequence);
    // A broker takes longer than a millisecond to come back: no two messages of a sequence have one time.
    this.#world.nowMs += 1_000;
  }
}

function messageOf({ sequence, timeMs, checksum, publication }: Stored): StoredMessage {
  return { sequence, timeMs, checksum, message: publication.message };
}

/** The log as a life sees it. Every delivery is noted, for the model. */
export class LogOfLife implements ShardLog {
  readonly name: string;
  /** What it was given last, by sequence; null where it was given none, and the next one. */
  readonly delivered = new Map<number, Publication | null>();
  readonly #log: SimulatedLog;
  readonly #life: Life;
  readonly #world: World;

  constructor(log: SimulatedLog, life: Life, world: World) {
    this.name = log.name;
    this.#log = log;
    this.#life = life;
    this.#world = world;
  }

  facts(): Promise<StreamFacts> {
    return this.#ask('facts', ({ name, created, firstSequence, lastSequence }) => ({
      name,
      created,
      firstSequence,
      lastSequence,
    }));
  }

  messageAt(sequence: number): Promise<StoredMessage | null> {
    return this.#ask(`message at ${sequence}`, (log) => {
      const stored = log.at(sequence);
      return stored === undefined ? null : messageOf(stored);
    });
  }

  messageFrom(sequence: number, until: number): Promise<StoredMessage | null> {
    return this.#ask(`message from ${sequence} to ${until}`, (log) => {
      const stored = log.firstIn(sequence, until);
      return stored === undefined ? null : messageOf(stored);
    });
  }

  size() {
    return this.#ask('size', ({ messages, firstSequence }) => ({
      bytes: messages.length * 100,
      bytesMax: 800,
      messages: messages.length,
      firstSequence,
    }));
  }

  purge(before: number, { created, has, lacks }: LogIdentity): Promise<number | null> {
    return this.#ask(`purge before ${before}`, (log) => {
      const there = log.at(has.sequence);
      const isSame = log.created === created && there !== undefined && sameMark(there, has);
      const again = lacks.some(({ from, to }) => log.firstIn(from, to) !== undefined);
      return isSame && !again ? log.purge(before) : null;
    });
  }

  /** Makes the stream when there is none. */
  ensure(): Promise<void> {
    return this.#world.ask(this.#life, `make ${this.name}`, () => this.#log.make());
  }

  tell(): void {}

  async *read({ from, signal, onPosition }: ReadOptions): AsyncGenerator<PulledMessage, void, void> {
    const log = this.#log;
    let next = from;
    let created: string | undefined;
    while (!signal.aborted) {
      let session: number;
      try {
        session = await this.#ask(`reads ${this.name} from ${next}`, () => {
          created ??= log.created;
          if (log.created !== created || log.lastSequence < next - 1)
            throw new LogError('rewound', `${log.name} ends at ${log.lastSequence}`);
          return log.session;
        });
      } catch (error) {
        if (!(error instanceof LogError) || error.kind !== 'away') throw error;
        continue;
      }
      onPosition();
      for (;;) {
        const fetched = await this.#world.wait(
          this.#life,
          `fetches from ${next}`,
          () => log.session !== session || log.lastSequence >= next,
          signal,
          () => (log.session === session ? this.#fetch(next) : null),
        );
        if (fetched === undefined) return;
        if (fetched === null) break;
        for (const { sequence, timeMs, publication } of fetched) {
          for (; next < sequence; next++) this.delivered.set(next, null);
          next = sequence + 1;
          this.delivered.set(sequence, publication);
          yield { sequence, timeMs, data: publication.message };
          if (signal.aborted) return;
        }
      }
    }
  }

  #fetch(next: number): Stored[] {
    const log = this.#log;
    const from = Math.max(next, log.firstSequence) - log.firstSequence;
    const present = log.messages.slice(from).filter((one) => one !== undefined);
    return present.slice(0, this.#world.dice.between(1, 4));
  }

  #ask<T>(what: string, answer: (log: SimulatedLog) => T): Promise<T> {
    return this.#world.ask(
      this.#life,
      what,
      () => {
        if (!this.#log.exists) throw new LogError('gone', `${this.name} does not exist`);
        return answer(this.#log);
      },
      () => new LogError('away', 'no connection'),
    );
  }
}
