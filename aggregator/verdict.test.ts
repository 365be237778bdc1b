import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { VERDICTS, type Verdict } from '../contract/verdicts.ts';
import { DedupeIndex } from './dedupe/index.ts';
import { EARLIER, positionInShard } from './position-in-shard.ts';
import { REFUSALS, TARGET_UNKNOWN, type Corrections } from './prepare.ts';
import { decideBlock, oldestOriginal, unknownIn, unknownTargets } from './verdict.ts';

/** An event as [identity, payload], with `!` behind the identity when a meter refuses it. */
type Told = readonly [string, number];

function decide(index: DedupeIndex, sequence: number, events: readonly Told[]): Verdict[] {
  const block = blockOf(events);
  const refused = Uint8Array.from(events, ([id]) => (id.endsWith('!') ? 1 : 0));
  return Array.from(decideBlock(index, block, refused, sequence), (verdict) => VERDICTS[verdict]!);
}

function blockOf(events: readonly Told[]) {
  const identity = new Uint32Array(events.length * 4);
  const payloadHash = new Uint32Array(events.length * 2);
  events.forEach(([id, payload], at) => {
    identity[at * 4] = id.charCodeAt(0);
    payloadHash[at * 2] = payload;
  });
  return { count: events.length, identity, payloadHash };
}

describe('verdicts', () => {
  const cases: readonly [string, readonly (readonly Told[])[], readonly (readonly Verdict[])[]][] = [
    [
      'the first of its identity counts',
      [
        [
          ['a', 1],
          ['b', 1],
        ],
      ],
      [['counted', 'counted']],
    ],
    [
      'again in the same block',
      [
        [
          ['a', 1],
          ['a', 1],
        ],
      ],
      [['counted', 'duplicate']],
    ],
    ['again in a later block', [[['a', 1]], [['a', 1]]], [['counted'], ['duplicate']]],
    [
      'another payload',
      [
        [
          ['a', 1],
          ['a', 2],
          ['a', 1],
        ],
      ],
      [['counted', 'conflict', 'duplicate']],
    ],
    [
      'refused, and refused again',
      [
        [
          ['a!', 1],
          ['a!', 1],
        ],
      ],
      [['rejected', 'rejected']],
    ],
    [
      'refused, then corrected',
      [
        [
          ['a!', 1],
          ['a', 2],
        ],
      ],
      [['rejected', 'counted']],
    ],
    ['counted before a meter would refuse it', [[['a', 1]], [['a!', 1]]], [['counted'], ['duplicate']]],
  ];
  test.each(cases)('%s', (_, blocks, expected) => {
    const index = new DedupeIndex(100);
    expect(blocks.map((events, at) => decide(index, at + 1, events))).toEqual(expected);
  });

  test('a replay from any earlier block decides the same again', () => {
    const event = fc.tuple(fc.constantFrom('a', 'b', 'c', 'd', 'e', 'a!', 'b!', 'f!'), fc.nat(2));
    const log = fc.array(fc.array(event, { maxLength: 6 }), { minLength: 1, maxLength: 12 });
    fc.assert(
      fc.property(log, fc.nat(11), (blocks, from) => {
        const index = new DedupeIndex(100);
        const first = blocks.map((events, at) => decide(index, at + 1, events));
        const again = blocks.slice(from).map((events, at) => decide(index, from + at + 1, events));
        expect(again).toEqual(first.slice(from));
      }),
    );
  });

  test('an index that forgot decides the same once the unknown were looked up', () => {
    const event = fc.tuple(fc.constantFrom(...'abcdefghij'), fc.nat(1));
    const log = fc.array(fc.array(event, { minLength: 1, maxLength: 5 }), { minLength: 1, maxLength: 40 });
    fc.assert(
      fc.property(log, (blocks) => {
        const whole = new DedupeIndex(1_000);
        const tiny = new DedupeIndex(4);
        // What ClickHouse would hold: the first position and payload of every counted identity.
        const stored = new Map<number, { position: number; payload: number }>();
        blocks.forEach((events, at) => {
          const sequence = at + 1;
          const expected = decide(whole, sequence, events);
          const block = blockOf(events);
          if (!tiny.complete) {
            for (const unknown of unknownIn(tiny, block)) {
              const known = stored.get(block.identity[unknown * 4]!);
              if (known === undefined) continue;
              tiny.put(block.identity, unknown * 4, known.position, Uint32Array.of(known.payload, 0), 0);
            }
          }
          expect(decide(tiny, sequence, events)).toEqual(expected);
          events.forEach(([id, payload], index) => {
            if (expected[index] === 'counted')
              stored.set(id.charCodeAt(0), { position: sequence * 65_536 + index, payload });
          });
          tiny.rotate(sequence * 65_536 + 65_535);
        });
      }),
    );
  });
});

