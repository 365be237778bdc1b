// docs/growth.md, written from the figures: a table for each part, with where they come from.
import { fixed, whole } from '../table.ts';
import { PARTS as PROCESSES } from '../canonical/usage.ts';
import type {
  CanonicalFigure,
  Growth,
  KeysFigure,
  Measured,
  FigureOrigin,
  QueriesFigure,
} from './figures.ts';
import { BOUNDS_MS, plotsOf } from './plots.ts';

const MEBIBYTE = 1024 ** 2;
const GIBIBYTE = 1024 ** 3;

/** @param plotFolder where the plots are, seen from the document */
export function documentOf(growth: Growth, plotFolder: string): string {
  const plots = plotsOf(growth);
  const picture = (name: string): string[] =>
    plots.filter((one) => one.name === name).map(({ plot }) => `![${plot.title}](${plotFolder}/${name}.svg)`);
  const parts = [
    {
      name: 'subjects',
      measured: growth.subjects,
      text: SUBJECTS,
      tables: [canonicalTable(growth.subjects)],
    },
    { name: 'keys', measured: growth.keys, text: KEYS, tables: [keysTable(growth.keys)] },
    { name: 'shards', measured: growth.shards, text: SHARDS, tables: [canonicalTable(growth.shards)] },
    {
      name: 'queries',
      measured: growth.queries,
      text: QUERIES,
      tables: [monthTable(growth.queries), ...growth.queries.map(queryTable)],
    },
  ];
  const sections = parts
    .filter(({ measured }) => measured.length > 0)
    .flatMap(({ name, measured, text, tables }) => [
      text,
      ...tables,
      ...picture(name),
      `Measured: ${[...new Set(measured.map(({ size, origin }) => `${whole(size)}: ${originOf(origin)}`))].join('; ')}.`,
    ]);
  const missing = parts.filter(({ measured }) => measured.length === 0).map(({ name }) => name);
  return `${[HEAD, machinesOf(growth), ...sections, ...(missing.length === 0 ? [] : [`Not measured yet: ${missing.join(', ')}.`])].join('\n\n')}\n`;
}

const HEAD = `<!-- Written by \`npm run bench -- growth\` from growth/results.json. Do not edit it: run the command again. -->
# How cost grows

One command measures these, writes this file and draws the plots: \`npm run bench -- growth\`. \`--only subjects,keys,shards,queries\` runs some of the parts, \`--sizes\` some sizes of one part, \`--missing\` what has no figure yet; the others stay. Figures of a shared machine are noisy: compare the rows of a table, and CPU an event before events a second.`;

const SUBJECTS = `## Subjects

The sustained phase of the canonical workload (without the ledger), every total compared at the end. A subject more costs rollup rows: an event touches one for its subject, hour, dimensions, meter and shard, and fewer events share it.`;

const KEYS = `## Dedupe keys

The index of the aggregator, in a process of its own. \`exact\`: every key is kept, and deciding an event is measured, one in twenty a repetition; the bound is one and a half times the keys, and beyond 66 million keys that is more than the 4 GiB of the kernel, so that the TypeScript decides. \`filtered\`: a tenth of the keys is kept, the others are in filters; a new event that a filter takes for a known one is asked of ClickHouse in vain.`;

const SHARDS = `## Shards

The same run with other numbers of shards on the same machine: it shows what a shard costs, not what it brings. What it brings is that another process can have it.`;

const QUERIES = `## Usage queries

A month of the canonical workload, made inside of ClickHouse in the aggregator's tables: raw events and their rollups, compared before anything is asked. The queries are those of \`GET /v1/usage\`, one at a time, with nothing else going on and without the API's own work; where both are shown, the answers from rollups and from raw events were equal. \`raw\` is what an invoice reads: usage as of a cut of the log, event by event. A unique count is always read from raw events.

Kinds marked "while it is written to" were asked of the month in the parts that its making left; the others when its rollups had become one part, which ClickHouse makes of them after six hours without writes (schema 0013). Both gave the same answers.`;

function machinesOf(growth: Growth): string {
  const all = [...growth.subjects, ...growth.keys, ...growth.shards, ...growth.queries];
  const machines = all.map(
    ({ origin: { machine } }) =>
      `${machine.cores} cores (${machine.cpu}), ${Math.round(machine.memoryBytes / GIBIBYTE)} GiB of memory, Node ${machine.node}, ${machine.platform}`,
  );
  return `Machine: ${[...new Set(machines)].join('; ')}. The engines, the load and all stages share it.`;
}

