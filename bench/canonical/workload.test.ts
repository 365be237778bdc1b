// The workload against independent readings of it: bodies are parsed as JSON and counted with maps.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { expectedPostings, billedSubjects, postingKey } from './customers.ts';
import { RequestWriter, requestTemplate } from './body.ts';
import { METERS, Tally } from './tally.ts';
import { duplicatesAmong, LAYOUTS, MODELS, subjectName, subjectNumber, Workload } from './workload.ts';

interface Event {
  readonly id: string;
  readonly source: string;
  readonly type: string;
  readonly subject: string;
  readonly time: string;
  readonly data: {
    readonly model: string;
    readonly input_tokens: number;
    readonly output_tokens: number;
    readonly user: string;
  };
}

/** What the load sends, one template used again and again as it does, every request a millisecond later. */
function sent(
  o: { seed: number; subjects: number; phase: number },
  requests: number,
  perRequest: number,
): string[] {
  const writer = new RequestWriter(new Workload(o), perRequest);
  const templates = Array.from({ length: perRequest === 1 ? LAYOUTS : 1 }, (_, layout) =>
    requestTemplate(perRequest, layout, (bytes) => `length ${bytes}\n`),
  );
  return Array.from({ length: requests }, (_, request) => {
    const template = templates[templates.length === 1 ? 0 : writer.layoutOf(request)]!;
    writer.write(template, request, 1_800_000_000_000 + request);
    const [head, body] = template.bytes.toString('utf8').split('\n');
    expect(head).toBe(`length ${body!.length}`);
    return body!;
  });
}

const eventsOf = (bodies: readonly string[]): Event[] =>
  bodies.flatMap((body) => {
    const parsed = JSON.parse(body) as Event | Event[];
    return Array.isArray(parsed) ? parsed : [parsed];
  });

const cases = fc.record({
  seed: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
  subjects: fc.integer({ min: 2, max: 500 }),
  phase: fc.integer({ min: 0, max: 15 }),
  shape: fc.constantFrom([40, 100], [700, 10], [3_000, 1]),
});

test('what is worked out from numbers is what the bodies say, of every subject and meter', () => {
  fc.assert(
    fc.property(cases, ({ shape: [requests = 0, eventsPerRequest = 0], ...options }) => {
      const events = eventsOf(sent(options, requests, eventsPerRequest));
      const tally = new Tally(options.subjects);
      tally.add(options.seed, { phase: options.phase, requests, eventsPerRequest });
      expect(tally.received).toBe(events.length);
      const first = [...new Map(events.map((event) => [event.id, event])).values()];
      expect(tally.counted).toBe(first.length);
      const bySubject = new Map<number, Event[]>();
      for (const event of first) {
        const subject = subjectNumber(event.subject);
        const before = bySubject.get(subject);
        if (before === undefined) bySubject.set(subject, [event]);
        else before.push(event);
      }
      for (let subject = 0; subject < options.subjects; subject++) {
        const mine = bySubject.get(subject) ?? [];
        const sum = (of: (event: Event) => number): number =>
          mine.reduce((total, event) => total + of(event), 0);
        if (mine.length === 0) {
          if (tally.events[subject] !== 0) expect.fail(`${subjectName(subject)} has no event`);
          continue;
        }
        expect(tally.events[subject]).toBe(mine.length);
        expect(METERS.map(({ key }) => tally.valueOf(key, subject))).toEqual([
          sum(({ data }) => data.input_tokens),
          sum(({ data }) => data.output_tokens),
          mine.filter(({ data }) => data.model !== 'small-0').length,
          Math.max(0, ...mine.map(({ data }) => data.input_tokens)),
          new Set(mine.map(({ data }) => data.user)).size,
        ]);
        for (const [model, name] of MODELS.entries())
          expect(tally.inputTokens[subject * MODELS.length + model]).toBe(
            mine
              .filter(({ data }) => data.model === name)
              .reduce((total, { data }) => total + data.input_tokens, 0),
          );
      }
    }),
    { numRuns: 12 },
  );
});