describe('corrections', () => {
  /** An event as one letter; a correction as its own letter and that of its target, such as `v>a`. */
  const decideTold = (index: DedupeIndex, sequence: number, told: readonly string[], refusing = '') => {
    const block = blockOf(told.map((one) => [one, 1]));
    const corrections = correctionsOf(told);
    const refused = Uint8Array.from(told, (one) => (refusing.includes(one[0]!) ? 1 : 0));
    const verdicts = decideBlock(index, block, refused, sequence, corrections);
    const said = Array.from(verdicts, (verdict, at) =>
      VERDICTS[verdict] === 'rejected' ? REFUSALS[refused[at]! - 1]! : VERDICTS[verdict]!,
    );
    return { said, oldest: corrections === null ? null : oldestOriginal(index, corrections, verdicts) };
  };
  const correctionsOf = (told: readonly string[]): Corrections | null => {
    const events = told.flatMap((one, at) => (one.length > 1 ? [at] : []));
    const targets = events.flatMap((at) => [told[at]!.charCodeAt(2), 0, 0, 0]);
    return events.length === 0 ? null : { events, targets: Uint32Array.from(targets) };
  };
  const unknown = 'correction_target_unknown';
  const cases: readonly [string, readonly (readonly string[])[], readonly (readonly string[])[]][] = [
    ['of an event before it', [['a'], ['v>a']], [['counted'], ['counted']]],
    ['of an event of its own message', [['a', 'v>a']], [['counted', 'counted']]],
    ['of an event behind it', [['v>a', 'a']], [[unknown, 'counted']]],
    ['of nothing, and again behind it', [['v>a'], ['a'], ['v>a']], [[unknown], ['counted'], ['counted']]],
    ['again', [['a', 'v>a', 'v>a'], ['v>a']], [['counted', 'counted', 'duplicate'], ['duplicate']]],
    ['of a correction that counts too', [['a', 'v>a', 'w>a']], [['counted', 'counted', 'counted']]],
    ['of a refused event', [['z'], ['v>z']], [['meter_value_missing'], [unknown]]],
    ['that a meter refuses', [['a', 'z>a']], [['counted', 'meter_value_missing']]],
    ['of itself', [['v>v']], [[unknown]]],
  ];
  test.each(cases)('%s', (_, blocks, expected) => {
    const index = new DedupeIndex(100);
    expect(blocks.map((told, at) => decideTold(index, at + 1, told, 'z').said)).toEqual(expected);
  });

  test('the oldest original that a counted one names is told', () => {
    const index = new DedupeIndex(100);
    expect(decideTold(index, 1, ['a', 'b'])).toMatchObject({ oldest: null });
    expect(decideTold(index, 2, ['v>b', 'w>c'])).toMatchObject({ oldest: positionInShard(1, 1) });
    expect(decideTold(index, 3, ['c', 'w>c', 'x>b'])).toMatchObject({ oldest: positionInShard(1, 1) });
    expect(decideTold(index, 4, ['v>b', 'y>q'])).toMatchObject({ oldest: null });
    index.put(Uint32Array.of('q'.charCodeAt(0), 0, 0, 0), 0, EARLIER, Uint32Array.of(1, 0), 0);
    expect(decideTold(index, 5, ['y>q', 'z>c'])).toMatchObject({ oldest: EARLIER });
  });

  test('an original that a crashed flush left behind the watermark does not count before its place', () => {
    const index = new DedupeIndex(100);
    const block = blockOf([['a', 1]]);
    index.put(block.identity, 0, positionInShard(9, 0), block.payloadHash, 0);
    expect(decideTold(index, 4, ['v>a']).said).toEqual([unknown]);
    expect(decideTold(index, 9, ['a']).said).toEqual(['counted']);
    expect(decideTold(index, 10, ['v>a']).said).toEqual(['counted']);
  });

  test('a target that the index may have forgotten is asked for', () => {
    const index = new DedupeIndex(4);
    for (let sequence = 1; sequence < 40; sequence++) {
      decideTold(index, sequence, [String.fromCharCode(200 + sequence)]);
      index.rotate(positionInShard(sequence, 0));
    }
    const corrections = correctionsOf([`v>${String.fromCharCode(201)}`, `w>${String.fromCharCode(239)}`])!;
    expect(unknownTargets(index, corrections)).toEqual([0]);
  });

  test('the reason is the code that it says', () => {
    expect(REFUSALS[TARGET_UNKNOWN - 1]).toBe(unknown);
  });
});
