import fc from 'fast-check';
import { expect, test } from 'vitest';
import { JournalIndex, JournalSegment, type Place } from './journal-index.ts';

const SHARDS = 3;

function segmentOf(number: number, openedAtMs = 0): JournalSegment {
  return new JournalSegment({ number, tag: new Uint8Array(8), openedAtMs, bytes: 0, shards: SHARDS });
}

/** One block, as simple as can be: the model holds them in a list and looks through all of it. */
interface ModelBlock {
  readonly place: Place;
  readonly shard: number;
  state: 'waiting' | 'sent' | 'acknowledged' | 'aside' | 'released';
  sequence: number;
}

test('whatever happens to the blocks, the index says the same as a list of them', () => {
  const action = fc.record({
    what: fc.constantFrom(
      'add',
      'open',
      'send',
      'acknowledge',
      'fail',
      'aside',
      'forget',
      'release',
      'remove',
    ),
    shard: fc.nat(SHARDS - 1),
    pick: fc.nat(1_000),
    sequence: fc.integer({ min: 1, max: 40 }),
  });
  fc.assert(
    fc.property(fc.array(action, { maxLength: 120 }), (actions) => {
      const index = new JournalIndex(SHARDS);
      const model: ModelBlock[] = [];
      let opened = 1;
      index.segments.push(segmentOf(opened));
      for (const { what, shard, pick, sequence } of actions) {
        const sent = model.filter((one) => one.state === 'sent');
        const chosen = sent[pick % Math.max(1, sent.length)];
        if (what === 'open') index.segments.push(segmentOf(++opened));
        else if (what === 'add') {
          const segment = index.segments.at(-1)!;
          const facts = { offset: model.length, blockBytes: 1, shard, keptAtMs: model.length };
          model.push({ place: index.addNew(segment, facts), shard, state: 'sent', sequence: 0 });
        } else if (what === 'send') {
          const place = index.oldestWaiting(shard);
          const expected = model.find((one) => one.shard === shard && one.state === 'waiting');
          expect(place).toEqual(expected?.place ?? null);
          if (expected !== undefined) {
            index.sent(place!);
            expected.state = 'sent';
          }
        } else if (what === 'forget') {
          index.forget(shard);
          for (const one of model) if (one.shard === shard && one.state !== 'released') one.state = 'waiting';
        } else if (what === 'release') {
          index.releaseUpTo(shard, sequence);
          for (const one of model) {
            if (one.shard === shard && one.state === 'acknowledged' && one.sequence <= sequence) {
              one.state = 'released';
            }
          }
        } else if (what === 'remove') {
          const empty = index.segments.findIndex((one) => one.held === 0 && one.count > 0);
          if (empty !== -1 && index.segments[empty] !== index.segments.at(-1))
            index.segments.splice(empty, 1);
        } else if (chosen !== undefined) {
          if (what === 'acknowledge') index.acknowledged(chosen.place, sequence);
          if (what === 'fail') index.waitingAgain(chosen.place);
          if (what === 'aside') index.setAside(chosen.place);
          chosen.sequence = sequence;
          chosen.state = what === 'acknowledge' ? 'acknowledged' : what === 'fail' ? 'waiting' : 'aside';
        }
        compare(index, model);
      }
    }),
    { numRuns: 300 },
  );
});

function compare(index: JournalIndex, model: readonly ModelBlock[]): void {
  const count = (...states: ModelBlock['state'][]): number =>
    model.filter(({ state }) => states.includes(state)).length;
  expect(index.waiting).toBe(count('waiting'));
  expect(index.aside).toBe(count('aside'));
  expect(index.held).toBe(count('waiting', 'sent', 'acknowledged', 'aside'));
  expect(index.segments.reduce((sum, { held }) => sum + held, 0)).toBe(index.held);
  for (let shard = 0; shard < SHARDS; shard++) {
    const own = model.filter((one) => one.shard === shard);
    expect(index.waitingOf(shard)).toBe(own.filter(({ state }) => state === 'waiting').length);
    const acknowledged = own.filter(({ state }) => state === 'acknowledged');
    expect(index.lowestAcknowledged(shard)).toBe(
      acknowledged.reduce((lowest, { sequence }) => Math.min(lowest, sequence), Infinity),
    );
  }
}

test('blocks of a shard wait in the order in which they were kept, over all segments', () => {
  const index = new JournalIndex(SHARDS);
  const places: Place[] = [];
  for (let number = 1; number <= 3; number++) {
    const segment = segmentOf(number);
    index.segments.push(segment);
    for (let at = 0; at < 300; at++) {
      places.push(index.addNew(segment, { offset: at, blockBytes: 1, shard: at % SHARDS, keptAtMs: 0 }));
    }
  }
  index.forget(1);
  const taken: Place[] = [];
  for (let next = index.oldestWaiting(1); next !== null; next = index.oldestWaiting(1)) {
    taken.push(next);
    index.sent(next);
  }
  expect(taken).toEqual(places.filter(({ at }) => at % SHARDS === 1));
  // One that failed comes before all others again.
  for (const place of [taken[250]!, taken[40]!]) index.waitingAgain(place);
  expect(index.oldestWaiting(1)).toEqual(taken[40]);
});

test('the age of the oldest block is that of the first that is not released', () => {
  const index = new JournalIndex(SHARDS);
  expect(index.oldestHeldMs()).toBeNull();
  const segment = segmentOf(1, 5_000);
  index.segments.push(segment);
  const places = [6_000, 7_000, 8_000].map((keptAtMs) =>
    index.addNew(segment, { offset: 0, blockBytes: 1, shard: 0, keptAtMs }),
  );
  expect(index.oldestHeldMs()).toBe(6_000);
  index.release(places[1]!);
  expect(index.oldestHeldMs()).toBe(6_000);
  index.release(places[0]!);
  expect(index.oldestHeldMs()).toBe(8_000);
});
