/**
 * What holds the totals together, each taken out in turn to show that the simulation notices.
 *
 * A guard of the tables is taken out of the simulated ones. A guard of our code is taken out of the compiled code: a
 * copy of it, in which one place reads otherwise. If the place is not found any more, the guard has moved, and
 * whoever moved it says here where it stands now.
 */
import { cpSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TableGuards } from './simulated-tables.ts';

export interface Guard {
  readonly name: string;
  /** What is wrong without it. */
  readonly without: string;
  readonly tables?: Partial<TableGuards>;
  readonly code?: readonly { readonly file: string; readonly from: string; readonly to: string }[];
}

export const GUARDS: readonly Guard[] = [
  {
    name: 'version',
    without: 'a rollup row that comes later replaces the one of a higher position',
    tables: { version: false },
  },
  {
    name: 'first-write-wins',
    without: 'raw rows of one event stand beside each other',
    tables: { firstWrite: false },
  },
  {
    name: 'incarnation',
    without:
      'the log is never compared with what was counted, neither at a start nor when reading begins anew',
    code: [
      {
        file: 'aggregator/log-mark.js',
        from: 'export function logDifference(created, last, stream, found, behind = 0) {',
        to: 'export function logDifference(created, last, stream, found, behind = 0) { return null;',
      },
      {
        file: 'aggregator/watermark.js',
        from: 'export function lossOf(counted, stream) {',
        to: 'export function lossOf(counted, stream) { return null;',
      },
    ],
  },
  {
    name: 'epoch',
    without: 'the tables take inserts of an owner who was replaced',
    tables: { epoch: false },
  },
  {
    name: 'watermark-order',
    without: 'the watermark is written before the raw rows',
    code: [
      {
        file: 'aggregator/flush-steps.js',
        from: 'const events = withRows(raw.map((part) => part.events));',
        to:
          'const events = withRows(raw.map((part) => part.events)); ' +
          "await this.#insert('watermarks', derived.watermarks.length, () => tables.insertWatermarks(derived.watermarks, timing.now()));",
      },
    ],
  },
  {
    name: 'replay-gating',
    without: 'what is in a rollup row already is added again when it is read again',
    code: [
      {
        file: 'aggregator/fold.js',
        from: 'if (position <= doubles[place + POSITION])\n                continue;',
        to: '',
      },
    ],
  },
  {
    name: 'duplicate-by-smaller-position',
    without: "an event's own replay is taken for its duplicate",
    code: [
      {
        file: 'aggregator/verdict.js',
        from: 'known !== ABSENT && known < position',
        to: 'known !== ABSENT && known <= position',
      },
      // The kernel's guard is its own; without it the reference decides, which is what is broken here.
      {
        file: 'aggregator/dedupe/index.js',
        from: 'if (generations === null)',
        to: 'if (generations !== undefined)',
      },
    ],
  },
  {
    name: 'recount-barrier',
    without: 'the next flush is folded before rows that a correction changed were made anew',
    code: [
      {
        file: 'aggregator/flush.js',
        from: 'if (gathered.derived.recounts.length > 0)',
        to: 'if (false)',
      },
    ],
  },
  {
    name: 'recount-refresh',
    without: 'what is in memory of rows that were made anew stays as it was',
    code: [
      {
        file: 'aggregator/rollup-cache.js',
        from: 'rows.load(row, one, incarnation);\n                break;',
        to: 'break;',
      },
    ],
  },
  {
    name: 'recount-alone',
    without: 'a flush also writes the folded rows of what it makes anew',
    code: [
      {
        file: 'aggregator/flush-recount.js',
        from: 'touched.filter(isOutside)',
        to: 'touched',
      },
    ],
  },
  {
    name: 'settle',
    without: 'corrections that an incarnation left behind its watermark retire nothing',
    tables: { settle: false },
  },
  {
    name: 'correction-target',
    without: 'a correction of what was not counted before it counts',
    code: [
      {
        file: 'aggregator/verdict.js',
        from: '(target === ABSENT || target >= position)',
        to: 'target === ABSENT',
      },
    ],
  },
];

/** What the simulation is made of, and runs on. */
const FOLDERS = ['aggregator', 'bench', 'contract', 'runtime'];

/** Copies the compiled code to `to` and takes the guard out of it. */
export function mutate({ name, code = [] }: Guard, dist: string, to: string): void {
  for (const folder of FOLDERS) {
    if (existsSync(join(dist, folder)))
      cpSync(join(dist, folder), join(to, folder), { recursive: true, dereference: true });
  }
  for (const { file, from, to: instead } of code) {
    const path = join(to, file);
    const text = readFileSync(path, 'utf8');
    if (!text.includes(from)) {
      throw new Error(
        `guard ${name}: ${file} does not hold ${JSON.stringify(from)} any more; say in bench/simulate/guards.ts where it stands`,
      );
    }
    writeFileSync(path, text.replaceAll(from, instead));
  }
}
