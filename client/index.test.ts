import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  BufferFullError,
  ClientClosedError,
  RejectedEventsError,
  TallylineClient,
  UnsentError,
  UnsentEventsError,
  type ClientOptions,
  type Rejection,
  type UsageEvent,
} from './index.ts';
import { retryAfterMs } from './answer.ts';

interface Request {
  readonly url: string;
  readonly headers: Record<string, string>;
  readonly events: readonly { readonly id: string }[];
  answer(status: number, body: unknown, headers?: Record<string, string>): void;
  fail(): void;
}

/** A client whose edge and clock are run by hand. */
function world(options: Partial<ClientOptions> = {}) {
  const requests: Request[] = [];
  const timers: { readonly ms: number; readonly run: () => void }[] = [];
  let waiting: (() => void)[] = [];
  const client = new TallylineClient({
    url: 'http://edge.test/',
    key: 'tl_key',
    random: () => 0.5,
    clock: {
      now: () => 0,
      after(ms, run) {
        const timer = { ms, run };
        timers.push(timer);
        return () => void (timers.includes(timer) && timers.splice(timers.indexOf(timer), 1));
      },
    },
    fetch: (url, init) =>
      new Promise((resolve, reject) => {
        requests.push({
          url: url as string,
          headers: init?.headers as Record<string, string>,
          events: JSON.parse(init?.body as string) as { id: string }[],
          answer: (status, body, headers = {}) =>
            resolve(new Response(JSON.stringify(body), { status, headers })),
          fail: () => reject(new TypeError('fetch failed', { cause: new Error('connection refused') })),
        });
        for (const wake of waiting.splice(0)) wake();
      }),
    ...options,
  });
  return {
    client,
    requests,
    timers,
    /** Resolves with the n-th request, from 0, when it was made. */
    async request(n: number): Promise<Request> {
      while (requests.length <= n) await new Promise<void>((resolve) => (waiting = [...waiting, resolve]));
      return requests[n]!;
    },
    /** Runs the one timer there is, and returns how long it would have been. */
    async fire(): Promise<number> {
      await settled();
      expect(timers).toHaveLength(1);
      const { ms, run } = timers.shift()!;
      run();
      await settled();
      return ms;
    },
  };
}

/** All that follows from what has happened so far has happened. */
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const ok = (request: Request): void => request.answer(202, { accepted: request.events.length, rejected: [] });
const event = (id: string) => ({ id, type: 't', subject: 's' });

test('events are sent together with the key, and counted when the edge has them', async () => {
  const { client, requests, request } = world({ source: 'gateway' });
  await client.record(event('a'));
  await client.record({ type: 't', subject: 's' });
  expect(requests).toHaveLength(0);
  const flushed = client.flush();
  const one = await request(0);
  expect(one.url).toBe('http://edge.test/v1/events');
  expect(one.headers).toMatchObject({ authorization: 'Bearer tl_key', 'content-type': 'application/json' });
  expect(one.events).toMatchObject([
    { id: 'a', source: 'gateway' },
    { id: expect.stringMatching(/^[0-9a-f-]{36}$/) as string, source: 'gateway' },
  ]);
  expect(client.stats).toEqual({
    accepted: 0,
    rejected: 0,
    retried: 0,
    buffered: 2,
    dropped: 0,
    reconnects: 0,
  });
  ok(one);
  await flushed;
  expect(client.stats).toMatchObject({ accepted: 2, rejected: 0, retried: 0, buffered: 0 });
});

