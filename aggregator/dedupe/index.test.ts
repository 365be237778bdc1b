import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { RandomWords } from '../../bench/random-words.ts';
import { VERDICTS, type Verdict } from '../../contract/verdicts.ts';
import { EARLIER, positionInShard } from '../position-in-shard.ts';
import { COUNTED, decideBlock, unknownIn } from '../verdict.ts';
import { ABSENT, DedupeIndex } from './index.ts';

const hash = (value: number): Uint32Array => Uint32Array.of(value, value ^ 0xffff);

interface Told {
  /** Which identity. */
  readonly key: number;
  readonly payload: number;
}
interface Known {
  readonly position: number;
  readonly payload: number;
}

/**
 * A shard as the protocol has it: a log of blocks, what of it is durable, and an index that may ask for what is
 * durable and for nothing else. The model beside it is a Map from identity to what was counted first.
 */
class Shard {
  index: DedupeIndex;
  asked = 0;
  readonly #words: Uint32Array;
  readonly #identities: ReadonlyMap<string, number>;
  readonly #log: (readonly Told[])[] = [];
  readonly #model = new Map<number, Known>();
  /** What ClickHouse holds. */
  readonly #stored = new Map<number, Known>();
  #decided = 0;
  #durable = 0;

  constructor(words: Uint32Array, keysMax: number, filterBytesMax: number) {
    this.#words = words;
    this.#identities = new Map(
      Array.from({ length: words.length / 4 }, (_, key) => [
        words.subarray(key * 4, key * 4 + 4).join(),
        key,
      ]),
    );
    this.index = new DedupeIndex(keysMax, 0, filterBytesMax);
  }

  /** Asks for blocks together and decides them one by one; returns how the index and the model decided. */
  read(blocks: readonly (readonly Told[])[]): { decided: Verdict[]; expected: Verdict[] } {
    this.#log.push(...blocks);
    const decided: Verdict[] = [];
    const expected: Verdict[] = [];
    for (const block of blocks) this.#ask(block);
    for (const block of blocks) {
      const sequence = ++this.#decided;
      const verdicts = decideBlock(this.index, this.#columns(block), new Uint8Array(block.length), sequence);
      block.forEach(({ key, payload }, at) => {
        const position = positionInShard(sequence, at);
        const first = this.#model.get(key);
        if (first === undefined || first.position === position) {
          this.#model.set(key, { position, payload });
          expected.push('counted');
        } else expected.push(first.payload === payload ? 'duplicate' : 'conflict');
        decided.push(VERDICTS[verdicts[at]!]!);
      });
    }
    this.index.rotate(positionInShard(this.#durable + 1, 0) - 1);
    return { decided, expected };
  }

  /** A flush that ends `lag` blocks behind what was decided; rows come before the watermark, and a crash in between. */
  flush(lag: number, crashed: boolean): void {
    const to = Math.max(this.#durable, this.#decided - lag);
    for (const [key, known] of this.#model) {
      if (known.position < positionInShard(to + 1, 0)) this.#stored.set(key, known);
    }
    if (!crashed) this.#durable = to;
  }

  /** Starts again from the tables, and reads again what is behind the watermark: the same verdicts. */
  restart(
    keysMax: number,
    filterBytesMax: number,
    coldUpTo: number,
  ): { again: Verdict[]; expected: Verdict[] } {
    this.index = new DedupeIndex(keysMax, this.#stored.size, filterBytesMax);
    for (const [key, { position, payload }] of this.#stored) {
      if (position < coldUpTo) this.index.loadCold(this.#words, key * 4);
      else this.index.load(this.#words, key * 4, position, hash(payload), 0);
    }
    const behind = this.#log.splice(this.#durable);
    this.#decided = this.#durable;
    for (const [key, { position }] of this.#model) {
      if (position >= positionInShard(this.#durable + 1, 0)) this.#model.delete(key);
    }
    const { decided, expected } = this.read(behind);
    return { again: decided, expected };
  }

  #ask(block: readonly Told[]): void {
    for (const at of unknownIn(this.index, this.#columns(block))) {
      this.asked += 1;
      const { key } = block[at]!;
      const known = this.#stored.get(key);
      if (known !== undefined) this.index.put(this.#words, key * 4, known.position, hash(known.payload), 0);
    }
  }

  #columns(block: readonly Told[]) {
    const identity = new Uint32Array(block.length * 4);
    const payloadHash = new Uint32Array(block.length * 2);
    block.forEach(({ key, payload }, at) => {
      identity.set(this.#words.subarray(key * 4, key * 4 + 4), at * 4);
      payloadHash.set(hash(payload), at * 2);
    });
    return { count: block.length, identity, payloadHash };
  }

  get identities(): number {
    return this.#identities.size;
  }
}

const KEYS = 300;
const told = fc.record({ key: fc.nat(KEYS - 1), payload: fc.nat(1) });
const group = fc.array(fc.array(told, { maxLength: 12 }), { minLength: 1, maxLength: 4 });
const turn = fc.record({
  blocks: group,
  flush: fc.option(fc.record({ lag: fc.nat(3), crashed: fc.boolean() })),
  restart: fc.option(fc.integer({ min: -2, max: 60 }), { freq: 6 }),
});

describe('the dedupe index', () => {
  test('decides as a Map does, at any bounds, through rotation, draining, asking, flushing and starting again', () => {
    let asked = 0;
    let cold = 0;
    fc.assert(
      fc.property(
        fc.integer(),
        fc.constantFrom(1, 3, 9, 30, 90, 100_000),
        fc.constantFrom(0, 64, 1_024, 65_536),
        fc.array(turn, { minLength: 1, maxLength: 60, size: 'max' }),
        (seed, keysMax, filterBytesMax, turns) => {
          const shard = new Shard(new RandomWords(seed).some(KEYS), keysMax, filterBytesMax);
          expect(shard.identities).toBe(KEYS);
          for (const { blocks, flush, restart } of turns) {
            const { decided, expected } = shard.read(blocks);
            expect(decided).toEqual(expected);
            if (flush !== null) shard.flush(flush.lag, flush.crashed);
            if (restart !== null) {
              const coldUpTo = positionInShard(restart, 0);
              const { again, expected: same } = shard.restart(keysMax, filterBytesMax, coldUpTo);
              expect(again).toEqual(same);
            }
          }
          asked += shard.asked;
          cold += shard.index.cold.size;
        },
      ),
      { numRuns: 300 },
    );
    // Or the property would hold for an index that keeps everything.
    expect(asked).toBeGreaterThan(1_000);
    expect(cold).toBeGreaterThan(1_000);
  }, 60_000);

  test('holds its bound, and asks for next to nothing that is new', () => {
    const keysMax = 6_000;
    const index = new DedupeIndex(keysMax, 0, 1024 ** 2);
    const random = new RandomWords(11);
    const words = random.some(50_000);
    let largest = 0;
    let asked = 0;
    for (let key = 0; key < 50_000; key++) {
      if (index.unknown(words, key * 4)) asked += 1;
      index.put(words, key * 4, key, hash(0), 0);
      if (key % 100 !== 99) continue;
      index.rotate(key);
      largest = Math.max(largest, index.size);
    }
    expect(largest).toBeLessThanOrEqual(keysMax + 100);
    expect(index.size + index.cold.size).toBeGreaterThanOrEqual(50_000 - 50);
    expect(asked).toBeLessThan(250);
    for (let key = 0; key < 50_000; key++) {
      if (index.look(words, key * 4) === ABSENT && !index.unknown(words, key * 4))
        throw new Error(`key ${key} was forgotten`);
    }
  });

  test('keeps what is not durable, whatever the bound, and catches up when it is', () => {
    const index = new DedupeIndex(300);
    const words = new RandomWords(12).some(5_000);
    for (let key = 0; key < 5_000; key++) {
      index.put(words, key * 4, key, hash(0), 0);
      if (key % 50 === 49) index.rotate(-1);
    }
    expect(index.size).toBe(5_000);
    expect(index.complete).toBe(true);
    for (let block = 0; block < 40; block++) index.rotate(5_000);
    expect(index.size).toBeLessThanOrEqual(300);
    expect(index.complete).toBe(false);
  });

  test('no block waits for more than a few keys of the cold tier', () => {
    const index = new DedupeIndex(30_000);
    const words = new RandomWords(13).some(60_000);
    let largest = 0;
    for (let key = 0; key < 60_000; key++) {
      index.put(words, key * 4, key, hash(0), 0);
      if (key % 100 !== 99) continue;
      const before = index.cold.size;
      index.rotate(key);
      largest = Math.max(largest, index.cold.size - before);
    }
    expect(largest).toBeGreaterThan(0);
    expect(largest).toBeLessThanOrEqual(2 * 100 + 64);
  });

  test('an entry keeps its smallest position, whatever the order', () => {
    const index = new DedupeIndex(100);
    const words = new RandomWords(1).some(1);
    index.put(words, 0, 70, hash(1), 0);
    index.put(words, 0, 90, hash(2), 0);
    index.put(words, 0, 50, hash(3), 0);
    expect(index.look(words, 0)).toBe(50);
    expect(index.samePayload(hash(3), 0)).toBe(true);
    index.put(words, 0, EARLIER, hash(4), 0);
    expect(index.look(words, 0)).toBe(EARLIER);
  });

  test('what was loaded beyond the hot bound is asked for', () => {
    const index = new DedupeIndex(30, 100);
    const words = new RandomWords(2).some(101);
    for (let key = 0; key < 100; key++) index.load(words, key * 4, key, hash(0), 0);
    expect(index.size).toBe(10);
    for (let key = 0; key < 100; key++) {
      expect(index.unknown(words, key * 4)).toBe(key >= 10);
    }
    const block = { count: 1, identity: words.slice(400), payloadHash: hash(0) };
    expect(unknownIn(index, block)).toEqual([]);
    expect([...decideBlock(index, block, new Uint8Array(1), 1)]).toEqual([COUNTED]);
  });
});
