import fc from 'fast-check';
import { expect, test } from 'vitest';
import { BucketWriter } from './bucket.ts';
import { mixedHash } from './bucket-keys.ts';
import { packed } from './position-in-shard.ts';
import { Names } from './rollup-cache.ts';
import { encodeRollups, ROLLUP_COLUMNS } from './rollup-columns.ts';
import { RollupRows } from './rollup-rows.ts';

/** Reads a Native block of `rollup_hour`, as ClickHouse would: the rows, and where the block ends. */
function decode(body: Uint8Array, begin: number): { rows: unknown[][]; end: number } {
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  let at = begin;
  const varint = (): number => {
    for (let value = 0, shift = 0; ; shift += 7) {
      value += (body[at]! & 127) * 2 ** shift;
      if (body[at++]! < 128) return value;
    }
  };
  const text = (): string => {
    const length = varint();
    at += length;
    return new TextDecoder().decode(body.subarray(at - length, at));
  };
  const fixed = (bytes: number): bigint => {
    let value = 0n;
    for (let byte = bytes - 1; byte >= 0; byte--) value = value * 256n + BigInt(body[at + byte]!);
    at += bytes;
    return value;
  };
  const readers: Record<string, (count: number) => unknown[]> = {
    'LowCardinality(String)': (count) => {
      at += 16;
      const names = Array.from({ length: Number(fixed(8)) }, text);
      expect(fixed(8)).toBe(BigInt(count));
      return Array.from({ length: count }, () => names[Number(fixed(4))]);
    },
    String: (count) => Array.from({ length: count }, text),
    'Array(String)': (count) => {
      const ends = Array.from({ length: count }, () => Number(fixed(8)));
      return ends.map((end, row) => Array.from({ length: end - (ends[row - 1] ?? 0) }, text));
    },
    "DateTime('UTC')": (count) => Array.from({ length: count }, () => Number(fixed(4))),
    UInt16: (count) => Array.from({ length: count }, () => Number(fixed(2))),
    UInt64: (count) => Array.from({ length: count }, () => fixed(8)),
    "DateTime64(3, 'UTC')": (count) => Array.from({ length: count }, () => fixed(8)),
    'Decimal(38, 9)': (count) => Array.from({ length: count }, () => BigInt.asIntN(128, fixed(16))),
  };
  expect(varint()).toBe(ROLLUP_COLUMNS.length);
  const count = varint();
  const columns = ROLLUP_COLUMNS.map((name) => {
    expect(text()).toBe(name);
    return readers[text()]!(count);
  });
  expect(at).toBeLessThanOrEqual(view.byteLength);
  return { rows: Array.from({ length: count }, (_, row) => columns.map((column) => column[row])), end: at };
}

function decodeAll(body: Uint8Array): unknown[][] {
  const all: unknown[][] = [];
  for (let at = 0; at < body.length;) {
    const { rows, end } = decode(body, at);
    for (const row of rows) all.push(row);
    at = end;
  }
  return all;
}

const writer = new BucketWriter('000102030405060708090a0b0c0d0e0f');

function addBucket(rows: RollupRows, tenant: number, hour: number, texts: readonly string[]): number {
  writer.begin(hour, texts.length - 1);
  for (const text of texts) writer.text(text);
  writer.end(tenant);
  const { bytes, start, hash } = writer.take();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return rows.buckets.add(tenant, view, 0, start[1]!, mixedHash(tenant, hash[0]!));
}

function namesOf(...all: readonly string[]): Names {
  const names = new Names();
  names.numbers(all);
  return names;
}

test('a row is told as it is: every text, every size of a quantity, every position', () => {
  const text = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.constant('é'.repeat(70)),
    fc.constant('x'.repeat(200)),
  );
  const value = fc.oneof(
    fc.record({ mantissa: fc.integer({ min: -20_000_000, max: 20_000_000 }), scale: fc.nat(9) }),
    fc.record({ mantissa: fc.maxSafeInteger(), scale: fc.nat(9) }),
    fc.bigInt({ min: -(10n ** 27n) + 1n, max: 10n ** 27n - 1n }),
  );
  const row = fc.record({
    tenant: fc.nat(2),
    meter: fc.nat(3),
    hour: fc.nat(1_000).map((hour) => hour * 3_600),
    texts: fc.array(text, { minLength: 1, maxLength: 4 }),
    values: fc.array(value, { minLength: 1, maxLength: 3 }),
    ms: fc.nat(3_599_999),
    sequence: fc.integer({ min: 1, max: 2 ** 36 }),
    incarnation: fc.integer({ min: 1, max: 255 }),
  });
  fc.assert(
    fc.property(fc.array(row, { minLength: 1, maxLength: 8 }), (all) => {
      const rows = new RollupRows();
      const tenants = namesOf('t0', 't1', 't2');
      const meters = namesOf('m0', 'm1', 'm2', 'm3');
      const places = all.map(({ tenant, meter, hour, texts, values, ms, sequence, incarnation }) => {
        const place = rows.add(addBucket(rows, tenant, hour, texts), meter);
        values.forEach((one, nth) => {
          const rest = [hour * 1_000 + ms, sequence * 65_536 + nth, incarnation] as const;
          if (typeof one === 'bigint') rows.addQuantity(place, one, ...rest);
          else rows.addNumber(place, one.mantissa, one.scale, ...rest);
        });
        return place;
      });
      const body = encodeRollups(9, 3, { rows, tenants, meters }, places);
      const told = decodeAll(body);
      expect(told).toHaveLength(all.length);
      all.forEach(({ tenant, meter, hour, texts, values, ms, sequence, incarnation }, at) => {
        const exact = values.map((one) =>
          typeof one === 'bigint' ? one : BigInt(one.mantissa) * 10n ** BigInt(9 - one.scale),
        );
        const sum = exact.reduce((a, b) => a + b);
        const min = exact.reduce((a, b) => (b < a ? b : a));
        const max = exact.reduce((a, b) => (b > a ? b : a));
        const last = sequence * 65_536 + values.length - 1;
        const [subject, ...dimensions] = texts;
        expect(told[at]).toEqual([
          ...[`t${tenant}`, `m${meter}`, subject, hour, dimensions, 9, BigInt(values.length)],
          ...[
            sum,
            min,
            max,
            exact.at(-1),
            BigInt(hour * 1_000 + ms),
            packed(incarnation, last),
            packed(3, last),
          ],
        ]);
      });
    }),
    { numRuns: 120 },
  );
});

test('more rows than a block has follow in further blocks', () => {
  const rows = new RollupRows();
  const bucket = addBucket(rows, 0, 3_600, ['s']);
  const place = rows.add(bucket, 0);
  rows.addNumber(place, 5, 0, 3_600_000, 65_536, 1);
  const count = 100;
  const names = namesOf('one');
  const places = new Array<number>(count).fill(place);
  const body = encodeRollups(0, 1, { rows, tenants: names, meters: names }, places, 40);
  const blocks: number[] = [];
  let end = 0;
  while (end < body.length) {
    const block = decode(body, end);
    blocks.push(block.rows.length);
    end = block.end;
  }
  expect([blocks, end]).toEqual([[40, 40, 20], body.length]);
  expect(new Set(decodeAll(body).map(String)).size).toBe(1);
});
