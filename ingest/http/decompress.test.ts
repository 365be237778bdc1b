import { brotliCompressSync, gzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { Account } from '../tenant/account.ts';
import { Decompressor, type Compression, type Decompressed } from './decompress.ts';

const LIMIT = 100_000;
const one = new Account('one');
const another = new Account('another');

function run(body: Uint8Array, compression: Compression): Promise<Decompressed> {
  const decompressor = new Decompressor({ decompressionsMax: 1, bodyBytesMax: LIMIT });
  return new Promise((resolve) => decompressor.add(one, body, compression, resolve));
}

const bytes = (text: string): Buffer => Buffer.from(text);
const gzip = gzipSync('hello');
const brotli = brotliCompressSync('hello');

test.each<[string, Uint8Array, Compression, string]>([
  ['gzip', gzip, 'gzip', 'hello'],
  ['several members', Buffer.concat([gzip, gzip]), 'gzip', 'hellohello'],
  ['brotli', brotli, 'br', 'hello'],
  ['as much as may be', gzipSync(Buffer.alloc(LIMIT, 'x')), 'gzip', 'x'.repeat(LIMIT)],
])('%s comes back as it was', async (_what, body, compression, text) => {
  const outcome = await run(body, compression);
  expect(outcome.fault === null && Buffer.from(outcome.body).toString()).toBe(text);
});

test.each<[string, Uint8Array, Compression]>([
  ['nothing', bytes(''), 'gzip'],
  ['nothing', bytes(''), 'br'],
  ['what is no gzip', bytes('{"id":"a"}'), 'gzip'],
  ['what is no brotli', bytes('garbage'), 'br'],
  ['a stream that is cut', gzip.subarray(0, -3), 'gzip'],
  ['a second member that is cut', Buffer.concat([gzip, gzip.subarray(0, 12)]), 'gzip'],
  ['a wrong checksum', Buffer.concat([gzip.subarray(0, -8), bytes('0000'), gzip.subarray(-4)]), 'gzip'],
  ['text behind the stream', Buffer.concat([gzip, bytes('{"id":"a"}')]), 'gzip'],
  ['zeros behind the stream', Buffer.concat([gzip, Buffer.alloc(20)]), 'gzip'],
  ['anything behind the stream', Buffer.concat([brotli, brotli]), 'br'],
  ['a cut stream', brotli.subarray(0, -2), 'br'],
])('%s is malformed', async (_what, body, compression) => {
  expect(await run(body, compression)).toEqual({ fault: 'body_not_decompressed' });
});

test('a bomb is stopped at the limit, and nothing of it is kept', async () => {
  expect(await run(gzipSync(Buffer.alloc(LIMIT + 1)), 'gzip')).toEqual({ fault: 'body_too_large' });
  expect(await run(brotliCompressSync(Buffer.alloc(20_000_000)), 'br')).toEqual({ fault: 'body_too_large' });
});

test('one tenant with many bodies does not stand before another with one', async () => {
  const decompressor = new Decompressor({ decompressionsMax: 2, bodyBytesMax: LIMIT });
  const order: string[] = [];
  const add = (account: Account, name: string): Promise<void> =>
    new Promise((resolve) =>
      decompressor.add(account, gzip, 'gzip', () => {
        order.push(name);
        resolve();
      }),
    );
  const all = Array.from({ length: 20 }, (_, at) => add(one, `one ${at}`));
  all.push(add(another, 'another'));
  expect(decompressor.waiting).toBe(19);
  await Promise.all(all);
  expect(decompressor.waiting).toBe(0);
  // Two were running, and one of the many was next.
  expect(order.indexOf('another')).toBeLessThanOrEqual(4);
  expect(order.filter((name) => name !== 'another')).toHaveLength(20);
});
