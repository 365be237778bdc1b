import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { leaseKey, LeaseTable, memberKey, type LeaseRecord, type MemberRecord } from './lease.ts';

const TTL_MS = 1_000;

const member = (name: string, more: Partial<MemberRecord> = {}): MemberRecord => ({
  name,
  instance: 'i',
  generation: 1,
  beat: 1,
  shards: 'all',
  leaving: false,
  ...more,
});
const held = (owner: string, epoch = 1): LeaseRecord => ({ owner, instance: 'i', epoch, successor: '' });
const givenUp = (successor = ''): LeaseRecord => ({ owner: '', instance: '', epoch: 1, successor });

/** A table of 4 shards as 'a' sees it at 0 ms. */
function table(members: readonly MemberRecord[], leases: readonly (LeaseRecord | null)[]): LeaseTable {
  const made = new LeaseTable('a', leases.length, TTL_MS);
  for (const one of members) made.set(memberKey(one.name), JSON.stringify(one), 1, 0);
  leases.forEach((one, shard) => made.set(leaseKey(shard), one === null ? null : JSON.stringify(one), 1, 0));
  return made;
}
const none = new Set<number>();

describe('a plan', () => {
  const free = [null, null, null, null];
  const cases: readonly [
    string,
    readonly MemberRecord[],
    readonly (LeaseRecord | null)[],
    number[],
    string,
  ][] = [
    ['alone, it takes all', [member('a')], free, [0, 1, 2, 3], ''],
    ['free shards are dealt out', [member('a'), member('b')], free, [0, 2], ''],
    [
      'one that is full takes nothing',
      [member('a'), member('b')],
      [held('a'), held('a'), null, null],
      [],
      '',
    ],
    ['what it may not take is left', [member('a', { shards: [1] })], free, [1], ''],
    ['what only it may take, it takes', [member('a', { shards: [3] }), member('b')], free, [3], ''],
    [
      'what nobody else may take, it takes beyond its share',
      [member('a'), member('b', { shards: [0] })],
      [held('b'), held('a'), held('a'), null],
      [3],
      '',
    ],
    [
      'the chosen one takes',
      [member('a'), member('b')],
      [held('a'), held('a'), held('b'), givenUp('a')],
      [3],
      '',
    ],
    [
      'others leave it to the chosen one',
      [member('a'), member('b')],
      [held('b'), held('b'), held('b'), givenUp('b')],
      [],
      '',
    ],
    ['one that leaves takes nothing', [member('a', { leaving: true }), member('b')], free, [], ''],
    [
      'what an earlier process of its name held it takes at once',
      [member('a')],
      [{ ...held('a'), instance: 'before' }, held('a'), held('a'), held('a')],
      [0],
      '',
    ],
    [
      'the fullest hands over',
      [member('a'), member('b')],
      [held('a'), held('a'), held('a'), held('a')],
      [],
      '0>b 1>b',
    ],
    ['an even load stays', [member('a'), member('b')], [held('a'), held('b'), held('a'), held('b')], [], ''],
    [
      'nothing is handed over while a shard is free',
      [member('a'), member('b'), member('c')],
      [held('a'), held('a'), held('a'), null],
      [],
      '',
    ],
  ];
  for (const [what, members, leases, take, handOver] of cases) {
    test(what, () => {
      const plan = table(members, leases).plan('i', none, 1);
      expect(plan.take).toEqual(take);
      expect(plan.handOver.map(({ shard, to }) => `${shard}>${to}`).join(' ')).toBe(handOver);
    });
  }

  test('the shards of a dead member are free after the TTL, and not before', () => {
    const seen = table([member('a'), member('b')], [held('a'), held('b')]);
    expect(seen.plan('i', none, TTL_MS - 1).take).toEqual([]);
    expect(seen.nextDeathMs(0)).toBe(TTL_MS);
    expect(seen.plan('i', none, TTL_MS).take).toEqual([1]);
    seen.set(memberKey('b'), JSON.stringify(member('b')), 2, TTL_MS);
    expect(seen.plan('i', none, TTL_MS).take).toEqual([1]);
    seen.set(memberKey('b'), JSON.stringify(member('b', { beat: 2 })), 3, TTL_MS);
    expect(seen.plan('i', none, TTL_MS).take).toEqual([]);
  });

  test('who looked away declares nobody dead for it', () => {
    const seen = table([member('a'), member('b')], [held('a'), held('b')]);
    seen.lookAnew(5_000);
    expect(seen.plan('i', none, 5_500).take).toEqual([]);
    expect(seen.plan('i', none, 6_000).take).toEqual([1]);
  });

  test('a shard whose chosen successor does not come is anybody’s after the TTL', () => {
    const seen = table([member('a'), member('b')], [held('b'), held('b'), givenUp('b')]);
    expect(seen.plan('i', none, 1).take).toEqual([]);
    seen.set(memberKey('b'), JSON.stringify(member('b', { beat: 2 })), 3, TTL_MS - 1);
    expect(seen.plan('i', none, TTL_MS).take).toEqual([2]);
  });

  test('rubbish in the bucket is as good as nothing', () => {
    const seen = table([member('a')], [held('a')]);
    let revision = 1;
    for (const rubbish of [
      '',
      '{',
      '[]',
      'null',
      '{"owner":1}',
      '{"owner":"b","instance":"i","epoch":-1,"successor":""}',
    ]) {
      seen.set(leaseKey(0), rubbish, ++revision, 1);
      seen.set(memberKey('b'), rubbish, ++revision, 1);
      seen.set('shard-x', rubbish, ++revision, 1);
      expect(seen.plan('i', none, 1)).toEqual({ take: [0], handOver: [] });
    }
  });
});

