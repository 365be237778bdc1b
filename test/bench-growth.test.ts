// The growth benchmark itself, in small: each part leaves its rows and a plot, a part that is measured again replaces
// only its own, and what was kept is never measured for nothing.
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { choiceOf } from '../bench/growth/choice.ts';
import { growth, type GrowthOptions } from '../bench/growth/command.ts';
import { readGrowth, type Growth } from '../bench/growth/figures.ts';

const folder = join(tmpdir(), `tallyline-growth-${process.pid}-${randomBytes(4).toString('hex')}`);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const SMALL: GrowthOptions = {
  sizes: [
    { part: 'subjects', sizes: [100] },
    { part: 'keys', sizes: [10_000, 100_000] },
    { part: 'shards', sizes: [2] },
    { part: 'queries', sizes: [20_000] },
  ],
  onlyMissing: false,
  seed: 7,
  seconds: 5,
  eventsMax: 2_000,
  subjects: 300,
  queryRuns: 3,
  querySeconds: 5,
  folder,
  onProgress: () => undefined,
};

const results = (): Growth => readGrowth(readFileSync(join(folder, 'growth', 'results.json'), 'utf8'));
const document = (): string => readFileSync(join(folder, 'growth.md'), 'utf8');
/** The rows of the first table behind a heading, without its two lines of head. */
const rowsBehind = (heading: string): string[][] =>
  document()
    .split(`## ${heading}\n`)[1]!
    .split('\n\n')
    .find((text) => text.startsWith('|'))!
    .split('\n')
    .slice(2)
    .map((line) => line.split('|').map((cell) => cell.trim()));

test('every part has a row for each size, and a plot', async () => {
  await growth(SMALL);
  const { subjects, keys, shards, queries } = results();
  expect(subjects.map(({ size }) => size)).toEqual([100]);
  expect(keys.map(({ size }) => size)).toEqual([10_000, 100_000]);
  expect(shards.map(({ figure }) => [figure.subjects, figure.shards])).toEqual([[300, 2]]);
  for (const { figure } of [...subjects, ...shards]) {
    expect(figure.events).toBe(2_000);
    expect(figure.cpuMicrosPerEvent.total).toBeGreaterThan(0);
    expect(figure.rollupRows).toBeGreaterThan(0);
  }
  for (const { figure } of keys) {
    expect(figure.exact.nanosPerEvent).toBeGreaterThan(0);
    expect(figure.exact.bytesPerKey).toBeGreaterThan(16);
    expect(figure.filtered.hotKeys).toBeLessThan(figure.keys);
  }
  const [{ figure } = { figure: null }] = queries;
  expect(figure!.queries.filter(({ p50Ms }) => !(p50Ms !== null && p50Ms > 0))).toEqual([]);
  expect(figure!.queries.every(({ rowsRead, runs }) => rowsRead > 0 && runs > 0)).toBe(true);
  // 31 days, and every subject that was asked for.
  expect(figure!.queries.find(({ name }) => name === 'a tenant by day')?.answerRows).toBe(31);
  expect(figure!.queries.find(({ name }) => name.includes('100 largest'))?.answerRows).toBe(100);

  expect(rowsBehind('Subjects').map((cells) => cells[1])).toEqual(['100']);
  expect(rowsBehind('Dedupe keys').map((cells) => cells[1])).toEqual(['10,000', '100,000']);
  expect(rowsBehind('Shards').map((cells) => cells[2])).toEqual(['2']);
  expect(rowsBehind('Usage queries').map((cells) => cells[1])).toEqual(['20,000']);
  expect(document()).not.toMatch(/undefined|NaN|Infinity|Not measured/);
  for (const name of ['subjects', 'keys', 'shards', 'queries']) {
    expect(document()).toContain(`(growth/${name}.svg)`);
    expectWellFormed(readFileSync(join(folder, 'growth', `${name}.svg`), 'utf8'));
  }
}, 240_000);

test('a part that is measured again replaces its own figure of that size and no other', async () => {
  const before = results();
  await growth({ ...SMALL, seed: 8, sizes: [{ part: 'keys', sizes: [100_000] }] });
  const after = results();
  expect({ ...after, keys: [] }).toEqual({ ...before, keys: [] });
  expect(after.keys[0]).toEqual(before.keys[0]);
  expect(after.keys.map(({ origin }) => origin.seed)).toEqual([7, 8]);
  // Nothing is missing, so nothing is measured: the figures are the same to the last digit.
  await growth({ ...SMALL, onlyMissing: true });
  expect(results()).toEqual(after);
  expect(readdirSync(join(folder, 'growth')).sort()).toEqual([
    'keys.svg',
    'queries.svg',
    'results.json',
    'shards.svg',
    'subjects.svg',
  ]);
}, 60_000);

test('a file that holds no figures is not written over', () => {
  for (const text of ['null', '{}', '[]', '{"subjects":[],"keys":[],"shards":[]}'])
    expect(() => readGrowth(text), text).toThrow('move it away');
});

test('the command line names parts and sizes that there are', () => {
  expect(choiceOf(undefined, undefined)?.map(({ part }) => part)).toEqual([
    'subjects',
    'keys',
    'shards',
    'queries',
  ]);
  expect(choiceOf('shards,keys', undefined)?.map(({ part }) => part)).toEqual(['keys', 'shards']);
  expect(choiceOf('shards', '1,16')).toEqual([{ part: 'shards', sizes: [1, 16] }]);
  for (const [only, sizes] of [
    ['subject', undefined],
    ['keys,keys', undefined],
    ['', undefined],
    [undefined, '1'],
    ['keys,shards', '1'],
    ['shards', '0'],
    ['shards', '1.5'],
    ['shards', ''],
    ['subjects', '1000000'],
  ] as const)
    expect(choiceOf(only, sizes), `${only} ${sizes}`).toBeNull();
});

/** Every tag is closed by its own, and there is one line a figure at least. */
function expectWellFormed(svg: string): void {
  expect(svg.startsWith('<svg ')).toBe(true);
  const open: string[] = [];
  const text = svg.replace(/<!\[CDATA\[[\s\S]*?\]\]>|<!--[\s\S]*?-->/g, '');
  for (const [, slash, name, attributes] of text.matchAll(/<(\/?)([a-zA-Z]+)((?:\s[^<>]*)?)>/g)) {
    if (slash === '/') expect(open.pop()).toBe(name);
    else if (!attributes!.endsWith('/')) open.push(name!);
  }
  expect(open).toEqual([]);
  expect(text.replace(/<[^<>]*>/g, '')).not.toMatch(/[<>]/);
  expect(svg).not.toMatch(/NaN|undefined|Infinity/);
  expect(svg.match(/<path /g)?.length ?? 0).toBeGreaterThan(2);
}