test('corrections go the way of events, in their order and under ids that a second call repeats', async () => {
  const { client, request } = world({ source: 'gateway' });
  const time = new Date(Date.UTC(2026, 10, 21, 8, 30));
  await client.record(event('a'));
  await client.void('a');
  await client.void('a', { source: 'other', correctionId: 'again' });
  await client.amend('a', { ...event('a-2'), time, data: { n: 2n } });
  await client.amend('a', { type: 't', subject: 's', source: 'other', time: '2026-11-21T08:30:00Z' });
  await client.void('a');
  const flushed = client.flush();
  const one = await request(0);
  const voided = { id: 'void', source: 'gateway', type: 'tallyline.void', subject: '', voids: 'a' };
  expect(one.events).toEqual([
    { ...event('a'), source: 'gateway' },
    voided,
    { ...voided, id: 'again', source: 'other' },
    { ...event('a-2'), source: 'gateway', time: '2026-11-21T08:30:00.000Z', data: { n: '2' }, amends: 'a' },
    {
      id: expect.stringMatching(/^[0-9a-f-]{36}$/) as string,
      type: 't',
      subject: 's',
      source: 'other',
      time: '2026-11-21T08:30:00Z',
      amends: 'a',
    },
    voided,
  ]);
  ok(one);
  await flushed;
  expect(client.stats).toMatchObject({ accepted: 6, buffered: 0 });
});

test('a correction is sent when all before it has its answer, whatever became of it on the way', async () => {
  const { client, requests, request, timers } = world({ batchEventsMax: 2 });
  for (const id of ['a', 'b', 'c', 'd']) await client.record(event(id));
  await client.void('a');
  await client.record(event('e'));
  await client.record(event('f'));
  await client.record(event('g'));
  const flushed = client.flush();
  await settled();
  const ids = () => requests.map(({ events }) => events.map(({ id }) => id).join());
  expect(ids()).toEqual(['a,b', 'c,d']);
  ok(await request(1));
  await settled();
  // The batch with `a` is tried again: the void must not overtake it.
  (await request(0)).answer(503, { code: 'log_full' });
  await settled();
  expect(ids()).toEqual(['a,b', 'c,d']);
  while (requests.length === 2) {
    for (const { run } of timers.splice(0)) run();
    await settled();
  }
  expect(ids()).toEqual(['a,b', 'c,d', 'a,b']);
  ok(await request(2));
  ok(await request(3));
  ok(await request(4));
  await flushed;
  // What is no correction does not wait for one.
  expect(ids()).toEqual(['a,b', 'c,d', 'a,b', 'void,e', 'f,g']);
  expect(client.stats).toMatchObject({ accepted: 8, buffered: 0 });
});

test('an amendment without a time, which would move the use to now, is not taken', async () => {
  const { client } = world();
  const timeless = event('a-2') as Parameters<typeof client.amend>[1];
  await expect(client.amend('a', timeless)).rejects.toThrow(TypeError);
  expect(client.stats.buffered).toBe(0);
});

test('a batch goes when it is full, by events or by bytes, or when its time has come', async () => {
  const byEvents = world({ batchEventsMax: 2 });
  for (const id of ['a', 'b', 'c']) await byEvents.client.record(event(id));
  expect(byEvents.requests.map(({ events }) => events.map(({ id }) => id))).toEqual([['a', 'b']]);
  expect(await byEvents.fire()).toBe(200);
  expect(byEvents.requests[1]!.events).toMatchObject([{ id: 'c' }]);

  // Each event takes 35 bytes and a comma.
  const byBytes = world({ batchBytesMax: 80, flushIntervalMs: 5 });
  for (const id of ['a', 'b', 'c']) await byBytes.client.record(event(id));
  await byBytes.fire();
  expect(byBytes.requests.map(({ events }) => events.length)).toEqual([2, 1]);

  const large = world({ batchBytesMax: 10 });
  await large.client.record(event('larger than a batch'));
  expect(large.requests).toHaveLength(1);
});

