import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { NotTaken, sendBatch } from './send-batch.ts';

// An edge that answers as the test says.
let server: Server;
let edge = '';
let bodies: string[] = [];
let answer: (body: string) => { status: number; body: object };

beforeAll(async () => {
  server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const body = Buffer.concat(chunks).toString();
      bodies.push(body);
      const { status, body: given } = answer(body);
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(given));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  edge = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
beforeEach(() => void (bodies = []));
afterAll(() => {
  server.closeAllConnections();
  return new Promise((resolve) => server.close(resolve));
});

const events = (...texts: string[]): Buffer[] => texts.map((text) => Buffer.from(text));
const send = (some: Buffer[], patienceMs = 60_000, onWait?: (said: string) => void) =>
  sendBatch({ edge, key: 'k' }, some, { patienceMs, ...(onWait && { onWait }) });

test('events go as they are, a line each, and those that are rejected come back', async () => {
  const rejected = [{ index: 1, code: 'field_missing', message: 'id' }];
  answer = () => ({ status: 202, body: { accepted: 1, rejected } });
  expect(await send(events('{"n":1.10}', '{}'))).toEqual(rejected);
  expect(bodies).toEqual(['{"n":1.10}\n{}\n']);
});

test('an edge that is full or over the quota is waited for with the same bytes', async () => {
  const statuses = [503, 429, 500, 202];
  answer = () => ({ status: statuses.shift()!, body: { accepted: 1, rejected: [] } });
  const said: string[] = [];
  expect(await send(events('{"id":"a"}'), 60_000, (text) => said.push(text.slice(0, 3)))).toEqual([]);
  expect(said).toEqual(['503', '429', '500']);
  expect(new Set(bodies)).toEqual(new Set(['{"id":"a"}\n']));
});

test('an event that spoils a body stands alone in the end, and all others are sent', async () => {
  const taken: string[] = [];
  answer = (body) => {
    const lines = body.trimEnd().split('\n');
    if (lines.includes('bad'))
      return { status: 400, body: { code: 'body_not_unicode', detail: 'It is bad.' } };
    if (lines.length > 3) return { status: 413, body: { code: 'batch_too_large' } };
    taken.push(...lines);
    return { status: 202, body: { accepted: lines.length, rejected: [] } };
  };
  const texts = Array.from({ length: 20 }, (_, at) => (at === 4 || at === 13 ? 'bad' : `e${at}`));
  const rejected = await send(events(...texts));
  expect(rejected).toEqual(
    [4, 13].map((index) => ({ index, code: 'body_not_unicode', message: 'It is bad.' })),
  );
  expect(taken).toEqual(texts.filter((text) => text !== 'bad'));
});

test('a key that is refused, and an edge that stays away, end it', async () => {
  answer = () => ({ status: 401, body: { code: 'key_unknown' } });
  await expect(send(events('{}'))).rejects.toThrow(NotTaken);
  expect(bodies).toHaveLength(1);
  answer = () => ({ status: 503, body: {} });
  await expect(send(events('{}'), 0)).rejects.toThrow('503');
});