test('a repeated event is the earlier one, byte for byte', () => {
  fc.assert(
    fc.property(cases, ({ shape: [requests = 0, eventsPerRequest = 0], ...options }) => {
      const seen = new Map<string, string>();
      let repeated = 0;
      for (const event of eventsOf(sent(options, requests, eventsPerRequest))) {
        const text = JSON.stringify(event);
        const before = seen.get(event.id);
        if (before !== undefined) {
          repeated += 1;
          expect(text).toBe(before);
        }
        seen.set(event.id, text);
      }
      expect(repeated).toBe(duplicatesAmong(requests * eventsPerRequest));
    }),
    { numRuns: 20 },
  );
});

test('two of a hundred are duplicates, of the same request, of one shortly before and of any', () => {
  const workload = new Workload({ seed: 7, subjects: 100_000, phase: 1 });
  const distances = { same: 0, recent: 0, far: 0 };
  const events = 1_000_000;
  let chained = 0;
  for (let n = 0; n < events; n++) {
    const original = workload.originalOf(n);
    if (original === n) continue;
    if (workload.originalOf(original) !== original || original > n) chained += 1;
    const requests = Math.floor(n / 100) - Math.floor(original / 100);
    distances[requests === 0 ? 'same' : requests <= 64 ? 'recent' : 'far'] += 1;
  }
  expect(chained).toBe(0);
  expect(distances.same).toBe(5_000);
  expect(distances.recent).toBeGreaterThan(9_999);
  expect(distances.far).toBeGreaterThan(4_500);
  expect(distances.same + distances.recent + distances.far).toBe(duplicatesAmong(events));
});

test('ids differ between numbers and phases, and are version 4 UUIDs', () => {
  const ids = [0, 1, 15].flatMap((phase) =>
    eventsOf(sent({ seed: 1, subjects: 10, phase }, 200, 10)).map(({ id }) => id),
  );
  expect(new Set(ids).size).toBe(3 * (2_000 - duplicatesAmong(2_000)));
  for (const id of ids)
    expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}$/);
});

test('subjects have a long tail, and an event has about 230 bytes', () => {
  const workload = new Workload({ seed: 3, subjects: 100_000, phase: 0 });
  const ofRank = new Map(Array.from({ length: 100_000 }, (_, rank) => [workload.subjectOfRank(rank), rank]));
  expect(ofRank.size).toBe(100_000);
  const events = 330_000;
  const shares = { first: 0, hundred: 0, lastHalf: 0 };
  for (let n = 0; n < events; n++) {
    workload.look(n);
    const rank = ofRank.get(workload.subject)!;
    if (rank === 0) shares.first += 1;
    if (rank < 100) shares.hundred += 1;
    if (rank >= 50_000) shares.lastHalf += 1;
  }
  // The octaves weigh two in 33 each, the last one.
  expect(shares.first / events).toBeCloseTo(2 / 33, 2);
  expect(shares.hundred / events).toBeCloseTo((2 / 33) * (6 + 37 / 64), 2);
  expect(shares.lastHalf / events).toBeCloseTo((2 / 33) * (15_536 / 32_768) + 1 / 33, 2);
  const [body = ''] = sent({ seed: 1, subjects: 100_000, phase: 0 }, 1, 100);
  expect(Math.round(body.length / 100)).toBeGreaterThan(220);
  expect(Math.round(body.length / 100)).toBeLessThan(240);
});

test('customers are spread over the tail, and what is posted for them is their usage', () => {
  const billed = billedSubjects(100_000, 1_000);
  expect(new Set(billed).size).toBe(1_000);
  expect(billed[0]).toBe(new Workload({ seed: 0, subjects: 100_000, phase: 0 }).subjectOfRank(0));
  const tally = new Tally(100_000);
  tally.add(1, { phase: 1, requests: 100, eventsPerRequest: 100 });
  const postings = expectedPostings(tally, billed);
  const largest = billed[0]!;
  expect(postings.get(postingKey(subjectName(largest), 'users'))).toBe(String(tally.users(largest)));
  expect([...postings.values()]).not.toContain('0');
});
