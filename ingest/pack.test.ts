import fc from 'fast-check';
import { beforeEach, describe, expect, test } from 'vitest';
import { decodeBlock, idOf, textOf, type Block } from '../contract/block.ts';
import { EventBatch } from '../contract/event-batch.ts';
import type { UsageEvent } from '../contract/event.ts';
import { IdentityHasher, ShardRule, formatIdentity } from '../contract/identity.ts';
import { PathTable } from '../contract/path-table.ts';
import { batchOf, correctionOf, identityOf } from '../test/event-batch.ts';
import { EdgeKernel } from './edge-kernel.ts';
import { Pack, type PackLimits, type Ticket } from './pack.ts';
import { Admission } from './read/admit.ts';
import { readBody } from './read/body.ts';
import { MeterBook } from './tenant/meters.ts';

const KEY = '0f'.repeat(16);

interface Sent {
  readonly shard: number;
  readonly ids: string[];
  readonly bytes: number;
  readonly block: Block;
  readonly ack: () => void;
  readonly fail: (error: Error) => void;
}

let batch = new EventBatch();
/** Whether events go through the kernel. */
let withKernel = false;

/** A pack whose world is run by hand. The batch is one that it can pack. */
function world(shards: number, some: Partial<PackLimits> = {}) {
  const limits: PackLimits = { blockEventsMax: 1_000, blockBytesMax: 262_144, lingerMs: 2, ...some };
  const deployment = { shards, identityKey: KEY };
  const kernel = withKernel
    ? EdgeKernel.load({ ...deployment, ...limits, batchEventsMax: 1_000, bodyBytesMax: 65_536 })
    : null;
  batch = new EventBatch(new PathTable(), kernel?.home ?? null);
  const sent: Sent[] = [];
  const deferred: (() => void)[] = [];
  const timers = new Set<() => void>();
  const clock = { ms: 0 };
  const pack = new Pack({
    ...deployment,
    limits,
    kernel,
    port: {
      publish: (shard, bytes, events) =>
        new Promise((resolve, reject) => {
          const block = decodeBlock(bytes);
          expect(block.count).toBe(events);
          const ids = Array.from({ length: events }, (_, at) => idOf(block, at));
          const kept = decodeBlock(new Uint8Array(bytes));
          sent.push({ shard, ids, bytes: bytes.length, block: kept, ack: () => resolve(null), fail: reject });
        }),
      now: () => clock.ms,
      defer: (run) => void deferred.push(run),
      after(_, run) {
        const timer = (): void => {
          timers.delete(timer);
          run();
        };
        timers.add(timer);
        return () => void timers.delete(timer);
      },
    },
  });
  return {
    pack,
    sent,
    timers,
    clock,
    endTurn: () => deferred.splice(0).forEach((run) => run()),
    endLinger: () => [...timers].forEach((run) => run()),
  };
}

const eventOf = (id: string): UsageEvent => ({
  id,
  source: 's',
  type: 't',
  subject: 'x',
  time: '2026-11-21T00:00:00Z',
  data: { n: 1 },
});

function request(pack: Pack, ids: readonly string[]): { ticket: Ticket; outcomes: unknown[] } {
  return requestOf(pack, ids.map(eventOf));
}

