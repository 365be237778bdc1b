import { beforeAll, describe, expect, test } from 'vitest';
import { defaultQuota, Quotas, rateLimitFields, retryAfterSeconds, type QuotaOptions } from './quota.ts';

const quotas = (events: number | null, bytes: number | null = null, more: Partial<QuotaOptions> = {}) =>
  new Quotas({
    defaults: { eventsPerSecond: events, bytesPerSecond: bytes },
    burstSeconds: 2,
    tenantsMax: 1_000,
    ...more,
  });

// A failure can be run again with the seed that was printed.
const firstSeed = Number(
  process.env['TALLYLINE_TEST_SEED'] ?? Math.floor(performance.timeOrigin) % 1_000_000,
);
let seed = firstSeed;
function random(below: number): number {
  seed = (Math.imul(seed, 1_103_515_245) + 12_345) & 0x7fff_ffff;
  return Math.floor((seed / 0x8000_0000) * below);
}
beforeAll(() => console.info(`TALLYLINE_TEST_SEED=${firstSeed}`));

describe('one tenant', () => {
  test('may send its burst at once, one batch beyond it, and then its rate', () => {
    const some = quotas(100);
    for (let sent = 0; sent < 200; sent += 20) expect(some.take('acme', 20, 0, 0)).toBeNull();
    // 200 are gone: the first thousandth of an event is back after 1 ms.
    expect(some.take('acme', 20, 0, 0)).toEqual({ retryAfterMs: 1 });
    expect(some.take('acme', 20, 0, 1)).toBeNull();
    // 19.9 are owed, at 0.1 a millisecond.
    expect(some.take('acme', 1, 0, 1)).toEqual({ retryAfterMs: 200 });
    expect(some.exhausted('acme', 200)).toBe(1);
    expect(some.exhausted('acme', 201)).toBe(0);
    expect(some.take('acme', 1, 0, 201)).toBeNull();
  });

  test('gets a batch larger than its burst through, and owes the rest', () => {
    const some = quotas(100);
    expect(some.take('acme', 10_000, 0, 0)).toBeNull();
    // 9,800 at 100 a second, and one millisecond more until something is there.
    expect(some.take('acme', 1, 0, 0)).toEqual({ retryAfterMs: 98_001 });
    expect(some.take('acme', 10_000, 0, 98_001)).toBeNull();
  });

  test('is held by the scarcer of its two limits, and a refused batch costs nothing of either', () => {
    const some = quotas(1_000, 500);
    expect(some.take('acme', 1, 1_500, 0)).toBeNull();
    for (let again = 0; again < 50; again++)
      expect(some.take('acme', 1_000, 1, 0)).toEqual({ retryAfterMs: 1_001 });
    expect(some.state('acme', 0)).toMatchObject({ events: { remaining: 1_999 }, bytes: { remaining: 0 } });
    expect(some.take('acme', 1_999, 1, 1_001)).toBeNull();
  });

  test('is no concern of another', () => {
    const some = quotas(10);
    expect(some.take('noisy', 5_000, 0, 0)).toBeNull();
    expect(some.exhausted('noisy', 0)).toBeGreaterThan(0);
    expect(some.exhausted('quiet', 0)).toBe(0);
    expect(some.take('quiet', 5, 0, 0)).toBeNull();
  });

  test('has no limit where there is none', () => {
    const some = quotas(null);
    for (let at = 0; at < 100; at++) expect(some.take('acme', 1_000_000, 2 ** 30, 0)).toBeNull();
    expect(some.exhausted('acme', 0)).toBe(0);
    expect(rateLimitFields(some.state('acme', 0))).toBeNull();
    expect(defaultQuota({ tenantEventsPerSecond: 0, tenantBytesPerSecond: 0 })).toEqual({
      eventsPerSecond: null,
      bytesPerSecond: null,
    });
    expect(defaultQuota({ tenantEventsPerSecond: 5, tenantBytesPerSecond: 7 })).toEqual({
      eventsPerSecond: 5,
      bytesPerSecond: 7,
    });
  });
});

