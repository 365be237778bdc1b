import { gunzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import type { Answer } from './answer.ts';
import { HttpSender } from './http.ts';

interface Seen {
  readonly encoding: string | undefined;
  readonly body: string;
}

/** A sender whose edge answers with these statuses in turn, and what came to it. */
function world(url: string, compress: boolean | 'auto', statuses: readonly number[] = []) {
  const seen: Seen[] = [];
  const left = [...statuses];
  const sender = new HttpSender({
    url,
    key: 'k',
    compress,
    inFlightMax: 4,
    timeoutMs: 1_000,
    now: () => 0,
    fetch: (_, init) => {
      const body = init?.body as string | Buffer;
      const headers = init?.headers as Record<string, string>;
      seen.push({
        encoding: headers['content-encoding'],
        body: typeof body === 'string' ? body : gunzipSync(body).toString(),
      });
      const status = left.shift() ?? 202;
      const answer = status === 202 ? { accepted: 1, rejected: [] } : { code: 'content_encoding_unknown' };
      return Promise.resolve(new Response(JSON.stringify(answer), { status }));
    },
  });
  const send = (bytes: number): Promise<Answer> => {
    const body = JSON.stringify(['x'.repeat(bytes - 4)]);
    return sender.send({ body, bytes: body.length, events: 1 });
  };
  return { seen, send };
}

test.each([
  ['https://edge.example.com', 'auto', 8_191, undefined],
  ['https://edge.example.com', 'auto', 8_192, 'gzip'],
  ['https://edge.example.com', true, 1_023, undefined],
  ['https://edge.example.com', true, 1_024, 'gzip'],
  ['https://edge.example.com', false, 100_000, undefined],
  ['http://localhost:7070', 'auto', 100_000, undefined],
  ['http://127.0.0.1:7070', 'auto', 100_000, undefined],
  ['http://[::1]:7070', 'auto', 100_000, undefined],
  ['http://127.0.0.1:7070', true, 100_000, 'gzip'],
  ['http://localhost.example.com', 'auto', 100_000, 'gzip'],
] as const)('to %s with compress %j, %i bytes go as %s', async (url, compress, bytes, encoding) => {
  const { seen, send } = world(url, compress);
  expect(await send(bytes)).toMatchObject({ outcome: 'taken' });
  expect(seen.map((one) => one.encoding)).toEqual([encoding]);
  expect(seen[0]!.body).toHaveLength(bytes);
});

test.each([415, 400])(
  'where a compressed body gets a %i, the plain one is sent at once, and no other is compressed',
  async (status) => {
    const { seen, send } = world('https://edge.example.com', true, [status]);
    expect(await send(2_000)).toMatchObject({ outcome: 'taken' });
    expect(await send(2_000)).toMatchObject({ outcome: 'taken' });
    expect(seen.map((one) => one.encoding)).toEqual(['gzip', undefined, undefined]);
    expect(seen[1]!.body).toBe(seen[0]!.body);
  },
);

test('and when the plain one gets it too, that is the answer', async () => {
  const { seen, send } = world('https://edge.example.com', true, [415, 415]);
  expect(await send(2_000)).toMatchObject({ outcome: 'refused', status: 415 });
  expect(seen).toHaveLength(2);
});
