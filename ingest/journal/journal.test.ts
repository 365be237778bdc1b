import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import { createLog } from '../../runtime/log.ts';
import { CrashDisk, type Crash } from '../../test/crash-disk.ts';
import { until } from '../../test/until.ts';
import { JournalFolder, type JournalDisk } from './journal-disk.ts';
import type { Place } from './journal-index.ts';
import { encodeSegmentHeader, recordBytes, SEGMENT_HEADER_BYTES } from './journal-record.ts';
import { Journal, type JournalError, type JournalOptions, type Keeper } from './journal.ts';

const SHARDS = 2;
const scratch = mkdtempSync(join(tmpdir(), 'tallyline-journal-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

let folders = 0;
const newFolder = (): string => join(scratch, String(++folders));

interface World {
  readonly journal: Journal;
  /** Unsound records that were found. */
  readonly damaged: () => number;
  /** Blocks in each sync. */
  readonly syncs: readonly number[];
  readonly timers: Set<() => void>;
}

async function open(disk: JournalDisk, more: Partial<JournalOptions> = {}): Promise<World> {
  let damaged = 0;
  const syncs: number[] = [];
  const timers = new Set<() => void>();
  const journal = await Journal.open({
    disk,
    folder: 'folder',
    shards: SHARDS,
    deployment: '00112233445566ff',
    bytesMax: 1_000_000,
    segmentBytesMax: 100_000,
    log: createLog('test', 'silent'),
    measures: {
      synced: (_, blocks) => void syncs.push(blocks),
      refused: () => {},
      resent: () => {},
      damaged: (records) => (damaged += records),
      doubted: () => {},
      watch: () => {},
      watchShards: () => {},
    },
    now: () => 1_000,
    random: () => 0.5,
    after(_, run) {
      const timer = (): void => {
        timers.delete(timer);
        run();
      };
      timers.add(timer);
      return () => void timers.delete(timer);
    },
    ...more,
  });
  return { journal, damaged: () => damaged, syncs, timers };
}

/** A block that says which one it is. */
function blockOf(number: number, length = 20): Uint8Array {
  const block = Buffer.alloc(length, number);
  block.writeUInt32LE(number, 0);
  return block;
}

const numberOf = (block: Uint8Array): number => Buffer.from(block).readUInt32LE(0);

class TestKeeper implements Keeper {
  readonly shard: number;
  readonly events = 1;
  readonly block: Uint8Array;
  place: Place | null = null;
  error: JournalError | null = null;
  onTold: () => void = () => {};

  constructor(number: number, length = 20) {
    this.shard = number % SHARDS;
    this.block = blockOf(number, length);
  }

  kept(place: Place): void {
    this.place = place;
    this.onTold();
  }

  notKept(error: JournalError): void {
    this.error = error;
    this.onTold();
  }
}

function append(journal: Journal, numbers: readonly number[], length = 20): TestKeeper[] {
  return numbers.map((number) => {
    const keeper = new TestKeeper(number, length);
    journal.append(keeper);
    return keeper;
  });
}

/** The numbers of all blocks that wait, in order. */
async function waiting(journal: Journal): Promise<number[]> {
  const numbers: number[] = [];
  for (let shard = 0; shard < SHARDS; shard++) {
    for (let place = journal.index.oldestWaiting(shard); place; place = journal.index.oldestWaiting(shard)) {
      journal.index.sent(place);
      numbers.push(numberOf((await journal.read(place))!));
    }
    journal.index.forget(shard);
  }
  return numbers.sort((a, b) => a - b);
}

const range = (from: number, to: number): number[] =>
  Array.from({ length: to - from + 1 }, (_, at) => from + at);

test('what was kept is there for the next process, over as many segments as it takes', async () => {
  const folder = newFolder();
  const first = await open(new JournalFolder(folder), { segmentBytesMax: 1_000 });
  for (let number = 0; number < 100; number += 4) {
    append(first.journal, range(number, number + 3));
    await first.journal.idle();
  }
  expect(first.journal.index.segments.length).toBeGreaterThan(3);
  await first.journal.close();

  const second = await open(new JournalFolder(folder));
  expect(await waiting(second.journal)).toEqual(range(0, 99));
  expect(second.journal.bytes).toBeGreaterThan(100 * recordBytes(20));
  await second.journal.close();
});

test('released blocks are gone with their segments, and a clean end leaves an empty folder', async () => {
  const folder = newFolder();
  const disk = new JournalFolder(folder);
  const { journal } = await open(disk, { segmentBytesMax: 250, bytesMax: 10_000 });
  const keepers: TestKeeper[] = [];
  for (const number of range(0, 19)) {
    keepers.push(...append(journal, [number]));
    await journal.idle();
  }
  const before = journal.bytes;
  keepers.slice(0, 12).forEach(({ place }, at) => journal.index.acknowledged(place!, at + 1));
  for (let shard = 0; shard < SHARDS; shard++) journal.index.releaseUpTo(shard, 12);
  journal.tidy();
  await until('room is given back', () => journal.bytes < before / 2);
  for (const { place } of keepers) journal.index.release(place!);
  await journal.close();
  expect(await disk.list()).toEqual([]);
});

test('a block is told to be kept only when the disk has synced it, and what comes meanwhile shares the next sync', async () => {
  const disk = new CrashDisk();
  const { journal, syncs: committed } = await open(disk);
  let release = (): void => {};
  let syncs = 0;
  disk.beforeAppend = () => {
    syncs += 1;
    return new Promise((resolve) => (release = resolve));
  };
  const told: number[] = [];
  const add = (number: number): void => {
    const keeper = new TestKeeper(number);
    keeper.onTold = () => told.push(number);
    journal.append(keeper);
  };
  add(1);
  add(2);
  await until('the first commit is syncing', () => syncs === 1);
  for (const number of range(3, 9)) add(number);
  expect(told).toEqual([]);
  release();
  await until('the second commit is syncing', () => syncs === 2);
  expect(told).toEqual([1, 2]);
  release();
  await journal.idle();
  expect(told).toEqual(range(1, 9));
  expect(syncs).toBe(2);
  expect(committed).toEqual([2, 7]);
});

test('the bound is kept: what exceeds it is refused at once, and there is room again after a release', async () => {
  const { journal } = await open(new JournalFolder(newFolder()), { bytesMax: 4_000, segmentBytesMax: 1_000 });
  const kept: TestKeeper[] = [];
  let refused: TestKeeper | undefined;
  for (let number = 0; refused === undefined; number++) {
    const [keeper] = append(journal, [number], 300);
    if (keeper!.error === null) kept.push(keeper!);
    else refused = keeper;
    await journal.idle();
    expect(journal.bytes).toBeLessThanOrEqual(4_000 + 2 * SEGMENT_HEADER_BYTES);
  }
  expect(refused.error).toMatchObject({ kind: 'full' });
  expect(journal.unable).toBe('full');
  expect(kept.length).toBeGreaterThan(8);
  for (const { place } of kept.slice(0, 6)) journal.index.release(place!);
  journal.tidy();
  await until('it takes blocks again', () => journal.unable === null);
  const [after] = append(journal, [99], 300);
  await journal.idle();
  expect(after!.error).toBeNull();
  await journal.close();
});

test('a segment cut at any byte loses nothing that was whole before it, and the next process goes on', async () => {
  const folder = newFolder();
  const disk = new JournalFolder(folder);
  const { journal } = await open(disk);
  append(journal, [1, 2, 3], 13);
  await journal.close();
  const [name] = (await disk.list()).filter((one) => one.endsWith('.journal'));
  const whole = await disk.read(name!);
  expect(whole.length).toBe(SEGMENT_HEADER_BYTES + 3 * recordBytes(13));

  for (let length = 0; length <= whole.length; length++) {
    const cut = new CrashDisk(new Map([[name!, whole.subarray(0, length)]]));
    const next = await open(cut);
    const expected = Math.max(0, Math.floor((length - SEGMENT_HEADER_BYTES) / recordBytes(13)));
    expect([length, await waiting(next.journal)]).toEqual([length, range(1, expected)]);
    append(next.journal, [7]);
    await next.journal.idle();
    expect(next.damaged()).toBe(0);
    // The tail is gone for good: the process after the next finds what this one has.
    const after = await open(new CrashDisk(cut.files()));
    expect(await waiting(after.journal)).toEqual([...range(1, expected), 7]);
    expect(after.damaged()).toBe(0);
  }
});

test('a damaged record costs itself alone: it is counted, the others are sent, and the file is kept aside', async () => {
  const disk = new CrashDisk();
  const first = await open(disk);
  append(first.journal, [1, 2, 3], 40);
  await first.journal.close();
  const files = disk.files();
  const [name] = [...files.keys()];
  files.get(name!)![SEGMENT_HEADER_BYTES + recordBytes(40) + 60]! ^= 4;

  const damagedDisk = new CrashDisk(files);
  const second = await open(damagedDisk);
  expect(await waiting(second.journal)).toEqual([1, 3]);
  expect(second.damaged()).toBe(1);
  append(second.journal, [4]);
  await second.journal.close();
  // As long as they are not released, they are found again.
  const third = await open(new CrashDisk(damagedDisk.files()));
  expect(await waiting(third.journal)).toEqual([1, 3, 4]);

  const last = new CrashDisk(damagedDisk.files());
  const fourth = await open(last);
  for (let shard = 0; shard < SHARDS; shard++) {
    for (
      let place = fourth.journal.index.oldestWaiting(shard);
      place;
      place = fourth.journal.index.oldestWaiting(shard)
    ) {
      fourth.journal.index.release(place);
    }
  }
  await fourth.journal.close();
  expect([...last.files().keys()]).toEqual([name!.replace('.journal', '.damaged')]);
  // Its number is not given to another segment.
  const fifth = await open(last);
  expect(fifth.journal.index.segments[0]!.number).toBeGreaterThan(1);
});

test('a segment whose end is torn and that is not the last is damage: it may have been promised', async () => {
  const disk = new CrashDisk();
  const { journal } = await open(disk, { segmentBytesMax: 300, bytesMax: 10_000 });
  for (const number of range(1, 12)) {
    append(journal, [number]);
    await journal.idle();
  }
  await journal.close();
  const files = disk.files();
  const names = [...files.keys()].sort();
  files.set(names[0]!, files.get(names[0]!)!.subarray(0, -10));
  const { journal: next, damaged } = await open(new CrashDisk(files));
  const found = await waiting(next);
  expect(found).toHaveLength(11);
  expect(damaged()).toBe(1);
});

test('a disk that fails: nothing is told to be kept, what was kept stays, and it goes on by itself afterwards', async () => {
  const disk = new CrashDisk();
  const { journal, timers } = await open(disk);
  let changes = 0;
  journal.onChange = () => (changes += 1);
  const [kept] = append(journal, [1]);
  await journal.idle();
  expect(kept!.place).not.toBeNull();

  disk.failing.add(disk.operations + 1);
  const lost = append(journal, [2, 3]);
  await journal.idle();
  expect(lost.map(({ error }) => error?.kind)).toEqual(['failed', 'failed']);
  expect(append(journal, [4])[0]!.error).toMatchObject({ kind: 'failed' });
  expect([journal.unable, changes > 0]).toEqual(['failed', true]);

  // The next try fails at making a segment, the one after that succeeds.
  disk.failing.add(disk.operations + 2);
  [...timers].forEach((run) => run());
  await until('it has tried', () => timers.size === 1 && disk.operations > 6);
  expect(journal.unable).toBe('failed');
  [...timers].forEach((run) => run());
  await until('it takes blocks again', () => journal.unable === null);
  append(journal, [5]);
  await journal.idle();
  const next = await open(new CrashDisk(disk.files()));
  expect(await waiting(next.journal)).toEqual([1, 5]);
  expect(next.damaged()).toBe(0);
});

test('a folder that cannot be used is a mistake of the configuration, said at the start', async () => {
  const file = join(scratch, 'a file');
  writeFileSync(file, '');
  await expect(open(new JournalFolder(join(file, 'below')))).rejects.toThrow(
    /TALLYLINE_EDGE_JOURNAL=folder cannot be used: ENOTDIR/,
  );

  const folder = newFolder();
  const { journal } = await open(new JournalFolder(folder));
  await expect(open(new JournalFolder(folder))).rejects.toThrow(/in use by another process/);
  append(journal, [1]);
  await journal.close();

  await expect(open(new JournalFolder(folder), { shards: 3 })).rejects.toThrow(/TALLYLINE_SHARDS=2, not 3/);
  await expect(open(new JournalFolder(folder), { deployment: 'ff'.repeat(8) })).rejects.toThrow(
    /TALLYLINE_IDENTITY_KEY/,
  );
  const newer = encodeSegmentHeader({
    shards: SHARDS,
    deployment: '00112233445566ff',
    tag: new Uint8Array(8),
    openedAtMs: 0,
  });
  newer.writeUInt32LE(2, 8);
  newer.writeUInt32LE(crc32(newer.subarray(8)), 4);
  await expect(open(new CrashDisk(new Map([['0000000001.journal', newer]])))).rejects.toThrow(
    /version 2, and this program reads version 1/,
  );
  // Refusing changes nothing: the process that fits finds everything.
  const again = await open(new JournalFolder(folder));
  expect(await waiting(again.journal)).toEqual([1]);
  await again.journal.close();
});

// The crashes. A life: open, append, release some, until the crash; the next process opens what is left.

interface Promised {
  readonly kept: Set<number>;
  readonly released: Set<number>;
  readonly given: Set<number>;
}

/** Lives on the disk until it crashes, or to the end. */
async function live(disk: CrashDisk, from: number, told: Promised): Promise<void> {
  const options = { segmentBytesMax: 300, bytesMax: 100_000 };
  const world = await open(disk, options).catch(() => null);
  if (world === null) return;
  const { journal } = world;
  for (let number = from; number < from + 12; number += 3) {
    const keepers = append(journal, range(number, number + 2));
    for (const keeper of keepers) told.given.add(numberOf(keeper.block));
    await journal.idle();
    for (const keeper of keepers) {
      if (keeper.place === null) continue;
      told.kept.add(numberOf(keeper.block));
      if (number % 2 === 1) {
        // From here on it may be gone.
        told.released.add(numberOf(keeper.block));
        journal.index.release(keeper.place);
      }
    }
    journal.tidy();
  }
  await journal.close().catch(() => undefined);
}

async function found(files: ReadonlyMap<string, Buffer>): Promise<{ numbers: number[]; damaged: boolean }> {
  const { journal, damaged } = await open(new CrashDisk(files));
  return { numbers: await waiting(journal), damaged: damaged() > 0 };
}

test('killed before, in the middle of or after any operation on the disk, it keeps what was promised', async () => {
  const rehearsal = new CrashDisk();
  await live(rehearsal, 0, { kept: new Set(), released: new Set(), given: new Set() });
  expect(rehearsal.operations).toBeGreaterThan(20);
  for (let at = 1; at <= rehearsal.operations; at++) {
    for (const how of ['before', 'half', 'unsynced', 'after'] as const) {
      const told: Promised = { kept: new Set(), released: new Set(), given: new Set() };
      const disk = new CrashDisk(new Map(), { at, how });
      await live(disk, 0, told);
      expect(disk.crashed).toBe(true);
      const { numbers, damaged } = await found(disk.afterKill());
      const missing = [...told.kept].filter((one) => !told.released.has(one) && !numbers.includes(one));
      expect({ at, how, missing, damaged }).toEqual({ at, how, missing: [], damaged: false });
      expect(numbers.filter((one) => !told.given.has(one))).toEqual([]);
      expect(new Set(numbers).size).toBe(numbers.length);
    }
  }
});

test('a loss of power at any operation, over several lives, keeps what was promised', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.record({
          at: fc.integer({ min: 1, max: 30 }),
          how: fc.constantFrom<Crash['how']>('before', 'half', 'unsynced', 'after'),
          power: fc.boolean(),
          chances: fc.array(fc.double({ min: 0, max: 0.999, noNaN: true }), { minLength: 5, maxLength: 40 }),
        }),
        { minLength: 1, maxLength: 4 },
      ),
      async (crashes) => {
        const told: Promised = { kept: new Set(), released: new Set(), given: new Set() };
        let files = new Map<string, Buffer>();
        for (const [life, { at, how, power, chances }] of crashes.entries()) {
          const disk = new CrashDisk(files, { at, how });
          await live(disk, 1_000 * life, told);
          let next = 0;
          const random = (): number => chances[next++ % chances.length]!;
          files = power ? disk.afterPowerLoss(random) : disk.afterKill();
        }
        const { numbers } = await found(files);
        const missing = [...told.kept].filter((one) => !told.released.has(one) && !numbers.includes(one));
        expect(missing).toEqual([]);
        expect(numbers.filter((one) => !told.given.has(one))).toEqual([]);
      },
    ),
    { numRuns: 150 },
  );
});
