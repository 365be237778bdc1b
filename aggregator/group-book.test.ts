import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { contributionsOf } from '../test/contributions.ts';
import { GroupBook, type JudgedBlock } from './group-book.ts';
import type { MeterHour } from './prepare.ts';
import { COUNTED, DUPLICATE } from './verdict.ts';

const HOUR = 1_767_225_600;

/** An event of one meter without subjects: its group, in which hour, and whether it counts. */
interface Event {
  readonly hour: number;
  readonly group: string;
  readonly counts: boolean;
  /** As what it stands in the block: a number and a text can be the same group. */
  readonly form?: number;
}

interface Block extends JudgedBlock {
  /** Hour and group of each key. */
  readonly keys: readonly string[];
}

function blockOf(events: readonly Event[], groupsMax: number): Block {
  const hours = new Map<number, number>();
  const meterHours: MeterHour[] = [];
  const keys: string[] = [];
  const dimensions: string[] = [];
  const hourOf: number[] = [];
  const numbers = new Map<string, number>();
  const key = events.map(({ hour, group, form = 0 }) => {
    const hourSeconds = HOUR + hour * 3_600;
    if (!hours.has(hour)) {
      hours.set(hour, meterHours.length);
      meterHours.push({ text: JSON.stringify(['t', 'm', hourSeconds]), hourSeconds, groupsMax });
    }
    const text = `${hour} ${group}`;
    const name = `${form} ${text}`;
    if (!numbers.has(name)) {
      numbers.set(name, keys.length);
      keys.push(text);
      dimensions.push(JSON.stringify([group]));
      hourOf.push(hours.get(hour)!);
    }
    return numbers.get(name)!;
  });
  return {
    verdicts: Uint8Array.from(events, ({ counts }) => (counts ? COUNTED : DUPLICATE)),
    contributions: contributionsOf({
      key: Uint32Array.from(key),
      mantissa: new Float64Array(events.length).fill(1),
      scale: new Uint8Array(events.length),
      groups: { meterHours, dimensions, hourOf, ofKey: Uint32Array.from(keys, (_, at) => at + 1) },
    }),
    keys,
  };
}

/** Where each event that counts goes, by the rule: the first groups of the hour in the log have rows of their own. */
function model(log: readonly (readonly Event[])[], groupsMax: number): string[] {
  const first = new Map<number, Set<string>>();
  return log.flat().flatMap(({ hour, group, counts }) => {
    if (!counts) return [];
    const known = first.get(hour) ?? first.set(hour, new Set()).get(hour)!;
    if (known.size < groupsMax) known.add(group);
    return [`${hour} ${known.has(group) ? group : '__overflow__'}`];
  });
}

/** The table: the groups that have rows, by hour. */
type Table = Map<number, Set<string>>;

function run(book: GroupBook, table: Table, block: Block): string[] {
  const unknown = book.unknown([block.contributions.groups.meterHours]);
  book.enter(
    unknown,
    new Map(
      unknown.map(({ text, hourSeconds }) => [
        text,
        Array.from(table.get((hourSeconds - HOUR) / 3_600) ?? [], (group) => JSON.stringify([group])),
      ]),
    ),
  );
  const { keys } = book.place(block);
  const { verdicts, contributions } = block;
  return Array.from(verdicts).flatMap((verdict, at) => {
    if (verdict !== COUNTED) return [];
    const key = contributions.key[at]!;
    const own = block.keys[key]!;
    return [keys?.[key] === 1 ? `${own.split(' ')[0]} __overflow__` : own];
  });
}

function store(table: Table, rows: readonly string[]): void {
  for (const row of rows) {
    const [hour, group] = row.split(' ') as [string, string];
    if (group === '__overflow__') continue;
    const known = table.get(Number(hour)) ?? table.set(Number(hour), new Set()).get(Number(hour))!;
    known.add(group);
  }
}

const event: fc.Arbitrary<Event> = fc.record({
  hour: fc.nat({ max: 2 }),
  group: fc.nat({ max: 9 }).map((number) => `g${number}`),
  counts: fc.integer({ min: 0, max: 3 }).map((dice) => dice > 0),
  form: fc.nat({ max: 1 }),
});
const someLog = fc.array(fc.array(event, { minLength: 1, maxLength: 8 }), { minLength: 1, maxLength: 8 });

describe('the first groups of an hour have rows of their own', () => {
  test('whatever the log is, and however few groups are kept in memory', () => {
    fc.assert(
      fc.property(
        someLog,
        fc.integer({ min: 1, max: 6 }),
        fc.integer({ min: 2, max: 30 }),
        (log, max, kept) => {
          const table: Table = new Map();
          const book = new GroupBook(kept, -1);
          const rows = log.flatMap((events) => {
            const placed = run(book, table, blockOf(events, max));
            store(table, placed);
            book.trim(false);
            return placed;
          });
          expect(rows).toEqual(model(log, max));
        },
      ),
      { numRuns: 1_000 },
    );
  });

  test('a replay ends in the same rows, whatever a crashed flush, or another owner, has written of those behind the watermark', () => {
    fc.assert(
      fc.property(
        someLog,
        fc.integer({ min: 1, max: 6 }),
        fc.nat(),
        fc.nat(),
        fc.infiniteStream(fc.boolean()),
        (log, max, mark, reached, isWritten) => {
          const rows = log.map((events) => events.filter(({ counts }) => counts).length);
          const expected = model(log, max);
          const until = (blocks: number): number => rows.slice(0, blocks).reduce((sum, n) => sum + n, 0);
          const watermark = mark % (log.length + 1);
          const crashed = watermark + (reached % (log.length + 1 - watermark));
          // Everything up to the watermark has rows, and any part of what was flushed behind it.
          const table: Table = new Map();
          store(table, expected.slice(0, until(watermark)));
          for (const row of expected.slice(until(watermark), until(crashed))) {
            if (isWritten.next().value) store(table, [row]);
          }
          const stored = Math.max(-1, ...Array.from(table.keys(), (hour) => HOUR + hour * 3_600));
          const book = new GroupBook(1_000, stored);
          const again = log.slice(watermark).flatMap((events) => run(book, table, blockOf(events, max)));
          expect(again).toEqual(expected.slice(until(watermark)));
        },
      ),
      { numRuns: 3_000 },
    );
  });

  test('what overflows is told, by hour and number of contributions that count', () => {
    const book = new GroupBook(100, -1);
    const events = ['a', 'b', 'c', 'd', 'c', 'a'].map((group, at) => ({ hour: 0, group, counts: at !== 3 }));
    const block = blockOf(events, 2);
    expect(run(book, new Map(), block)).toEqual(['0 a', '0 b', '0 __overflow__', '0 __overflow__', '0 a']);
    expect([...book.place(block).overflowed].map(([hour, count]) => [hour.text, count])).toEqual([
      [JSON.stringify(['t', 'm', HOUR]), 2],
    ]);
  });
});
