import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { RandomWords } from '../../bench/random-words.ts';
import { EARLIER, positionInShard } from '../position-in-shard.ts';
import type { Corrections } from '../prepare.ts';
import { CONFLICT, COUNTED, decideBlock, DUPLICATE } from '../verdict.ts';
import { ABSENT, DedupeIndex } from './index.ts';

// The kernel and the reference, side by side, given the same blocks: the verdicts, what corrections are refused for,
// and what of every key is known afterwards are the same.

const KEYS = 400;
const hash = (value: number): Uint32Array => Uint32Array.of(value, value ^ 0xffff);

interface Told {
  readonly key: number;
  readonly payload: number;
  readonly refused: boolean;
  /** The key that it corrects. */
  readonly corrects: number | null;
}
const told = fc.record({
  key: fc.nat(KEYS - 1),
  payload: fc.nat(1),
  refused: fc.nat(9).map((one) => one === 0),
  corrects: fc.option(fc.nat(KEYS - 1), { freq: 20 }),
});
type Step =
  | { readonly kind: 'block'; readonly events: readonly Told[]; readonly skipped: number }
  /** Blocks that were decided are read again, from so many before the end. */
  | { readonly kind: 'replay'; readonly back: number }
  /** What ClickHouse, or a flush that crashed, knows: EARLIER, long ago, or so many messages ahead. */
  | { readonly kind: 'put'; readonly key: number; readonly payload: number; readonly ahead: number | null }
  | { readonly kind: 'seal' }
  | { readonly kind: 'rotate' };
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant('block' as const),
      events: fc.array(told, { maxLength: 150, size: 'max' }),
      // Now and then a log goes on far beyond what 24 bits of sequence can tell.
      skipped: fc.oneof({ weight: 12, arbitrary: fc.constant(1) }, fc.constant(2 ** 25)),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('replay' as const), back: fc.integer({ min: 1, max: 4 }) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('put' as const),
      key: fc.nat(KEYS - 1),
      payload: fc.nat(1),
      ahead: fc.constantFrom(null, -(2 ** 36), -1, 2, 2 ** 30),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('seal' as const) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('rotate' as const) }) },
);

/** Random, or told apart by one word alone, or by few bits of two. */
const KINDS = [
  new RandomWords(1).some(KEYS),
  ...[0, 1, 2, 3].map((word) => keysBy((key, at) => (at === word ? key : 0))),
  ...[0, 1, 2, 3].map((word) => keysBy((key, at) => (at === word ? key << 23 : 7))),
  keysBy((key, at) => (at === 0 ? (key & 15) << 10 : at === 2 ? key >>> 4 : 0xffff_ffff)),
];
function keysBy(word: (key: number, at: number) => number): Uint32Array {
  return Uint32Array.from({ length: KEYS * 4 }, (_, at) => word(at >>> 2, at & 3) >>> 0);
}

function decide(index: DedupeIndex, keys: Uint32Array, events: readonly Told[], sequence: number) {
  const column = (values: readonly number[]): Uint32Array<ArrayBuffer> =>
    Uint32Array.from(values.flatMap((key) => [...keys.subarray(key * 4, key * 4 + 4)]));
  const block = {
    count: events.length,
    identity: column(events.map(({ key }) => key)),
    payloadHash: Uint32Array.from(events.flatMap(({ payload }) => [...hash(payload)])),
  };
  const correcting = events.flatMap(({ corrects }, at) => (corrects === null ? [] : [at]));
  const corrections: Corrections | null =
    correcting.length === 0
      ? null
      : { events: correcting, targets: column(correcting.map((at) => events[at]!.corrects!)) };
  const refused = Uint8Array.from(events, (one) => (one.refused ? 1 : 0));
  const verdicts = decideBlock(index, block, refused, sequence, corrections);
  return { verdicts: [...verdicts], refused: [...refused] };
}

