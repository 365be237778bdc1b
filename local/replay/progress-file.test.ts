import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { Batches, EMPTY_DIGEST } from './batches.ts';
import { NOTHING_DONE, readState, StateError, writeState } from './progress-file.ts';
import type { FileRecord } from './record.ts';

const folder = mkdtempSync(join(tmpdir(), 'tallyline-replay-'));
afterAll(() => rmSync(folder, { recursive: true }));

const records: FileRecord[] = Array.from({ length: 50 }, (_, at) =>
  at % 7 === 3
    ? { place: at + 1, code: 'event_too_large', message: '' }
    : { place: at + 1, event: Buffer.from(`{"id":"e-${at}"}`) },
);

function digestsOf(limits: { events: number; bytes: number }): Map<number, string> {
  const batches = new Batches(limits);
  const digests = new Map<number, string>();
  let last = 0;
  for (const record of [...records, null]) {
    const batch = record === null ? batches.take(0) : batches.add(record, 0);
    if (batch === null) continue;
    expect(batch.events.length + batch.unreadable.length).toBe(batch.records - last);
    expect(batch.events.length).toBeLessThanOrEqual(limits.events);
    last = batch.records;
    digests.set(batch.records, batch.digest);
  }
  expect(last).toBe(records.length);
  return digests;
}

test('a later run knows the records that were dealt with, however they were put into batches', () => {
  for (const limits of [
    { events: 7, bytes: 1_000 },
    { events: 100, bytes: 40 },
    { events: 1, bytes: 1 },
  ]) {
    const digests = digestsOf(limits);
    expect(digests.size).toBeGreaterThan(5);
    const later = new Batches({ events: 3, bytes: 1_000 });
    expect(later.digest).toBe(EMPTY_DIGEST);
    for (const record of records) {
      later.pass(record);
      const told = digests.get(later.records);
      if (told !== undefined) expect(later.digest).toBe(told);
    }
  }
});

test('one byte that changed, and a record more, are another digest', () => {
  const digestOf = (some: readonly FileRecord[]): string => {
    const batches = new Batches({ events: 10, bytes: 1_000 });
    for (const record of some) batches.pass(record);
    return batches.digest;
  };
  const changed = [...records];
  changed[5] = { place: 6, event: Buffer.from('{"id":"e-6"}') };
  const joined = [
    { place: 1, event: Buffer.concat([Buffer.from('{"id":"e-0"}'), Buffer.from('{"id":"e-1"}')]) },
  ];
  const all = [records, changed, records.slice(1), records.slice(0, -1), joined, records.slice(0, 2)];
  expect(new Set(all.map(digestOf)).size).toBe(all.length);
});

test('a state is read as it was written, and anything else is refused', () => {
  const path = join(folder, 'state.json');
  expect(readState(path)).toBeNull();
  const state = { ...NOTHING_DONE, records: 5, accepted: 4, rejected: 1, rejectedBytes: 77, digest: 'ab' };
  writeState(path, state);
  expect(readState(path)).toEqual(state);
  for (const text of ['', '{"version":1', '{}', JSON.stringify({ ...state, records: -1 })]) {
    writeFileSync(path, text);
    expect(() => readState(path), text).toThrow(StateError);
  }
});