describe('a clock', () => {
  test('that is set back gives nothing and takes nothing, and the rate goes on from there', () => {
    const some = quotas(100);
    expect(some.take('acme', 300, 0, 3_600_000)).toBeNull();
    expect(some.exhausted('acme', 3_600_000)).toBe(1_001);
    // An hour back: as much is owed as before, and it takes as long as before.
    for (let look = 0; look < 10; look++) expect(some.exhausted('acme', 0)).toBe(1_001);
    expect(some.exhausted('acme', 1_000)).toBe(1);
    expect(some.take('acme', 1, 0, 1_001)).toBeNull();
  });

  test('that is asked within one millisecond, or in fractions of one, gives as much as one that is not', () => {
    const [often, seldom] = [quotas(7), quotas(7)];
    for (const one of [often, seldom]) one.take('acme', 1_000, 0, 0);
    for (let tenths = 0; tenths <= 100_005; tenths++) often.exhausted('acme', tenths / 10);
    expect(often.exhausted('acme', 10_000.5)).toBe(seldom.exhausted('acme', 10_000));
  });
});

describe('over any time', () => {
  /** Thousandths of an event, on bigints and without any bound: what Quotas must agree with to the last one. */
  class Model {
    readonly #rate: bigint;
    readonly #capacity: bigint;
    #level: bigint;
    #atMs: bigint | null = null;
    constructor(rate: number, burstSeconds: number) {
      this.#rate = BigInt(rate);
      this.#capacity = this.#rate * BigInt(burstSeconds) * 1_000n;
      this.#level = this.#capacity;
    }
    take(cost: number, nowMs: number): bigint {
      const now = BigInt(nowMs);
      if (this.#atMs !== null && now > this.#atMs) this.#level += (now - this.#atMs) * this.#rate;
      if (this.#level > this.#capacity) this.#level = this.#capacity;
      this.#atMs = now;
      if (this.#level > 0n) {
        this.#level -= BigInt(cost) * 1_000n;
        return 0n;
      }
      // The least whole m with level + m · rate > 0.
      let wait = -this.#level / this.#rate;
      while (this.#level + wait * this.#rate <= 0n) wait += 1n;
      return wait;
    }
  }

  const RATES = [1, 3, 7, 100, 999, 1_000, 12_345, 1_000_003, 99_999_999_977, 100_000_000_000];

  test.each(RATES)('every answer is that of exact arithmetic, at %d a second', (rate) => {
    const burstSeconds = 1 + random(60);
    const some = quotas(rate, null, { burstSeconds });
    const model = new Model(rate, burstSeconds);
    let nowMs = random(2) === 0 ? 0 : 1_795_250_000_000;
    for (let step = 0; step < 3_000; step++) {
      nowMs += [0, random(3), random(1_000), random(100_000), -random(5_000), random(1_000_000_000)][
        random(step % 50 === 0 ? 6 : 4)
      ]!;
      nowMs = Math.max(0, nowMs);
      const cost = [0, 1, random(50), random(rate), random(rate * 3), 2 ** 40][
        random(step % 500 === 0 ? 6 : 5)
      ]!;
      const over = some.take('acme', Math.min(cost, 2 ** 40), 0, nowMs);
      const expected = model.take(Math.min(cost, 2 ** 40), nowMs);
      if (BigInt(over?.retryAfterMs ?? 0) !== expected)
        throw new Error(`step ${step}: ${over?.retryAfterMs} is not ${expected}`);
      if (over !== null && random(3) === 0) nowMs += over.retryAfterMs - random(2);
    }
  });

  test('at most rate · T + burst + one batch is let through, in every window', () => {
    for (let round = 0; round < 20; round++) {
      const rate = 1 + random(500);
      const burstSeconds = 1 + random(4);
      const some = quotas(rate, null, { burstSeconds });
      const admitted: { atMs: number; events: number }[] = [];
      let nowMs = 0;
      for (let step = 0; step < 400; step++) {
        nowMs += random(3) === 0 ? random(2_000) : random(40);
        const events = random(10) === 0 ? random(rate * 6) : random(30);
        if (some.take('acme', events, 0, nowMs) === null) admitted.push({ atMs: nowMs, events });
      }
      for (let first = 0; first < admitted.length; first++) {
        let before = 0;
        for (const { atMs, events } of admitted.slice(first)) {
          const tMs = atMs - admitted[first]!.atMs;
          // In thousandths, and without the batch that comes last, whose size nothing bounds.
          if (before * 1_000 >= rate * tMs + rate * burstSeconds * 1_000)
            throw new Error(`${before} events and one more batch in ${tMs} ms at ${rate} a second`);
          before += events;
        }
      }
    }
  });

  test('who waits for as long as he is told is let through then and no earlier, large batches and small', () => {
    for (let round = 0; round < 200; round++) {
      const some = quotas(1 + random(2_000), 1 + random(100_000), { burstSeconds: 1 + random(5) });
      let nowMs = random(1_000_000);
      for (let step = 0; step < 30; step++) {
        const [events, bytes] = [random(10_000), random(8_388_608)];
        const over = some.take('acme', events, bytes, nowMs);
        if (over === null) continue;
        expect(some.exhausted('acme', nowMs + over.retryAfterMs - 1), `seed ${firstSeed}`).toBe(1);
        nowMs += over.retryAfterMs;
        expect(some.take('acme', events, bytes, nowMs), `seed ${firstSeed}`).toBeNull();
      }
    }
  });

  test('a sender that never rests gets its rate, neither more nor less', () => {
    const some = quotas(250);
    let events = 0;
    // Ten minutes, 1 to 400 events every 5 ms.
    for (let nowMs = 0; nowMs < 600_000; nowMs += 5) {
      const batch = 1 + random(400);
      if (some.take('acme', batch, 0, nowMs) === null) events += batch;
    }
    expect(events).toBeGreaterThanOrEqual(250 * 599);
    expect(events).toBeLessThanOrEqual(250 * 600 + 500 + 400);
  });
});

describe('quotas of their own', () => {
  const own = (eventsPerSecond: number | null, bytesPerSecond: number | null = null) =>
    JSON.stringify({ eventsPerSecond, bytesPerSecond });

  test('replace both defaults, and the defaults come back', () => {
    const some = quotas(10, 10);
    expect(some.set('acme', own(1_000))).toBe(true);
    expect(some.size).toBe(1);
    expect(some.state('acme', 0)).toMatchObject({ events: { limit: 2_000 }, bytes: null });
    expect(some.state('other', 0)).toMatchObject({ events: { limit: 20 }, bytes: { limit: 20 } });
    expect(some.set('acme', own(null))).toBe(true);
    expect(some.state('acme', 0)).toEqual({ events: null, bytes: null });
    expect(some.set('acme', null)).toBe(true);
    expect(some.size).toBe(0);
    expect(some.state('acme', 0)).toMatchObject({ events: { limit: 20 }, bytes: { limit: 20 } });
  });

  test('count at once, keep what is owed, and give no new burst', () => {
    const some = quotas(100);
    some.take('acme', 1_200, 0, 7_000);
    expect(some.exhausted('acme', 7_000)).toBe(10_001);
    some.set('acme', own(1_000));
    expect(some.exhausted('acme', 7_000)).toBe(1_001);
    // Told again as it is, after a reconnect: nothing changes.
    some.set('acme', own(1_000));
    expect(some.exhausted('acme', 7_000)).toBe(1_001);
    some.set('acme', own(10));
    expect(some.exhausted('acme', 7_000)).toBe(100_001);

    const lowered = quotas(1_000);
    lowered.take('acme', 1, 0, 0);
    lowered.set('acme', own(1));
    expect(lowered.state('acme', 0)).toMatchObject({ events: { limit: 2, remaining: 2 } });
  });

  test.each(['{', '5', 'null', '{"eventsPerSecond":0}', '{"eventsPerSecond":"5"}', '{"bytesPerSecond":1.5}'])(
    '%s is none: it is said, and the default holds',
    (json) => {
      const some = quotas(10);
      some.set('acme', own(1_000));
      expect(some.set('acme', json)).toBe(false);
      expect(some.state('acme', 0)).toMatchObject({ events: { limit: 20 }, bytes: null });
    },
  );

  test('that no process can reach limit nothing', () => {
    const some = quotas(10);
    some.set('acme', own(Number.MAX_SAFE_INTEGER, 100_000_000_001));
    expect(some.state('acme', 0)).toEqual({ events: null, bytes: null });
  });
});

describe('memory', () => {
  test('is kept of so many tenants; those with full buckets are forgotten first, which changes nothing', () => {
    const some = quotas(10, null, { tenantsMax: 100 });
    for (let tenant = 0; tenant < 10; tenant++) some.take(`busy-${tenant}`, 1_000, 0, 5_000);
    for (let tenant = 0; tenant < 90; tenant++) some.take(`idle-${tenant}`, 1, 0, 5_000);
    for (let tenant = 0; tenant < 60; tenant++) some.take(`new-${tenant}`, 1, 0, 10_000);
    for (let tenant = 0; tenant < 10; tenant++) expect(some.exhausted(`busy-${tenant}`, 10_000)).toBe(93_001);
  });

  test('has a bound even when every tenant owes', () => {
    const some = quotas(1, null, { tenantsMax: 50 });
    for (let tenant = 0; tenant < 500; tenant++) some.take(`t-${tenant}`, 1_000, 0, 0);
    let owing = 0;
    // Looking at a forgotten one makes it a known one, so this counts from the newest.
    for (let tenant = 499; tenant >= 450; tenant--) if (some.exhausted(`t-${tenant}`, 0) > 0) owing += 1;
    expect(owing).toBeGreaterThan(0);
    const one = quotas(1, null, { tenantsMax: 1 });
    for (const tenant of ['a', 'b', 'a', 'b']) expect(one.take(tenant, 100, 0, 0)).toBeNull();
  });
});

describe('the header fields', () => {
  test('say what a full bucket holds, and what is left', () => {
    const some = quotas(100, 50_000);
    some.take('acme', 50, 20_000, 0);
    expect(rateLimitFields(some.state('acme', 0))).toEqual({
      policy: '"events";q=200;qu="events";w=2, "bytes";q=100000;qu="content-bytes";w=2',
      limit: '"events";r=150;t=2, "bytes";r=80000;t=2',
    });
    expect(rateLimitFields(quotas(null, 5).state('acme', 0))).toEqual({
      policy: '"bytes";q=10;qu="content-bytes";w=2',
      limit: '"bytes";r=10;t=2',
    });
  });

  test('end no window later than Retry-After', () => {
    const some = quotas(100, 50_000);
    some.take('acme', 250, 0, 0);
    const retryAfterMs = some.exhausted('acme', 0);
    expect(retryAfterMs).toBe(501);
    expect(retryAfterSeconds(retryAfterMs)).toBe(1);
    expect(rateLimitFields(some.state('acme', 0))?.limit).toBe('"events";r=0;t=1, "bytes";r=100000;t=1');
    expect([0, 1, 1_000, 1_001].map(retryAfterSeconds)).toEqual([0, 1, 1, 2]);
  });

  test('are whole numbers of at most 15 digits, whatever the quota', () => {
    const some = quotas(100_000_000_000, 1, { burstSeconds: 60 });
    some.take('acme', 12_345, 2 ** 40, 0);
    const fields = rateLimitFields(some.state('acme', 3_333));
    for (const number of `${fields?.policy} ${fields?.limit}`.matchAll(/=([^;," ]+)/g))
      expect(number[1]).toMatch(/^[0-9]{1,15}$/);
    expect(fields?.limit).toContain('"events";r=6000000000000;t=60');
  });
});

test.each([0, -1, 1.5, 61, Number.NaN])('a burst of %d seconds is a mistake of ours', (burstSeconds) => {
  expect(() => quotas(1, 1, { burstSeconds })).toThrow(RangeError);
});

test.each([-1, 0.5, Number.NaN, 2 ** 41])('a batch of %d is a mistake of ours', (events) => {
  expect(() => quotas(10).take('acme', events, 0, 0)).toThrow(RangeError);
});