describe('the kernel', () => {
  test('decides as the reference does, whatever comes, and knows the same afterwards', () => {
    fc.assert(
      fc.property(
        fc.nat(KINDS.length - 1),
        fc.constantFrom(1, 6, 60, 300, 30_000, 4 * 2 ** 20),
        fc.array(step, { minLength: 1, maxLength: 40, size: 'max' }),
        (kind, keysMax, steps) => {
          const keys = KINDS[kind]!;
          const kernel = new DedupeIndex(keysMax, 0, 0);
          const reference = new DedupeIndex(keysMax, 0, 0, 0);
          const log: { events: readonly Told[]; sequence: number }[] = [];
          let sequence = 2 ** 36;
          const both = (events: readonly Told[], at: number): void => {
            expect(decide(kernel, keys, events, at)).toEqual(decide(reference, keys, events, at));
          };
          for (const one of steps) {
            if (one.kind === 'block') {
              sequence += one.skipped;
              log.push({ events: one.events, sequence });
              both(one.events, sequence);
            } else if (one.kind === 'replay') {
              for (const { events, sequence: again } of log.slice(-one.back)) both(events, again);
            } else if (one.kind === 'put') {
              const position = one.ahead === null ? EARLIER : positionInShard(sequence + one.ahead, 3);
              // As all who put do: only what is not there, or not before it.
              const known = reference.look(keys, one.key * 4);
              if (known !== ABSENT && known <= position) continue;
              for (const index of [kernel, reference])
                index.put(keys, one.key * 4, position, hash(one.payload), 0);
            } else if (one.kind === 'seal') {
              for (const index of [kernel, reference]) index.seal();
            } else {
              // Nothing is durable, so none is drained: both keep all keys, and nobody has to be asked.
              for (const index of [kernel, reference]) index.rotate(EARLIER - 1);
            }
          }
          for (let key = 0; key < KEYS; key++) {
            const known = reference.look(keys, key * 4);
            expect(kernel.look(keys, key * 4)).toBe(known);
            if (known !== ABSENT)
              expect(kernel.samePayload(hash(1), 0)).toBe(reference.samePayload(hash(1), 0));
          }
        },
      ),
      { numRuns: 150 },
    );
  }, 120_000);

  test.each([63, 64, 65, 2_047, 2_048, 2_049, 65_536])('takes a block of %i events whole', (count) => {
    const index = new DedupeIndex(3_000_000);
    const identity = new RandomWords(count).some(count);
    // Every tenth repeats the first of its block, every twentieth with another payload.
    const payloadHash = new Uint32Array(count * 2);
    const expected = new Uint8Array(count).fill(COUNTED);
    for (let at = 10; at < count; at += 10) {
      identity.copyWithin(at * 4, 0, 4);
      payloadHash[at * 2 + 1] = at % 20 === 0 ? 1 : 0;
      expected[at] = at % 20 === 0 ? CONFLICT : DUPLICATE;
    }
    const block = { count, identity, payloadHash };
    expect(index.decide(block, new Uint8Array(count), new Uint8Array(count), 9, 0, count)).toBe(count);
    expect(decideBlock(index, block, new Uint8Array(count), 9)).toEqual(expected);
    expect(decideBlock(index, block, new Uint8Array(count), 10)).toEqual(
      expected.map((verdict) => (verdict === CONFLICT ? CONFLICT : DUPLICATE)),
    );
  });

  test('leaves what it cannot decide to the reference, and takes up behind it', () => {
    const index = new DedupeIndex(30);
    const identity = new RandomWords(8).some(300);
    const payloadHash = new Uint32Array(600);
    const block = { count: 300, identity, payloadHash };
    // More than a generation holds: it is sealed in the middle of the block.
    expect([...decideBlock(index, block, new Uint8Array(300), 1)]).toEqual(Array(300).fill(COUNTED));
    expect([...decideBlock(index, block, new Uint8Array(300), 1)]).toEqual(Array(300).fill(COUNTED));
    expect([...decideBlock(index, block, new Uint8Array(300), 2)]).toEqual(Array(300).fill(DUPLICATE));
    expect(index.size).toBe(300);
  });

  test('drains, gives memory back and takes it again without forgetting or taking more', () => {
    const keysMax = 9_000;
    const index = new DedupeIndex(keysMax, 0, 1024 ** 2);
    const random = new RandomWords(6);
    const seen: Uint32Array[] = [];
    let bytesMax = 0;
    for (let sequence = 1; sequence <= 400; sequence++) {
      const identity = random.some(100);
      seen.push(identity);
      const block = { count: 100, identity, payloadHash: new Uint32Array(200) };
      expect([...decideBlock(index, block, new Uint8Array(100), sequence)]).toEqual(Array(100).fill(COUNTED));
      index.rotate(positionInShard(sequence + 1, 0) - 1);
      bytesMax = Math.max(bytesMax, index.bytes);
      expect(index.size).toBeLessThanOrEqual(keysMax + 100);
    }
    expect(bytesMax / keysMax).toBeLessThan(36);
    for (const identity of seen) {
      for (let at = 0; at < identity.length; at += 4) {
        if (index.look(identity, at) < 0 && !index.unknown(identity, at))
          throw new Error('a key was forgotten');
      }
    }
  });
});
