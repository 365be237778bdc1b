import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, afterEach, beforeEach, expect, test } from 'vitest';
import { until } from '../test/until.ts';
import {
  BufferFullError,
  SpoolError,
  TallylineClient,
  UnsentError,
  type ClientOptions,
  type SpoolOptions,
  type UsageEvent,
} from './index.ts';

// The spool on a real disk. What a crash of the process leaves is what stands in the folder at that moment, so that a
// copy of the folder is a crash. (Crashes by SIGKILL: test/client-process.test.ts.)

const root = mkdtempSync(join(tmpdir(), 'tallyline-spool-'));
let directory = '';
let folders = 0;
const clients: TallylineClient[] = [];
const warnings: Error[] = [];
const onWarning = (warning: Error): void => void warnings.push(warning);

beforeEach(() => {
  directory = join(root, String((folders += 1)));
  warnings.length = 0;
  process.on('warning', onWarning);
});
afterEach(async () => {
  process.off('warning', onWarning);
  await Promise.all(clients.splice(0).map((client) => client.close().catch(() => undefined)));
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** An edge that is away until `open`, and then takes everything; or rejects what its name says. */
function edge(open = true) {
  const received: UsageEvent[][] = [];
  const state = { open, status: 503, shutsAfter: Infinity };
  const answer = (status: number, body: unknown): Promise<Response> =>
    Promise.resolve(new Response(JSON.stringify(body), { status }));
  return {
    state,
    /** Batch by batch. */
    received,
    get ids(): string[] {
      return received.flat().map(({ id }) => id);
    },
    fetch: ((_: unknown, init?: RequestInit) => {
      if (!state.open) return answer(state.status, { code: 'key_invalid' });
      const events = JSON.parse(init?.body as string) as UsageEvent[];
      received.push(events);
      if (received.flat().length >= state.shutsAfter) state.open = false;
      const rejected = events.flatMap(({ id }, index) =>
        id.startsWith('bad') ? [{ index, id, code: 'field_missing', message: 'm' }] : [],
      );
      return answer(202, { accepted: events.length - rejected.length, rejected });
    }) as typeof fetch,
  };
}

function newClient(
  spool: Partial<SpoolOptions>,
  at: ReturnType<typeof edge>,
  options: Partial<ClientOptions> = {},
): TallylineClient {
  const client = new TallylineClient({
    url: 'http://edge.test',
    key: 'k',
    spool: { directory, ...spool },
    fetch: at.fetch,
    attemptsMax: 1,
    compress: false,
    flushIntervalMs: 5,
    backoffMaxMs: 20,
    flushOnExit: false,
    onRejected: () => undefined,
    ...options,
  });
  clients.push(client);
  return client;
}

const event = (id: string) => ({ id, type: 't', subject: 's' });
const range = (count: number, from = 0): string[] =>
  Array.from({ length: count }, (_, at) => `e${from + at}`);
const files = (ending: string): string[] =>
  readdirSync(directory)
    .filter((name) => name.endsWith(ending))
    .sort();
const segment = (index = 1): string => join(directory, `${String(index).padStart(8, '0')}.events`);

async function recordAll(client: TallylineClient, ids: readonly string[]): Promise<void> {
  for (const id of ids) await client.record(event(id));
}

/** Flushes until nothing is left; a batch that was under way when the edge came back may fail once. */
async function drain(client: TallylineClient): Promise<void> {
  while (client.stats.buffered > 0) {
    await client.flush().catch((error: unknown) => {
      if (!(error instanceof UnsentError)) throw error;
    });
  }
}

/** What a new client of the folder sends. */
async function recovered(options: Partial<ClientOptions> = {}): Promise<string[]> {
  const at = edge();
  const client = newClient({}, at, options);
  await client.close();
  expect(client.stats.buffered).toBe(0);
  return at.ids;
}

test.each(['each', 'interval'] as const)(
  'sync %s: an event is on disk when record resolves, and gone when the edge has it',
  async (sync) => {
    const away = edge(false);
    const client = newClient({ sync }, away);
    await client.record({ type: 't', subject: 's', data: { n: 2n ** 70n } });
    const line = readFileSync(segment(), 'utf8');
    expect(line).toMatch(/^[0-9a-f]{8} \{"type":"t","subject":"s","data":\{"n":"1180591620717411303424"\}/);
    away.state.open = true;
    await drain(client);
    expect(JSON.stringify(away.received[0]![0])).toBe(line.slice(9).trimEnd());
    expect(client.stats).toMatchObject({ accepted: 1, buffered: 0 });
    await client.close();
    expect(files('events')).toEqual([]);
    expect(files('settled')).toEqual([]);
  },
);

test('what could not be sent is sent by the next client of the folder, in order, with the same bytes', async () => {
  const away = edge(false);
  const client = newClient({}, away, { batchEventsMax: 7 });
  await client.record({ type: 't', subject: 's', data: { text: 'ü€😀\n\u2028' } });
  await recordAll(client, range(20));
  const lines = readFileSync(segment(), 'utf8').split('\n');
  await expect(client.close()).rejects.toThrow(UnsentError);
  const at = edge();
  const next = newClient({}, at);
  await next.flush();
  expect(at.ids.slice(1)).toEqual(range(20));
  expect(JSON.stringify(at.received[0]![0])).toBe(lines[0]!.slice(9));
  expect(next.stats).toMatchObject({ accepted: 21, buffered: 0 });
  await next.close();
  expect(await recovered()).toEqual([]);
});

test('what was rejected is not kept', async () => {
  const client = newClient({}, edge());
  await recordAll(client, ['a', 'bad', 'c']);
  await client.flush();
  expect(client.stats).toMatchObject({ accepted: 2, rejected: 1, buffered: 0 });
  await client.close();
  expect(await recovered()).toEqual([]);
});

test('a key that is not valid loses nothing', async () => {
  const away = edge(false);
  away.state.status = 401;
  const client = newClient({}, away);
  await recordAll(client, range(5));
  await expect(client.close()).rejects.toMatchObject({ name: 'UnsentError', code: 'key_invalid' });
  expect(await recovered()).toEqual(range(5));
});

test('a crash at any moment loses no event that was recorded', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.constantFrom('record', 'record', 'record', 'open', 'shut', 'flush', 'turn'), {
        minLength: 5,
        maxLength: 60,
      }),
      fc.integer({ min: 1, max: 5 }),
      async (steps, size) => {
        directory = join(root, String((folders += 1)));
        const before = edge(false);
        const client = newClient({ bytesMax: 65_536 }, before, { batchEventsMax: size, bufferEventsMax: 6 });
        const recorded: string[] = [];
        const records: Promise<void>[] = [];
        for (const step of steps) {
          if (step === 'open') before.state.open = true;
          else if (step === 'shut') before.state.open = false;
          else if (step === 'flush') await client.flush().catch(() => undefined);
          else if (step === 'turn') await new Promise((resolve) => setImmediate(resolve));
          else {
            const id = `e${records.length}`;
            records.push(client.record(event(id)).then(() => void recorded.push(id)));
            if (records.length % 3 === 0) await records.at(-1);
          }
        }
        // The crash: the folder as it stands, and what was true at that moment.
        const had = new Set(recorded);
        const accepted = new Set(before.ids);
        const copy = `${directory}-crashed`;
        if (existsSync(directory)) cpSync(directory, copy, { recursive: true, filter: isNoSocket });
        await Promise.all(records);
        directory = copy;
        const sent = await recovered({ bufferEventsMax: 6 });
        expect(sent).toHaveLength(new Set(sent).size);
        expect([...had].filter((id) => !accepted.has(id) && !sent.includes(id))).toEqual([]);
      },
    ),
    { numRuns: 60 },
  );
}, 30_000);