test.each([
  ['no answer', (request: Request) => request.fail()],
  ['503', (request: Request) => request.answer(503, { code: 'log_full' })],
  ['500 without a body of ours', (request: Request) => request.answer(500, 'oops')],
  ['429', (request: Request) => request.answer(429, {})],
  ['408', (request: Request) => request.answer(408, {})],
  ['a 200 of somebody else', (request: Request) => request.answer(200, {})],
  ['a 202 that does not add up', (request: Request) => request.answer(202, { accepted: 1, rejected: [] })],
  [
    'a 202 that names an event there is not',
    (request: Request) =>
      request.answer(202, { accepted: 1, rejected: [{ index: 2, code: 'x', message: '' }] }),
  ],
])('after %s the same events are sent again under the same ids', async (_, happen) => {
  const { client, request, fire } = world();
  await client.record(event('a'));
  await client.record({ type: 't', subject: 's', data: { n: 1 } });
  const flushed = client.flush();
  const first = await request(0);
  happen(first);
  // Half of the first full jitter, 100 ms.
  expect(await fire()).toBe(50);
  const second = await request(1);
  expect(second.events).toEqual(first.events);
  happen(second);
  expect(await fire()).toBe(100);
  ok(await request(2));
  await flushed;
  expect(client.stats).toMatchObject({ accepted: 2, rejected: 0, retried: 2, buffered: 0 });
});

test.each([503, 429])('Retry-After of a %i is honoured, with jitter on top, and bounded', async (status) => {
  const { client, request, fire } = world({ retryAfterMaxMs: 5_000 });
  await client.record(event('a'));
  const flushed = client.flush();
  (await request(0)).answer(status, {}, { 'retry-after': '2' });
  expect(await fire()).toBe(2_050);
  (await request(1)).answer(status, {}, { 'retry-after': '86400' });
  expect(await fire()).toBe(5_100);
  ok(await request(2));
  await flushed;
});

test.each([
  [null, null],
  ['0', 0],
  ['120', 120_000],
  ['Sat, 21 Nov 2026 08:30:10 GMT', 10_000],
  ['Sat, 21 Nov 2026 08:00:00 GMT', 0],
  ['soon', null],
])('Retry-After %j is %s ms', (header, ms) => {
  expect(retryAfterMs(header, Date.UTC(2026, 10, 21, 8, 30))).toBe(ms);
});

test('when all attempts have failed the flush says so, and the events go with the next one', async () => {
  const unsent: UnsentError[] = [];
  const { client, request, fire } = world({ attemptsMax: 2, onUnsent: (error) => unsent.push(error) });
  for (const id of ['a', 'b']) await client.record(event(id));
  const flushed = client.flush();
  const refused = expect(flushed).rejects.toThrow(/2 events could not be sent yet: .*connection refused/);
  (await request(0)).fail();
  await fire();
  (await request(1)).fail();
  await refused;
  expect(unsent).toHaveLength(1);
  expect(client.stats).toMatchObject({ accepted: 0, rejected: 0, retried: 1, buffered: 2 });

  const again = client.flush();
  const third = await request(2);
  expect(third.events.map(({ id }) => id)).toEqual(['a', 'b']);
  ok(third);
  await again;
  expect(client.stats).toMatchObject({ accepted: 2, buffered: 0 });
});

test('without a flush the client tries again by itself, after a pause', async () => {
  const { client, request, requests, fire } = world({ attemptsMax: 1, batchEventsMax: 1, backoffMaxMs: 700 });
  await client.record(event('a'));
  (await request(0)).fail();
  await settled();
  await client.record(event('b'));
  expect(requests).toHaveLength(1);
  expect(await fire()).toBe(700);
  expect(requests.slice(1).map(({ events }) => events[0]!.id)).toEqual(['a', 'b']);
});