/** Processes that act on their plans on one bucket, each with a view of its own that lags behind. */
class Group {
  readonly bucket = new Map<string, string>();
  readonly #log: string[] = [];
  readonly #live = new Map<
    string,
    { table: LeaseTable; seen: number; beat: number; shards: number[] | 'all' }
  >();
  readonly #shards: number;
  nowMs = 0;
  moves = 0;

  constructor(shards: number) {
    this.#shards = shards;
  }

  get names(): string[] {
    return [...this.#live.keys()];
  }

  join(name: string, shards: number[] | 'all'): void {
    const seen = new LeaseTable(name, this.#shards, TTL_MS);
    this.#live.set(name, { table: seen, seen: 0, beat: 0, shards });
    this.#beat(name);
  }

  crash(name: string): void {
    this.#live.delete(name);
  }

  #beat(name: string): void {
    const one = this.#live.get(name)!;
    one.beat += 1;
    this.#put(memberKey(name), JSON.stringify(member(name, { beat: one.beat, shards: one.shards })));
  }

  #put(key: string, value: string): void {
    this.bucket.set(key, value);
    this.#log.push(key);
  }

  /** A third of the TTL goes by: everybody beats, and acts on what he sees, which is up to `lag` entries late. */
  turn(lag: () => number): void {
    this.nowMs += TTL_MS / 3;
    for (const [name, one] of this.#live) {
      this.#beat(name);
      const until = Math.max(one.seen, this.#log.length - lag());
      for (; one.seen < until; one.seen++) {
        const key = this.#log[one.seen]!;
        one.table.set(key, this.bucket.get(key)!, one.seen + 1, this.nowMs);
      }
      const { take, handOver } = one.table.plan('i', none, this.nowMs);
      for (const shard of take) {
        // Compare and set: who does not see the newest entry loses.
        const seen = one.table.lease(shard);
        const newest = this.bucket.get(leaseKey(shard));
        if ((seen === null ? undefined : JSON.stringify(seen)) !== newest) continue;
        this.#put(leaseKey(shard), JSON.stringify(held(name, (seen?.epoch ?? 0) + 1)));
        this.moves += 1;
      }
      for (const { shard, to } of handOver) {
        if (this.bucket.get(leaseKey(shard)) !== JSON.stringify(one.table.lease(shard))) continue;
        this.#put(leaseKey(shard), JSON.stringify({ ...givenUp(to), epoch: one.table.lease(shard)!.epoch }));
        this.moves += 1;
      }
    }
  }

  owners(): (string | undefined)[] {
    return Array.from({ length: this.#shards }, (_, shard) => {
      const value = this.bucket.get(leaseKey(shard));
      return value === undefined ? undefined : (JSON.parse(value) as LeaseRecord).owner;
    });
  }
}

describe('a group', () => {
  const calm = (group: Group, turns: number): void => {
    for (let turn = 0; turn < turns; turn++) group.turn(() => 0);
  };

  test('whatever joins and crashes, soon each shard has one living owner, the load is even, and nothing moves', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 12 }),
        fc.array(fc.tuple(fc.integer({ min: 0, max: 5 }), fc.integer({ min: 0, max: 6 })), { maxLength: 30 }),
        (shards, story) => {
          const group = new Group(shards);
          group.join('m0', 'all');
          for (const [who, lag] of story) {
            const name = `m${who}`;
            if (!group.names.includes(name)) group.join(name, 'all');
            else if (group.names.length > 1) group.crash(name);
            group.turn(() => lag);
          }
          calm(group, 20 + 3 * shards);
          const loads = new Map(group.names.map((name) => [name, 0]));
          for (const owner of group.owners()) {
            expect(group.names).toContain(owner);
            loads.set(owner!, loads.get(owner!)! + 1);
          }
          expect(Math.max(...loads.values())).toBeLessThanOrEqual(Math.ceil(shards / loads.size));
          expect(Math.min(...loads.values())).toBeGreaterThanOrEqual(Math.floor(shards / loads.size));
          const before = group.moves;
          calm(group, 10);
          expect(group.moves).toBe(before);
        },
      ),
    );
  });

  test('with shards that not everybody may take, each that somebody may take is taken', () => {
    const lists = fc.array(fc.subarray([0, 1, 2, 3, 4, 5]), { minLength: 1, maxLength: 5 });
    fc.assert(
      fc.property(lists, (allowed) => {
        const group = new Group(6);
        allowed.forEach((list, at) => group.join(`m${at}`, list));
        calm(group, 30);
        group.owners().forEach((owner, shard) => {
          const able = allowed.flatMap((list, at) => (list.includes(shard) ? [`m${at}`] : []));
          if (able.length === 0) expect(owner).toBeUndefined();
          else expect(able).toContain(owner);
        });
        const before = group.moves;
        calm(group, 10);
        expect(group.moves).toBe(before);
      }),
    );
  });
});