const isNoSocket = (path: string): boolean => !/lock-[^/]*$/.test(path);

test('a file cut at any byte loses what was cut and nothing before it', async () => {
  const client = newClient({}, edge(false));
  await recordAll(client, range(4));
  await client.close().catch(() => undefined);
  const whole = readFileSync(segment());
  const ends = [...whole.entries()].filter(([, byte]) => byte === 0x0a).map(([at]) => at + 1);
  const home = directory;
  for (let cut = 0; cut <= whole.length; cut++) {
    directory = `${home}-${cut}`;
    mkdirSync(directory);
    writeFileSync(segment(), whole.subarray(0, cut));
    const expected = ends.filter((end) => end <= cut).length;
    expect(await recovered(), `cut at ${cut}`).toEqual(range(expected));
  }
  expect(warnings).toEqual([]);
});

test('zeros at the end, as a loss of power leaves them, are cut', async () => {
  const client = newClient({}, edge(false));
  await recordAll(client, range(3));
  await client.close().catch(() => undefined);
  appendFileSync(segment(), Buffer.alloc(4_096));
  const size = readFileSync(segment()).length;
  const next = newClient({}, edge(false));
  await until('it is open', () => next.stats.buffered === 3);
  expect(readFileSync(segment()).length).toBe(size - 4_096);
  await next.close().catch(() => undefined);
  expect(await recovered()).toEqual(range(3));
});

