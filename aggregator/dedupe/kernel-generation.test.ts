import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { RandomWords } from '../../bench/random-words.ts';
import { EARLIER, positionInShard } from '../position-in-shard.ts';
import { Generation, NONE, type ExactKeys } from './generation.ts';
import { KernelGeneration } from './kernel-generation.ts';
import { KERNEL_BYTES_MAX, KernelMemory } from './kernel-memory.ts';

const hash = (value: number): Uint32Array => Uint32Array.of(value, value ^ 0xffff);
const inKernel = (keys: number, memory = new KernelMemory(KERNEL_BYTES_MAX)): KernelGeneration =>
  KernelGeneration.in(memory, keys)!;

/** Words few of which differ, and in few bits, as no keyed hash makes them: all zeros, equal words, one bit apart. */
const hostileWord = fc.constantFrom(
  0,
  1,
  0xff,
  0x100,
  0x300,
  0xffff,
  0x1_0000,
  0x00ff_0000,
  0x0100_0000,
  0xffff_ffff,
);
const hostile = fc.tuple(hostileWord, hostileWord, hostileWord, hostileWord);
/** Also what does not fit beside the first one: from the first message of a log to the last that it can have. */
const position = fc.oneof(
  fc.constant(EARLIER),
  fc.nat(200_000),
  fc.integer({ min: 0, max: 2 ** 37 - 1 }).map((sequence) => positionInShard(sequence, 65_535)),
);

function same(
  kernel: ExactKeys,
  reference: ExactKeys,
  words: Uint32Array,
  payloads: readonly number[],
): void {
  const entry = kernel.find(words, 0);
  const known = reference.find(words, 0);
  expect(entry === NONE).toBe(known === NONE);
  if (known === NONE) return;
  expect(kernel.positionOf(entry)).toBe(reference.positionOf(known));
  for (const payload of payloads)
    expect(kernel.samePayload(entry, hash(payload), 0)).toBe(reference.samePayload(known, hash(payload), 0));
}

function identitiesOf(generation: ExactKeys, each: number): string[] {
  const found: string[] = [];
  for (;;) {
    const handed = generation.handOver(each, (words, at) => found.push(words.slice(at, at + 4).join()));
    if (handed === 0) return found.sort();
    expect(handed).toBeLessThanOrEqual(each);
  }
}

describe('a generation in the kernel', () => {
  test('holds what the reference holds, of hostile identities at any positions', () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ words: hostile, position, payload: fc.nat(3) }), {
          maxLength: 400,
          size: 'max',
        }),
        // One segment, and 256 of them, where the first byte is in no entry.
        fc.constantFrom(2_000, 2 ** 20),
        fc.array(hostile, { maxLength: 50 }),
        fc.integer({ min: 1, max: 100 }),
        (puts, keys, others, each) => {
          const kernel = inKernel(keys);
          const reference = new Generation(keys);
          for (const { words, position, payload } of puts) {
            const key = Uint32Array.from(words);
            expect(kernel.put(key, 0, position, hash(payload), 0)).toBe(true);
            reference.put(key, 0, position, hash(payload), 0);
          }
          expect(kernel.size).toBe(reference.size);
          expect(kernel.newest).toBe(reference.newest);
          for (const { words } of puts) same(kernel, reference, Uint32Array.from(words), [0, 1, 2, 3]);
          for (const words of others) same(kernel, reference, Uint32Array.from(words), [0]);
          expect(identitiesOf(kernel, each)).toEqual(identitiesOf(reference, each));
        },
      ),
      { numRuns: 150 },
    );
  }, 60_000);

  test.each([1_000, 40_000, 2 ** 20])('of %i keys takes all of them, and denies others', (keys) => {
    const kernel = inKernel(keys);
    const words = new RandomWords(keys).some(keys + 20_000);
    for (let key = 0; key < keys; key++) {
      if (!kernel.put(words, key * 4, key, hash(key), 0)) throw new Error(`no room for key ${key}`);
    }
    expect(kernel.size).toBe(keys);
    for (let key = 0; key < keys; key++) {
      const entry = kernel.find(words, key * 4);
      if (kernel.positionOf(entry) !== key || !kernel.samePayload(entry, hash(key), 0))
        throw new Error(`key ${key} is not as it was put`);
    }
    for (let key = keys; key < keys + 20_000; key++) {
      if (kernel.find(words, key * 4) !== NONE) throw new Error(`key ${key} was never put`);
    }
    expect(kernel.bytes / keys).toBeLessThan(32.1);
  });

  test('that is full says so, and holds what it has', () => {
    // All of one segment, as no keyed hash spreads them.
    const kernel = inKernel(2 ** 20);
    const words = new RandomWords(3).some(10_000);
    let taken = 0;
    for (let key = 0; key < 10_000; key++) {
      words[key * 4] = (words[key * 4]! & 0xff_ffff) >>> 0;
      if (kernel.put(words, key * 4, key, hash(0), 0)) taken += 1;
    }
    expect(taken).toBeGreaterThan(4_096);
    expect(taken).toBeLessThan(5_000);
    for (let key = 0; key < 10_000; key++) expect(kernel.find(words, key * 4) !== NONE).toBe(key < taken);
  });

  test('begins empty in memory that another one gave back, however much of that was cleaned', () => {
    const memory = new KernelMemory(KERNEL_BYTES_MAX);
    const words = new RandomWords(4).some(5_000);
    for (const cleaned of [0, 1_000, 10_000_000]) {
      const before = inKernel(5_000, memory);
      for (let key = 0; key < 5_000; key++) before.put(words, key * 4, key, hash(1), 0);
      before.release();
      expect(memory.spareBytes).toBeGreaterThan(5_000 * 30);
      memory.clean(cleaned);
      const after = inKernel(5_000, memory);
      expect(after.address).toBe(before.address);
      expect(memory.spareBytes).toBe(0);
      expect([after.size, after.newest]).toEqual([0, EARLIER]);
      for (let key = 0; key < 5_000; key++) expect(after.find(words, key * 4)).toBe(NONE);
      expect(identitiesOf(after, 100)).toEqual([]);
      after.release();
    }
  });

  test('is not to be had where the memory ends', () => {
    const bytes = KernelGeneration.bytesFor(5_000);
    const memory = new KernelMemory(bytes * 2 + 2 ** 17);
    const words = new RandomWords(5).some(1);
    const some = [0, 1].map(() => inKernel(5_000, memory));
    expect(KernelGeneration.in(memory, 5_000)).toBe(null);
    some[0]!.put(words, 0, 7, hash(1), 0);
    expect(some[0]!.positionOf(some[0]!.find(words, 0))).toBe(7);
    some[1]!.release();
    expect(KernelGeneration.in(memory, 5_000)).not.toBe(null);
  });
});