test('a rejected event is reported once, its neighbours are accepted', async () => {
  const rejections: Rejection[] = [];
  const { client, request, fire } = world({ onRejected: (rejection) => rejections.push(rejection) });
  for (const id of ['a', 'b', 'c']) await client.record(event(id));
  const flushed = client.flush();
  (await request(0)).fail();
  await fire();
  (await request(1)).answer(202, {
    accepted: 2,
    rejected: [{ index: 1, id: 'b', code: 'time_too_old', message: 'time: …' }],
  });
  await flushed;
  expect(rejections).toEqual([{ event: event('b'), code: 'time_too_old', message: 'time: …', status: 202 }]);
  expect(client.stats).toMatchObject({ accepted: 2, rejected: 1, buffered: 0 });
});

test('a 422 with a list is told event by event', async () => {
  const rejections: Rejection[] = [];
  const { client, request } = world({ onRejected: (rejection) => rejections.push(rejection) });
  for (const id of ['a', 'b']) await client.record(event(id));
  const flushed = client.flush();
  (await request(0)).answer(422, {
    code: 'no_event_admitted',
    accepted: 0,
    rejected: [
      { index: 1, id: 'b', code: 'x', message: '' },
      { index: 0, id: 'a', code: 'y', message: '' },
    ],
  });
  await flushed;
  expect(rejections.map(({ event: { id }, code }) => `${id} ${code}`)).toEqual(['b x', 'a y']);
});

test.each([400, 415])('a %i is not sent again, and every event of it is reported', async (status) => {
  const rejections: Rejection[] = [];
  const { client, request, requests } = world({ onRejected: (rejection) => rejections.push(rejection) });
  for (const id of ['a', 'b']) await client.record(event(id));
  const flushed = client.flush();
  (await request(0)).answer(status, { code: 'body_not_json', detail: 'Look at it.' });
  await flushed;
  expect(requests).toHaveLength(1);
  expect(rejections).toEqual(
    ['a', 'b'].map((id) => ({ event: event(id), code: 'body_not_json', message: 'Look at it.', status })),
  );
});

test.each([401, 403, 404, 405, 407])(
  'a %i is about the key or the address: it is said at once, and the events stay',
  async (status) => {
    const unsent: UnsentError[] = [];
    const { client, request, requests } = world({ onUnsent: (error) => unsent.push(error) });
    for (const id of ['a', 'b']) await client.record(event(id));
    const flushed = client.flush().catch((error: unknown) => error);
    (await request(0)).answer(status, { code: 'key_invalid', detail: 'Check the key.' });
    const error = (await flushed) as UnsentError;
    expect(error).toBeInstanceOf(UnsentError);
    expect(error.message).toMatch(/2 events could not be sent yet: .*Check the key/);
    expect(error.code).toBe('key_invalid');
    expect(unsent).toEqual([error]);
    expect(requests).toHaveLength(1);
    expect(client.stats).toMatchObject({ rejected: 0, retried: 0, buffered: 2 });
    const again = client.flush();
    ok(await request(1));
    await again;
    expect(client.stats).toMatchObject({ accepted: 2, buffered: 0 });
  },
);

test('without a listener the flush rejects with what was refused', async () => {
  const { client, request } = world();
  await client.record(event('a'));
  const flushed = client.flush();
  const refused = expect(flushed).rejects.toThrow(RejectedEventsError);
  (await request(0)).answer(400, { code: 'body_not_json' });
  await refused;
  await client.flush();
});

test('what is too large for one request is sent in two', async () => {
  const { client, request, requests } = world({ onRejected: () => undefined });
  for (const id of ['a', 'b', 'c']) await client.record(event(id));
  const flushed = client.flush();
  (await request(0)).answer(413, { code: 'batch_too_large' });
  ok(await request(1));
  const third = await request(2);
  third.answer(413, { code: 'event_too_large' });
  await flushed;
  expect(requests.map(({ events }) => events.map(({ id }) => id).join(''))).toEqual(['abc', 'ab', 'c']);
  expect(client.stats).toMatchObject({ accepted: 2, rejected: 1, buffered: 0 });
});