test('damage in the middle takes only its own line, is said, and is kept for a person', async () => {
  const client = newClient({}, edge(false));
  await recordAll(client, range(5));
  await client.close().catch(() => undefined);
  const bytes = readFileSync(segment());
  bytes[bytes.indexOf('"e2"') + 1]! ^= 1;
  writeFileSync(segment(), bytes);
  expect(await recovered()).toEqual(['e0', 'e1', 'e3', 'e4']);
  await until('the warning', () => warnings.length === 1);
  expect(warnings[0]!.message).toMatch(/1 damaged lines; it will be kept as .damaged/);
  expect(files('damaged')).toEqual(['00000001.damaged']);
  expect(readFileSync(join(directory, '00000001.damaged'))).toEqual(bytes);
  const next = newClient({}, edge());
  await recordAll(next, ['later']);
  await next.close();
  expect(files('damaged')).toEqual(['00000001.damaged']);
  expect(await recovered()).toEqual([]);
});

test('marks that were cut or are nonsense mean that events are sent again', async () => {
  const client = newClient({ bytesMax: 1_000_000 }, edge(false), { batchEventsMax: 2 });
  await recordAll(client, range(6));
  await client.close().catch(() => undefined);
  writeFileSync(join(directory, '00000001.settled'), 'nonsense\n');
  writeFileSync(join(directory, '00000009.settled'), 'marks of nothing\n');
  const some = edge();
  some.state.shutsAfter = 4;
  const sender = newClient({}, some, { batchEventsMax: 2, requestsInFlightMax: 1 });
  await expect(sender.close()).rejects.toThrow(UnsentError);
  expect(some.ids).toEqual(range(4));
  expect(files('settled')).toEqual(['00000001.settled']);
  const home = directory;
  const settled = readFileSync(join(home, '00000001.settled'));
  for (const [cut, expected] of [
    [0, range(2, 4)],
    [1, range(4, 2)],
    [settled.length, range(6)],
  ] as const) {
    directory = `${home}-${cut}`;
    cpSync(home, directory, { recursive: true, filter: isNoSocket });
    truncateSync(join(directory, '00000001.settled'), settled.length - cut);
    expect(await recovered()).toEqual(expected);
    expect(files('settled')).toEqual([]);
  }
});

test('memory holds no more than it may; the rest waits on disk and goes in order, once', async () => {
  const at = edge(false);
  const client = newClient({}, at, { bufferEventsMax: 50, batchEventsMax: 20 });
  const ids = range(5_000);
  await Promise.all(ids.map((id) => client.record(event(id))));
  expect(client.stats.buffered).toBe(5_000);
  at.state.open = true;
  const drained = drain(client);
  // While the disk is read, more comes.
  const more = range(2_000, 5_000);
  await Promise.all(more.map((id) => client.record(event(id))));
  await drained;
  await drain(client);
  expect(at.ids).toHaveLength(7_000);
  expect(new Set(at.ids).size).toBe(7_000);
  expect(client.stats).toMatchObject({ accepted: 7_000, buffered: 0 });
  await client.close();
  expect(files('events')).toEqual([]);
});

test('one sender at a time sees the order of record, from disk and from memory', async () => {
  const at = edge();
  const client = newClient({}, at, { bufferEventsMax: 10, batchEventsMax: 4, requestsInFlightMax: 1 });
  const ids = range(500);
  for (const id of ids) {
    await client.record(event(id));
    if (id.endsWith('00')) at.state.open = !at.state.open;
  }
  at.state.open = true;
  await drain(client);
  await client.close();
  expect(at.ids).toEqual(ids);
});

