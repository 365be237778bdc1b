import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { VERDICTS, type Verdict } from '../contract/verdicts.ts';
import { DedupeIndex } from './dedupe/index.ts';
import { decideBlock, unknownIn } from './verdict.ts';

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