test('when the buffer is full, record waits for room', async () => {
  const { client, request } = world({ bufferEventsMax: 2, batchEventsMax: 10 });
  await client.record(event('a'));
  await client.record(event('b'));
  let taken = false;
  const third = client.record(event('c')).then(() => (taken = true));
  await settled();
  expect(taken).toBe(false);
  expect(client.stats.buffered).toBe(2);
  ok(await request(0));
  await third;
  expect(client.stats).toMatchObject({ accepted: 2, buffered: 1 });
});

test('or throws, when it was told to', async () => {
  const { client } = world({ bufferEventsMax: 1, onFull: 'throw' });
  await client.record(event('a'));
  await expect(client.record(event('b'))).rejects.toThrow(BufferFullError);
  expect(client.stats.buffered).toBe(1);
});

test('or drops the new event, tells of it with its id, and counts it', async () => {
  const dropped: UsageEvent[] = [];
  const { client, request } = world({
    bufferEventsMax: 1,
    onFull: 'drop',
    onDropped: (event) => dropped.push(event),
  });
  await client.record(event('a'));
  await client.record(event('b'));
  await client.record({ type: 't', subject: 's' });
  expect(dropped).toEqual([event('b'), expect.objectContaining({ id: expect.any(String) as string })]);
  expect(client.stats).toMatchObject({ buffered: 1, dropped: 2 });
  ok(await request(0));
  await client.flush();
  expect(client.stats).toMatchObject({ accepted: 1, buffered: 0, dropped: 2 });
});

test('records that do not wait for each other do not exceed the buffer', async () => {
  const { client } = world({ bufferEventsMax: 3, onFull: 'throw', batchEventsMax: 100 });
  const outcomes = await Promise.allSettled(
    Array.from({ length: 10 }, (_, at) => client.record(event(`${at}`))),
  );
  expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(3);
  expect(client.stats.buffered).toBe(3);
});

test('a listener that throws changes nothing for the other events', async () => {
  const thrown: unknown[] = [];
  const catcher = (error: unknown): void => void thrown.push(error);
  process.prependOnceListener('uncaughtException', catcher);
  const listeners = process.listeners('uncaughtException').filter((one) => one !== catcher);
  for (const one of listeners) process.off('uncaughtException', one);
  try {
    const { client, request } = world({
      onRejected: () => {
        throw new Error('a mistake of the product');
      },
    });
    for (const id of ['a', 'b']) await client.record(event(id));
    const flushed = client.flush();
    const rejected = [{ index: 0, id: 'a', code: 'field_missing', message: '' }];
    (await request(0)).answer(202, { accepted: 1, rejected });
    await flushed;
    expect(client.stats).toMatchObject({ accepted: 1, rejected: 1, buffered: 0 });
    await settled();
    expect(thrown).toEqual([new Error('a mistake of the product')]);
  } finally {
    for (const one of listeners) process.on('uncaughtException', one);
  }
});

test('no more requests than allowed are under way', async () => {
  const { client, requests } = world({ batchEventsMax: 1, requestsInFlightMax: 3 });
  for (let at = 0; at < 10; at++) await client.record(event(`e${at}`));
  expect(requests).toHaveLength(3);
  ok(requests[1]!);
  await settled();
  expect(requests).toHaveLength(4);
});

test('close flushes and takes nothing more', async () => {
  const { client, request, timers } = world();
  await client.record(event('a'));
  const closed = client.close();
  await expect(client.record(event('b'))).rejects.toThrow(ClientClosedError);
  ok(await request(0));
  await closed;
  expect(timers).toEqual([]);
});

test('await using closes the client', async () => {
  const { client, request } = world();
  const used = (async () => {
    await using usage = client;
    await usage.record(event('a'));
  })();
  ok(await request(0));
  await used;
  expect(client.stats).toMatchObject({ accepted: 1, buffered: 0 });
  await expect(client.record(event('b'))).rejects.toThrow(ClientClosedError);
  await client.close();
});