test('a full disk holds record back until there is room', async () => {
  const at = edge(false);
  const client = newClient({ bytesMax: 65_536 }, at);
  const wide = (id: string) => ({ ...event(id), data: { text: 'x'.repeat(1_000) } });
  let taken = 0;
  const all = range(200);
  const recording = (async () => {
    for (const id of all) {
      await client.record(wide(id));
      taken += 1;
    }
  })();
  await until('it is full', () => taken >= 60);
  expect(client.stats.buffered).toBeLessThan(66);
  at.state.open = true;
  await recording;
  await drain(client);
  await client.close();
  expect(at.ids).toEqual(all);
});

test.each(['throw', 'drop'] as const)('a full disk with onFull %s', async (onFull) => {
  const dropped: string[] = [];
  const client = newClient({ bytesMax: 65_536 }, edge(false), {
    onFull,
    onDropped: ({ id }) => dropped.push(id),
  });
  const wide = (id: string) => ({ ...event(id), data: { text: 'x'.repeat(10_000) } });
  await Promise.all(range(6).map((id) => client.record(wide(id))));
  const seventh = client.record(wide('e6'));
  if (onFull === 'throw') await expect(seventh).rejects.toThrow(BufferFullError);
  else await seventh;
  expect(dropped).toEqual(onFull === 'drop' ? ['e6'] : []);
  expect(client.stats).toMatchObject({ buffered: 6, dropped: onFull === 'drop' ? 1 : 0 });
  await client.close().catch(() => undefined);
  expect(await recovered()).toEqual(range(6));
});

test('disk that is settled is free again, even in the file that is written to', async () => {
  const at = edge();
  const client = newClient({ bytesMax: 65_536 }, at, { onFull: 'throw' });
  const wide = (id: string) => ({ ...event(id), data: { text: 'x'.repeat(6_000) } });
  for (let round = 0; round < 20; round++) {
    for (const id of range(9, round * 9)) await client.record(wide(id));
    await client.flush();
  }
  expect(client.stats).toMatchObject({ accepted: 180, buffered: 0 });
  await client.record(event('small'));
  await client.flush();
  await client.record({ ...event('alone'), data: { text: 'x'.repeat(100_000) } });
  await client.close();
  expect(at.ids).toContain('alone');
});

test('a folder that a client uses is refused to another one, until it is closed', async () => {
  const at = edge();
  const first = newClient({}, at);
  await first.record(event('a'));
  const second = newClient({}, at);
  await expect(second.record(event('b'))).rejects.toThrow(/is used by a client that runs/);
  await expect(second.flush()).rejects.toThrow(SpoolError);
  await second.close();
  await first.close();
  const third = newClient({}, at);
  await third.record(event('c'));
  await third.close();
  expect(at.ids).toEqual(['a', 'c']);
});

test('of many that want a folder at once, one gets it', async () => {
  for (let round = 0; round < 5; round++) {
    const all = Array.from({ length: 8 }, () => newClient({}, edge(false)));
    const outcomes = await Promise.allSettled(all.map((client) => client.record(event('a'))));
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    await Promise.all(all.map((client) => client.close().catch(() => undefined)));
    clients.length = 0;
  }
});

test('a folder with a long name has its lock too', async () => {
  directory = join(directory, 'x'.repeat(120));
  const first = newClient({}, edge(false));
  await first.record(event('a'));
  await expect(newClient({}, edge()).record(event('b'))).rejects.toThrow(/is used by a client that runs/);
  await first.close().catch(() => undefined);
  expect(await recovered()).toEqual(['a']);
});

test('a disk that fails is said by record, with the event, and its events are not taken', async () => {
  const client = newClient({}, edge());
  await client.flush();
  rmSync(directory, { recursive: true });
  const failed = (await client
    .record({ type: 't', subject: 's' })
    .catch((error: unknown) => error)) as SpoolError;
  expect(failed).toBeInstanceOf(SpoolError);
  expect(failed.message).toMatch(/could not be written to the spool: ENOENT/);
  expect(failed.event).toMatchObject({ type: 't', id: expect.any(String) as string });
  expect(client.stats.buffered).toBe(0);
  mkdirSync(directory);
  await client.record(failed.event!);
  await client.flush();
  expect(client.stats).toMatchObject({ accepted: 1, buffered: 0 });
});

test('a folder that cannot be made is said by record and flush', async () => {
  writeFileSync(directory, 'a file');
  const client = newClient({}, edge());
  await expect(client.record(event('a'))).rejects.toThrow(/cannot be used/);
  await expect(client.flush()).rejects.toThrow(SpoolError);
  await client.close();
});