function requestOf(pack: Pack, events: readonly UsageEvent[]): { ticket: Ticket; outcomes: unknown[] } {
  const ticket = pack.begin();
  batchOf('acme', events, batch);
  pack.addAll(ticket, batch);
  const outcomes: unknown[] = [];
  pack.end(ticket, (failure) => outcomes.push(failure));
  return { ticket, outcomes };
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe.each([
  ['with the kernel', true],
  ['without the kernel', false],
])('%s', (_name, has) => {
  beforeEach(() => {
    withKernel = has;
  });

  test('at low load an event goes at the end of the turn, and its request is done with the acknowledgement', async () => {
    const { pack, sent, timers, endTurn } = world(1);
    const { outcomes } = request(pack, ['a']);
    expect(sent).toEqual([]);
    endTurn();
    expect(sent.map(({ ids }) => ids)).toEqual([['a']]);
    expect(timers.size).toBe(0);
    await settled();
    expect(outcomes).toEqual([]);
    sent[0]!.ack();
    await settled();
    expect(outcomes).toEqual([null]);
  });

  test('requests of one turn share a block', async () => {
    const { pack, sent, endTurn } = world(1);
    const first = request(pack, ['a', 'b']);
    const second = request(pack, ['c']);
    endTurn();
    expect(sent.map(({ ids }) => ids)).toEqual([['a', 'b', 'c']]);
    sent[0]!.ack();
    await settled();
    expect([first.outcomes, second.outcomes]).toEqual([[null], [null]]);
  });

  test('while a block is in flight the next one grows, until the end of the turn of the acknowledgement', async () => {
    const { pack, sent, timers, endTurn } = world(1);
    request(pack, ['a']);
    endTurn();
    request(pack, ['b']);
    endTurn();
    request(pack, ['c']);
    endTurn();
    expect(sent).toHaveLength(1);
    expect(timers.size).toBe(1);
    sent[0]!.ack();
    await settled();
    endTurn();
    expect(sent.map(({ ids }) => ids)).toEqual([['a'], ['b', 'c']]);
    expect(timers.size).toBe(0);
  });

  test('or until its linger is over', () => {
    const { pack, sent, endTurn, endLinger } = world(1);
    request(pack, ['a']);
    endTurn();
    request(pack, ['b']);
    endTurn();
    endLinger();
    expect(sent.map(({ ids }) => ids)).toEqual([['a'], ['b']]);
    expect(pack.inFlight).toBe(2);
  });

  /** Ids of a request that alone is dense. */
  const many = (name: string, count = 120): string[] =>
    Array.from({ length: count }, (_, at) => `${name}${at}`);

  test('dense events: senders that wait for their answers share a block, and do not take turns by halves', async () => {
    const { pack, sent, timers, endTurn } = world(1);
    request(pack, many('a'));
    request(pack, many('b'));
    endTurn();
    request(pack, many('c'));
    endTurn();
    // Three share the shard: the block of the third waits for the two that get their answers now.
    sent[0]!.ack();
    await settled();
    endTurn();
    expect(sent).toHaveLength(1);
    request(pack, many('d'));
    endTurn();
    expect(sent).toHaveLength(1);
    request(pack, many('e'));
    endTurn();
    expect(sent.map(({ ids }) => ids)).toEqual([
      [...many('a'), ...many('b')],
      [...many('c'), ...many('d'), ...many('e')],
    ]);
    expect(timers.size).toBe(0);
    // And so do those of a block behind which nobody waited.
    sent[1]!.ack();
    await settled();
    request(pack, ['f']);
    endTurn();
    expect(sent).toHaveLength(2);
    request(pack, ['g']);
    request(pack, ['h']);
    endTurn();
    expect(sent[2]!.ids).toEqual(['f', 'g', 'h']);
  });

  test('an event waits for senders that do not come for no longer than its linger, and the next one not at all', async () => {
    const { pack, sent, timers, endTurn, endLinger } = world(1);
    request(pack, many('a'));
    request(pack, many('b'));
    endTurn();
    request(pack, ['c']);
    endTurn();
    expect(timers.size).toBe(1);
    sent[0]!.ack();
    await settled();
    endTurn();
    expect([sent.length, timers.size]).toEqual([1, 1]);
    endLinger();
    expect(sent[1]!.ids).toEqual(['c']);
    sent[1]!.ack();
    await settled();
    request(pack, ['d']);
    endTurn();
    expect(sent[2]!.ids).toEqual(['d']);
  });

  test('after a pause of a linger nobody is expected any more', async () => {
    const { pack, sent, clock, endTurn } = world(1, { lingerMs: 2 });
    request(pack, many('a'));
    request(pack, many('b'));
    endTurn();
    sent[0]!.ack();
    await settled();
    clock.ms += 2;
    request(pack, ['c']);
    endTurn();
    expect(sent[1]!.ids).toEqual(['c']);
  });

  test('one sender after another never waits, however much it sends', async () => {
    const { pack, sent, timers, endTurn } = world(1, { blockEventsMax: 500 });
    for (let turn = 0; turn < 5; turn++) {
      const { outcomes } = request(pack, many(`${turn}-`, 1_300));
      endTurn();
      // Two full blocks, and the rest when they are acknowledged.
      expect(sent).toHaveLength(turn * 3 + 2);
      for (const block of sent.slice(-2)) block.ack();
      await settled();
      endTurn();
      expect(sent).toHaveLength(turn * 3 + 3);
      sent.at(-1)!.ack();
      await settled();
      expect(outcomes).toEqual([null]);
      expect(timers.size).toBe(0);
    }
  });

  test('or until it is full, by events or by bytes', () => {
    const byEvents = world(1, { blockEventsMax: 3 });
    request(byEvents.pack, ['a', 'b', 'c', 'd']);
    expect(byEvents.sent.map(({ ids }) => ids)).toEqual([['a', 'b', 'c']]);
    byEvents.endTurn();
    byEvents.endLinger();
    expect(byEvents.sent.map(({ ids }) => ids)).toEqual([['a', 'b', 'c'], ['d']]);

    const byBytes = world(1, { blockBytesMax: 300 });
    request(byBytes.pack, ['a', 'b', 'c', 'd', 'e', 'f']);
    expect(byBytes.sent.length).toBeGreaterThan(1);
  });

  test('a block has fewer bytes than its limit and one event more, whatever the texts are made of', () => {
    const limit = 4_096;
    const { pack, sent } = world(1, { blockBytesMax: limit });
    // Three bytes of UTF-8 for each UTF-16 unit, and nothing in common: as large as events of their length can be.
    const events = Array.from({ length: 100 }, (_, at) => ({
      ...eventOf(`日本${at}`),
      subject: '語'.repeat(60) + String(at),
      data: { [`鍵${at}`]: '値'.repeat(50) + String(at) },
    }));
    requestOf(pack, events);
    pack.flush();
    expect(sent.flatMap(({ ids }) => ids)).toEqual(events.map(({ id }) => id));
    expect(sent.length).toBeGreaterThan(10);
    for (const { bytes } of sent) expect(bytes).toBeLessThan(limit + 600);
    for (const { bytes } of sent.slice(0, -1)) expect(bytes).toBeGreaterThan(limit - 60);
  });

  test('events of tenants that share a batch, one after the other, have their own identities', () => {
    const { pack, sent } = world(200);
    const hasher = new IdentityHasher(KEY);
    const rule = new ShardRule(200);
    const expected: number[] = [];
    for (const tenant of ['acme', 'globex', 'acme']) {
      batchOf(tenant, [eventOf('a'), eventOf('b')], batch);
      pack.addAll(pack.begin(), batch);
      for (const id of ['a', 'b']) expected.push(rule.of(identityOf(hasher, tenant, 's', id)));
    }
    pack.flush();
    const found = sent.flatMap(({ shard, ids }) => ids.map(() => shard));
    expect(found.sort((a, b) => a - b)).toEqual(expected.sort((a, b) => a - b));
  });

  /** The values of one event of a block that are texts, by path. */
  function textsOf(block: Block, event: number): Record<string, string> {
    const shape = block.shape[event]!;
    const first = block.shapeStart[shape]!;
    const texts: Record<string, string> = {};
    for (let at = first; at < block.shapeStart[shape + 1]!; at++) {
      const cell = block.cells[block.cellStart[event]! + at - first]!;
      texts[textOf(block, block.shapeFields[at * 2]!)] = textOf(block, cell);
    }
    return texts;
  }

  test('a correction goes where its original is, names it by its identity, and has one of its own', () => {
    const context = {
      admission: new Admission({ eventAgeDaysMax: 1, eventAheadSecondsMax: 0, batchEventsMax: 1_000 }),
      meters: new MeterBook(),
      tenant: 'acme',
      tenantBytes: Buffer.from('acme'),
      nowMs: 0,
    };
    const [hasher, rule] = [new IdentityHasher(KEY), new ShardRule(7)];
    const ids = Array.from({ length: 40 }, (_, at) => (at % 3 === 0 ? `e"${at}` : `${'é'.repeat(at)}e${at}`));
    // Between others, so that a correction is told from its neighbours; the same ids on all three.
    const events = ids.flatMap((original) => [
      { id: 'x', source: 's', type: 't', subject: 'c', data: { a: original } },
      { id: 'x', source: 's', voids: original, data: { a: 'why' } },
      { id: 'y', source: 's', type: 't', subject: 'c', amends: original },
    ]);
    const { pack, sent } = world(7);
    for (let twice = 0; twice < 2; twice++) {
      const outcome = readBody(Buffer.from(JSON.stringify(events)), 'json', context, batch);
      expect(outcome).toMatchObject({ read: true, rejected: [], unmatched: ids.length * 2 });
      pack.addAll(pack.begin(), batch);
    }
    pack.flush();
    const payloads = new Map<string, string>();
    let corrections = 0;
    for (const { shard, block } of sent) {
      for (let event = 0; event < block.count; event++) {
        const identity = formatIdentity(block.identity, event * 4);
        const payload = block.payloadHash.subarray(event * 2, event * 2 + 2).join();
        const texts = textsOf(block, event);
        const { 'tallyline.voids': voids, 'tallyline.amends': amends, 'tallyline.target': target } = texts;
        const original = voids ?? amends;
        if (original === undefined) {
          expect(rule.of(identityOf(hasher, 'acme', 's', 'x'))).toBe(shard);
          expect(Object.keys(texts)).toEqual(['a']);
          continue;
        }
        corrections += 1;
        expect(ids).toContain(original);
        expect(target).toBe(formatIdentity(identityOf(hasher, 'acme', 's', original)));
        expect(rule.of(identityOf(hasher, 'acme', 's', original))).toBe(shard);
        expect(identity).toBe(
          formatIdentity(correctionOf(hasher, 'acme', 's', original, idOf(block, event))),
        );
        expect(textOf(block, block.type[event]!)).toBe(voids === undefined ? 't' : 'tallyline.void');
        expect(texts['a']).toBe(voids === undefined ? undefined : 'why');
        // Sent again it has the same payload: a duplicate and no conflict.
        expect(payloads.get(identity) ?? payload).toBe(payload);
        payloads.set(identity, payload);
      }
    }
    expect(corrections).toBe(ids.length * 4);
    // The original is part of what is said.
    expect(new Set(payloads.values()).size).toBe(ids.length * 2);
  });

  test('a request is done when all its blocks are settled, and failed when one has failed', async () => {
    const { pack, sent, endTurn } = world(4);
    const { ticket, outcomes } = request(
      pack,
      Array.from({ length: 100 }, (_, at) => `e${at}`),
    );
    endTurn();
    expect(sent).toHaveLength(4);
    expect(ticket.pending).toBe(4);
    const failure = new Error('full');
    sent[0]!.ack();
    sent[2]!.fail(failure);
    sent[3]!.ack();
    await settled();
    expect(outcomes).toEqual([]);
    sent[1]!.ack();
    await settled();
    expect(outcomes).toEqual([failure]);
  });

  test('a failed block fails those in it and no other', async () => {
    const { pack, sent, endTurn } = world(1, { blockEventsMax: 2 });
    const first = request(pack, ['a', 'b']);
    const second = request(pack, ['c']);
    endTurn();
    sent[0]!.fail(new Error('timeout'));
    await settled();
    endTurn();
    expect(first.outcomes).toHaveLength(1);
    expect(sent).toHaveLength(2);
    sent[1]!.ack();
    await settled();
    expect(second.outcomes).toEqual([null]);
  });

  test('a request without events is done at once', () => {
    const { pack } = world(2);
    expect(request(pack, []).outcomes).toEqual([null]);
  });

  test('flush sends what is open', () => {
    const { pack, sent } = world(2);
    request(pack, ['a', 'b', 'c', 'd', 'e']);
    pack.flush();
    expect(sent.flatMap(({ ids }) => ids).sort()).toEqual(['a', 'b', 'c', 'd', 'e']);
  });

  test('whatever comes in whichever order, every event is in one block of its shard, and every request is told once', async () => {
    const step = fc.oneof(
      fc.record({ kind: fc.constant('request' as const), events: fc.integer({ min: 0, max: 30 }) }),
      fc.record({ kind: fc.constant('request' as const), events: fc.integer({ min: 100, max: 200 }) }),
      fc.record({ kind: fc.constantFrom('turn', 'linger', 'ack', 'fail', 'time'), at: fc.nat() }),
    );
    const hasher = new IdentityHasher(KEY);
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { maxLength: 40 }),
        fc.integer({ min: 1, max: 5 }),
        fc.constantFrom(10, 300),
        async (steps, shards, blockEventsMax) => {
          const { pack, sent, clock, endTurn, endLinger } = world(shards, { blockEventsMax });
          const rule = new ShardRule(shards);
          const requests: { ids: string[]; outcomes: unknown[] }[] = [];
          const open = new Set<Sent>();
          const failed = new Set<string>();
          let known = 0;
          const settle = async (index: number, ok: boolean): Promise<void> => {
            for (; known < sent.length; known++) open.add(sent[known]!);
            const one = [...open][index % Math.max(1, open.size)];
            if (one === undefined) return;
            open.delete(one);
            if (ok) one.ack();
            else {
              one.ids.forEach((id) => failed.add(id));
              one.fail(new Error('failed'));
            }
            await settled();
          };
          for (const one of steps) {
            if (one.kind === 'request') {
              const ids = Array.from({ length: one.events }, (_, at) => `${requests.length}-${at}`);
              requests.push({ ids, outcomes: request(pack, ids).outcomes });
            } else if (one.kind === 'turn') endTurn();
            else if (one.kind === 'linger') endLinger();
            else if (one.kind === 'time') clock.ms += one.at % 4;
            else await settle(one.at, one.kind === 'ack');
          }
          // Nothing waits for longer than its linger, whoever is expected.
          endTurn();
          endLinger();
          do await settle(0, true);
          while (open.size > 0 || known < sent.length);
          expect(pack.inFlight).toBe(0);
          expect(sent.flatMap(({ ids }) => ids).sort()).toEqual(requests.flatMap(({ ids }) => ids).sort());
          for (const { shard, ids } of sent) {
            for (const id of ids) {
              expect(rule.of(identityOf(hasher, 'acme', 's', id))).toBe(shard);
            }
          }
          for (const { ids, outcomes } of requests) {
            expect(outcomes).toHaveLength(1);
            expect(outcomes[0] !== null).toBe(ids.some((id) => failed.has(id)));
          }
        },
      ),
      { numRuns: 60 },
    );
  });
});
