/**
 * `npm run bench -- growth`: measures one size after the other, keeps each figure as soon as there is one, and draws the
 * document and the plots from all that were kept. So whatever breaks off has left what was measured before, and what is
 * measured again replaces its own figure only.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { originOf } from '../canonical/results.ts';
import { runCanonical } from './canonical-run.ts';
import { documentOf } from './document.ts';
import {
  NO_GROWTH,
  readGrowth,
  withFigure,
  type FigureOf,
  type Growth,
  type GrowthPart,
  type FigureOrigin,
} from './figures.ts';
import { runKeys } from './keys.ts';
import { svgOf } from './plot.ts';
import { plotsOf } from './plots.ts';
import { runQueries } from './queries.ts';

export interface GrowthOptions {
  /** What is measured, in this order. */
  readonly sizes: readonly { readonly part: GrowthPart; readonly sizes: readonly number[] }[];
  /** Whether sizes that have a figure are left out. */
  readonly onlyMissing: boolean;
  readonly seed: number;
  /** Of a sustained phase. */
  readonly seconds: number;
  /** Ends it before its time; 0 for no such bound. */
  readonly eventsMax: number;
  /** Of the runs over shards, and of the months. */
  readonly subjects: number;
  /** Of each kind of query, and for how long at most. */
  readonly queryRuns: number;
  readonly querySeconds: number;
  /** Where growth.md goes, and beside it a folder growth/ with the figures and the plots. */
  readonly folder: string;
  readonly onProgress: (text: string) => void;
}

export const SIZES: Readonly<Record<GrowthPart, readonly number[]>> = {
  subjects: [1_000, 10_000, 100_000],
  keys: [1_000_000, 10_000_000, 100_000_000],
  shards: [1, 2, 4, 8],
  queries: [10_000_000, 100_000_000],
};
export const QUERY_RUNS = 100;
export const QUERY_SECONDS = 20;
const SHARDS = 4;
/** The default of aggregators is made for fewer subjects; beyond it they ask ClickHouse for rows, which is no growth. */
const ROLLUP_ROWS = { name: 'TALLYLINE_ROLLUP_ROWS_MAX', value: '10000000' };
const EXIT_INTERRUPTED = 130;

export async function growth(o: GrowthOptions): Promise<void> {
  const files = filesIn(o.folder);
  let kept: Growth = existsSync(files.results) ? readGrowth(readFileSync(files.results, 'utf8')) : NO_GROWTH;
  let stop = (): Promise<void> => Promise.resolve();
  const interrupted = (): void => {
    void stop().finally(() => process.exit(EXIT_INTERRUPTED));
  };
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  for (const signal of signals) process.once(signal, interrupted);
  process.env[ROLLUP_ROWS.name] ??= ROLLUP_ROWS.value;
  try {
    for (const { part, sizes } of o.sizes)
      for (const size of sizes) {
        if (o.onlyMissing && kept[part].some((one) => one.size === size)) continue;
        const say = (text: string): void => o.onProgress(`${part} ${size.toLocaleString('en-US')}: ${text}`);
        const origin = whence(o.seed);
        const figure = await measure(part, size, { ...o, onProgress: say }, (one) => (stop = one));
        kept = withFigure(kept, part, { size, origin, figure });
        write(files.results, `${JSON.stringify(kept, null, 1)}\n`);
      }
  } finally {
    for (const signal of signals) process.removeListener(signal, interrupted);
  }
  for (const { name, plot } of plotsOf(kept)) write(join(files.plots, `${name}.svg`), svgOf(plot));
  write(files.document, documentOf(kept, 'growth'));
  o.onProgress(`written: ${files.document}`);
}

async function measure(
  part: GrowthPart,
  size: number,
  o: GrowthOptions,
  onStop: (stop: () => Promise<void>) => void,
): Promise<FigureOf[GrowthPart]> {
  const { onProgress, seed, seconds, eventsMax, subjects } = o;
  const onWorld = (world: { stop(): Promise<void> }): void => onStop(() => world.stop());
  switch (part) {
    case 'subjects':
      return runCanonical({ subjects: size, shards: SHARDS, seconds, seed, eventsMax, onProgress, onWorld });
    case 'shards':
      return runCanonical({ subjects, shards: size, seconds, seed, eventsMax, onProgress, onWorld });
    case 'keys':
      return runKeys(size, onProgress, onStop);
    case 'queries':
      return runQueries({
        month: { seed, events: size, subjects, shards: SHARDS },
        runs: o.queryRuns,
        secondsMax: o.querySeconds,
        onProgress,
        onEngines: onStop,
      });
  }
}

function filesIn(folder: string): { document: string; plots: string; results: string } {
  const plots = join(folder, 'growth');
  mkdirSync(plots, { recursive: true });
  return { document: join(folder, 'growth.md'), plots, results: join(plots, 'results.json') };
}

/** Whole or not at all: a figure may have taken a quarter of an hour. */
function write(file: string, text: string): void {
  writeFileSync(`${file}.new`, text);
  renameSync(`${file}.new`, file);
}

function whence(seed: number): FigureOrigin {
  const settings = Object.entries(process.env).filter(([name]) => name.startsWith('TALLYLINE_'));
  return { ...originOf(Date.now()), seed, settings: Object.fromEntries(settings) as Record<string, string> };
}