function originOf({ at, commit, isDirty, seed, settings }: FigureOrigin): string {
  const source = commit === '' ? 'no repository' : `${commit.slice(0, 10)}${isDirty ? ' with changes' : ''}`;
  const set = Object.entries(settings).map(([name, value]) => `${name}=${value}`);
  return [at.slice(0, 16).replace('T', ' '), source, `seed ${seed}`, ...set].join(', ');
}

function canonicalTable(measured: readonly Measured<CanonicalFigure>[]): string {
  const processes = PROCESSES.filter((part) =>
    measured.some(({ figure }) => (figure.cpuMicrosPerEvent[part] ?? 0) >= 0.005),
  );
  return markdown([
    [
      'subjects',
      'shards',
      'events/s',
      ...processes.map((part) => `${part} µs`),
      'all but the load µs',
      'rollup rows',
      'written an event',
      'log bytes/event',
      'ClickHouse bytes/event',
      'aggregator MB',
      'ClickHouse MB',
    ],
    ...measured.map(({ figure }) => [
      whole(figure.subjects),
      whole(figure.shards),
      whole(figure.eventsPerSecond),
      ...processes.map((part) => fixed(figure.cpuMicrosPerEvent[part] ?? 0, 2)),
      fixed(figure.cpuMicrosPerEvent.total, 2),
      whole(figure.rollupRows),
      fixed(figure.rollupRowsPerEvent, 2),
      fixed(figure.logBytesPerEvent, 1),
      fixed(figure.clickhouseBytesPerEvent, 1),
      whole((figure.peakRssBytes.aggregator ?? 0) / MEBIBYTE),
      whole((figure.peakRssBytes.clickhouse ?? 0) / MEBIBYTE),
    ]),
  ]);
}

function keysTable(measured: readonly Measured<KeysFigure>[]): string {
  return markdown([
    [
      'keys',
      'exact: ns/event',
      'last fifth',
      'bytes/key',
      'process MB',
      'filtered: kept',
      'bytes/key kept',
      'bytes/key in filters',
      'entering ns',
      'new ns',
      'asked in vain',
      'process MB',
    ],
    ...measured.map(({ figure: { keys, exact, filtered } }) => [
      whole(keys),
      whole(exact.nanosPerEvent),
      whole(exact.nanosPerEventLast),
      fixed(exact.bytesPerKey, 1),
      whole(exact.peakRssBytes / MEBIBYTE),
      whole(filtered.hotKeys),
      fixed(filtered.hotBytesPerKey, 1),
      fixed(filtered.coldBytesPerKey, 1),
      whole(filtered.putNs),
      whole(filtered.missNs),
      `${fixed(filtered.falseShare * 100, 2)} %`,
      whole(filtered.peakRssBytes / MEBIBYTE),
    ]),
  ]);
}

function monthTable(measured: readonly Measured<QueriesFigure>[]): string {
  return markdown([
    [
      'raw events',
      'subjects',
      'rollup rows',
      'parts: events, rollups',
      'bytes/event',
      'bytes/rollup row',
      'GB together',
      'made in s',
    ],
    ...measured.map(({ figure: { events, subjects, rollupRows, parts, diskBytes, loadSeconds } }) => [
      whole(events),
      whole(subjects),
      whole(rollupRows),
      `${parts.events}, ${parts.rollups}`,
      fixed(diskBytes.events / events, 1),
      fixed(diskBytes.rollups / rollupRows, 1),
      fixed((diskBytes.events + diskBytes.rollups) / 1e9, 2),
      whole(loadSeconds),
    ]),
  ]);
}

function queryTable({ figure }: Measured<QueriesFigure>): string {
  const rows = figure.queries.map((one) => {
    const bound = BOUNDS_MS.find(({ name }) => name === one.name && one.reads === 'rollup');
    return [
      one.name,
      one.reads,
      one.p50Ms === null ? one.refused : fixed(one.p50Ms),
      one.p99Ms === null ? '' : fixed(one.p99Ms),
      bound === undefined ? '' : `${bound.ms}`,
      whole(one.rowsRead),
      fixed(one.cpuMs, 1),
      whole(one.answerRows),
      whole(one.runs),
    ];
  });
  const head = [
    'query',
    'reads',
    'p50 ms',
    'p99 ms',
    'wanted ms',
    'rows read',
    'CPU ms',
    'rows answered',
    'runs',
  ];
  return `Over ${whole(figure.events)} raw events:\n\n${markdown([head, ...rows], 2)}`;
}

/** The first columns (one by default) flush left. */
function markdown(rows: readonly (readonly string[])[], left = 1): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  const [head, ...others] = rows;
  return [line(head!), line(head!.map((_, at) => (at < left ? '---' : '---:'))), ...others.map(line)].join(
    '\n',
  );
}
