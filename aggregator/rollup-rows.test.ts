import { expect, test } from 'vitest';
import { mixedHash } from './bucket-keys.ts';
import { BucketWriter, bucketParts } from './bucket.ts';
import { DroppedBuckets } from './dropped-buckets.ts';
import { RollupRows } from './rollup-rows.ts';
import { PAGE_SHIFT, RowPages } from './row-pages.ts';

const KEY = '000102030405060708090a0b0c0d0e0f';
const BUCKETS = 6_000;

/** Buckets of a dozen lengths, and the hash of each with its tenant, which is one of three. */
function bucketsOf(count: number, hourSeconds = 3_600) {
  const writer = new BucketWriter(KEY);
  for (let number = 0; number < count; number++) {
    writer.begin(hourSeconds, number % 3);
    writer.text('s'.repeat(number % 4) + String(number));
    for (let left = number % 3; left > 0; left--) writer.text(`d${left}`);
    writer.end(number % 3);
  }
  const { bytes, start, hash, tenant } = writer.take();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const at = (n: number) =>
    [tenant[n]!, view, start[n]!, start[n + 1]!, mixedHash(tenant[n]!, hash[n * 2]!)] as const;
  return { at, bytes, start };
}

test('rows and buckets keep what they are while pages and slots grow, and each is found', () => {
  const { at, bytes, start } = bucketsOf(BUCKETS);
  const rows = new RollupRows();
  const made: number[][] = [];
  for (let n = 0; n < BUCKETS; n++) {
    if (rows.buckets.find(...at(n)) !== 0) throw new Error(`bucket ${n} is there already`);
    const bucket = rows.buckets.add(...at(n));
    made.push(Array.from({ length: 1 + (n % 3) }, (_, meter) => rows.add(bucket, meter)));
    // Later rows of an earlier bucket lie elsewhere, and are in its ring all the same.
    if (n >= 100) made[n - 100]!.push(rows.add(rows.bucketOf(made[n - 100]![0]!), 7));
    for (const [nth, row] of made[n]!.entries()) rows.addNumber(row, n, 0, 3_600_000, 65_536 + nth, 1);
  }
  expect(rows.pages.doubles.length).toBeGreaterThan(2);
  for (let n = 0; n < BUCKETS; n++) {
    const bucket = rows.buckets.find(...at(n));
    const ring: number[] = [];
    let row = rows.firstOf(bucket);
    let found = 0;
    do {
      ring.push(row);
      if (rows.find(row, rows.meterOf(row)) === row) found += 1;
      row = rows.nextOf(row);
    } while (row !== ring[0]);
    expect({
      ...bucketParts(...rows.buckets.bytesOf(bucket)),
      tenant: rows.buckets.tenantOf(bucket),
      ring,
      found,
      missing: rows.find(ring[0]!, 9),
      latest: rows.totalsOf(ring[0]!).latest,
    }).toEqual({
      ...bucketParts(bytes, start[n]!),
      tenant: n % 3,
      ring: made[n],
      found: made[n]!.length,
      missing: 0,
      latest: BigInt(n) * 1_000_000_000n,
    });
  }
});

test('what is taken lies in one page, behind everything before it, and is zero', () => {
  const pages = new RowPages();
  let end = 1;
  for (let places = 1; places < 3_000; places += 7) {
    const place = pages.take(places);
    expect(place).toBeGreaterThanOrEqual(end);
    end = place + places;
    expect(place >>> PAGE_SHIFT).toBe((end - 1) >>> PAGE_SHIFT);
  }
  for (const page of pages.words) expect(page.some((word) => word !== 0)).toBe(false);
  expect(() => pages.take(2 ** PAGE_SHIFT + 1)).toThrow(RangeError);
});

test('every bucket that was dropped may be stored; of others hardly any, until their hour is as old as a filter gets', () => {
  const dropped = new DroppedBuckets(-1);
  const count = 5_000;
  const all = bucketsOf(count * 2, 7_200);
  const rows = new RollupRows();
  for (let n = 0; n < count; n++) rows.buckets.add(...all.at(n));
  expect(dropped.mayHave(7_200, all.at(0)[4])).toBe(false);
  dropped.drop(rows.buckets, 7_200);
  let inVain = 0;
  for (let n = 0; n < count * 2; n++) {
    const may = dropped.mayHave(7_200, all.at(n)[4]);
    if (n < count) expect(may).toBe(true);
    else if (may) inVain += 1;
  }
  expect(inVain / count).toBeLessThan(0.01);
  expect(dropped.mayHave(10_800, all.at(0)[4])).toBe(false);
  for (let hour = 3; hour < 11; hour++) {
    const later = new RollupRows();
    later.buckets.add(...bucketsOf(1, hour * 3_600).at(0));
    dropped.drop(later.buckets, hour * 3_600);
  }
  // Its filter went, so all of its hour may be stored.
  expect(dropped.mayHave(7_200, all.at(count * 2 - 1)[4])).toBe(true);
  dropped.forget(0);
  expect(dropped.mayHave(36_000, 1)).toBe(true);
  expect(dropped.mayHave(39_600, 1)).toBe(false);
});