test('close hands back what could not be sent', async () => {
  const { client, request, timers } = world({ attemptsMax: 1, batchEventsMax: 1, requestsInFlightMax: 2 });
  for (const id of ['a', 'b']) await client.record(event(id));
  const closed = client.close();
  const refused = closed.catch((error: unknown) => error);
  (await request(0)).fail();
  await settled();
  ok(await request(1));
  const error = await refused;
  expect(error).toBeInstanceOf(UnsentEventsError);
  expect((error as UnsentEventsError).events).toEqual([event('a')]);
  expect(client.stats).toMatchObject({ accepted: 1, buffered: 0 });
  expect(timers).toEqual([]);
});

test.each([
  { url: 'ftp://x' },
  { url: 'nonsense' },
  { key: '' },
  { batchEventsMax: 0 },
  { attemptsMax: Number.NaN },
  { flushIntervalMs: -1 },
  { transport: 'tcp' as 'http' },
  { onFull: 'reject-oldest' as 'drop' },
  { spool: { directory: '' } },
  { spool: { directory: '/tmp/never', bytesMax: 1 } },
])('%j cannot work', (options) => {
  expect(() => new TallylineClient({ url: 'http://x', key: 'k', ...options })).toThrow();
});

test('whatever the edge answers, every event is accepted or reported exactly once in the end', async () => {
  const answers = fc.infiniteStream(
    fc.constantFrom('ok', 'ok', 'fail', '503', 'some', 'none', '413', '400', '401'),
  );
  await fc.assert(
    fc.asyncProperty(
      answers,
      fc.integer({ min: 1, max: 40 }),
      fc.integer({ min: 1, max: 7 }),
      async (stream, count, size) => {
        const script = stream[Symbol.iterator]();
        const accepted: string[] = [];
        const reported: string[] = [];
        const client = new TallylineClient({
          url: 'http://edge.test',
          key: 'k',
          batchEventsMax: size,
          attemptsMax: 2,
          bufferEventsMax: 10,
          requestsInFlightMax: 3,
          onRejected: ({ event: { id } }) => reported.push(id),
          clock: {
            now: () => 0,
            after(_, run) {
              const immediate = setImmediate(run);
              return () => clearImmediate(immediate);
            },
          },
          fetch: async (_, init) => {
            await Promise.resolve();
            const ids = (JSON.parse(init?.body as string) as { id: string }[]).map(({ id }) => id);
            const rejected = ids.map((id, index) => ({ index, id, code: 'field_missing', message: '' }));
            const answer = (status: number, body: unknown): Response =>
              new Response(JSON.stringify(body), { status });
            switch (script.next().value) {
              case 'fail':
                throw new TypeError('fetch failed');
              case '503':
                return answer(503, {});
              case '413':
                return answer(413, { code: 'body_too_large' });
              case '400':
                return answer(400, { code: 'body_not_json' });
              case '401':
                return answer(401, { code: 'key_invalid' });
              case 'none':
                return answer(422, { accepted: 0, rejected });
              case 'some':
                accepted.push(...ids.slice(1));
                return answer(202, { accepted: ids.length - 1, rejected: rejected.slice(0, 1) });
              default:
                accepted.push(...ids);
                return answer(202, { accepted: ids.length, rejected: [] });
            }
          },
        });
        const ids = Array.from({ length: count }, (_, at) => `e${at}`);
        for (const id of ids) await client.record(event(id));
        for (;;) {
          const done = await client.flush().then(
            () => true,
            (error: unknown) => {
              if (!(error instanceof UnsentError)) throw error;
              return false;
            },
          );
          if (done) break;
        }
        await client.close();
        expect([...accepted, ...reported].sort()).toEqual(ids.sort());
        expect(client.stats).toMatchObject({
          accepted: accepted.length,
          rejected: reported.length,
          buffered: 0,
        });
      },
    ),
    { numRuns: 100 },
  );
});
