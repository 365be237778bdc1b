#!/usr/bin/env node
// `npm run bench -- [edge|hostile|aggregate|dedupe] [--json] [--seconds N]`: measures and prints; docs/benchmarks.md says how to read it.
import { parseArgs } from 'node:util';
import { benchEdge, type EdgeBench, type EdgeFigure } from './edge.ts';
import { benchAggregate } from './aggregate.ts';
import { printAggregate } from './aggregate-table.ts';
import { benchDedupe } from './dedupe.ts';
import { benchDedupeEvents } from './dedupe-events.ts';
import { printDedupe, printDedupeEvents } from './dedupe-table.ts';
import { benchHostile, P99_BOUND_MS, type HostileFigure } from './hostile.ts';
import { fixed, table, whole } from './table.ts';

const usage = `usage: npm run bench -- [edge|hostile|aggregate|dedupe] [--seconds N] [--keys N] [--events N] [--json]

  edge        events a second and CPU an event at the edge, beside an empty server and JSON.parse
  hostile     the latency of a quiet tenant beside clients that do their worst; fails above ${P99_BOUND_MS} ms (p99)
  aggregate   from a filled log to durable rows, step by step, beside bare reading and bare inserting
  dedupe      memory and time of the dedupe index, and its rebuild from ClickHouse; with --events, whether that many
              with 5 % duplicates end in exact totals
  --events    of aggregate: how many; 4,000,000 by default
  --keys      the largest index; 10,000,000 by default
  --seconds   how long each figure is measured; 4 by default
  --json      the figures as JSON
`;

function printEdge(bench: EdgeBench): string {
  const reading = [
    ['reading and packing, no network', '', 'JSON.parse ns', 'read ns', 'read + pack ns', 'of JSON.parse'],
    ...bench.reading.map((one) => [
      `${one.eventsPerBody} a body`,
      '',
      whole(one.parseNs),
      whole(one.readNs),
      whole(one.packNs),
      `${whole((one.packNs / one.parseNs) * 100)} %`,
    ]),
  ];
  const of = (figure: EdgeFigure, subject: string): EdgeFigure =>
    bench.figures.find(
      (one) =>
        one.subject === subject &&
        one.transport === figure.transport &&
        one.eventsPerRequest === figure.eventsPerRequest,
    )!;
  const served = [
    [
      'transport, events a request',
      'server',
      'requests/s',
      'events/s',
      'CPU µs/event',
      'NATS µs/event',
      'p50 ms',
      'p99 ms',
      'requests/s of empty',
    ],
    ...bench.figures.map((one) => [
      `${one.transport}, ${one.eventsPerRequest}`,
      one.subject,
      whole(one.requestsPerSecond),
      whole(one.eventsPerSecond),
      fixed(one.cpuPerEventUs),
      one.natsCpuPerEventUs === 0 ? '' : fixed(one.natsCpuPerEventUs),
      fixed(one.p50Ms),
      fixed(one.p99Ms),
      `${whole((one.requestsPerSecond / of(one, 'empty').requestsPerSecond) * 100)} %`,
    ]),
  ];
  return `${table(reading, 2)}\n\n${table(served, 2)}\n`;
}

function printHostile(figures: readonly HostileFigure[]): string {
  const rows = [
    [
      'a quiet tenant beside',
      'connections',
      'requests',
      'failed',
      'p50 ms',
      'p99 ms',
      'max ms',
      'edge MB',
      'edge CPU',
    ],
    ...figures.map((one) => [
      one.beside,
      String(one.connections),
      whole(one.requests),
      String(one.failed),
      fixed(one.p50Ms),
      fixed(one.p99Ms),
      fixed(one.maxMs),
      whole(one.edgeMegabytes),
      `${whole(one.edgeCpuShare * 100)} %`,
    ]),
  ];
  return `${table(rows)}\n`;
}

/** Rows of events that a rebuild is measured with: a real ClickHouse takes a while to write them. */
const REBUILD_KEYS = 5_000_000;
const AGGREGATE_EVENTS = 4_000_000;

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      json: { type: 'boolean', default: false },
      seconds: { type: 'string', default: '4' },
      keys: { type: 'string', default: '10000000' },
      events: { type: 'string', default: '0' },
      help: { type: 'boolean', default: false },
    },
  });
  const seconds = Number(values.seconds);
  const [keys, events] = [Number(values.keys), Number(values.events)];
  const [what = 'edge'] = positionals;
  if (
    values.help ||
    !['edge', 'hostile', 'aggregate', 'dedupe'].includes(what) ||
    positionals.length > 1 ||
    !(seconds > 0 && seconds <= 600) ||
    !(Number.isSafeInteger(keys) && keys >= 10_000 && keys <= 1_000_000_000) ||
    !(Number.isSafeInteger(events) && events >= 0 && events <= 100_000_000)
  ) {
    (values.help ? process.stdout : process.stderr).write(usage);
    return values.help ? 0 : 64;
  }
  const onProgress = (text: string): void => {
    if (!values.json) process.stderr.write(`${text}\n`);
  };
  if (what === 'aggregate') {
    const found = await benchAggregate({ events: events === 0 ? AGGREGATE_EVENTS : events, onProgress });
    process.stdout.write(values.json ? `${JSON.stringify(found, null, 2)}\n` : printAggregate(found));
    return 0;
  }
  if (what === 'dedupe' && events > 0) {
    const found = await benchDedupeEvents({ events, keysMax: Math.ceil(events / 10), onProgress });
    process.stdout.write(values.json ? `${JSON.stringify(found, null, 2)}\n` : printDedupeEvents(found));
    return found.wrong.length === 0 ? 0 : 1;
  }
  if (what === 'dedupe') {
    const found = await benchDedupe({ keys, rebuildKeys: Math.min(keys, REBUILD_KEYS), onProgress });
    process.stdout.write(values.json ? `${JSON.stringify(found, null, 2)}\n` : printDedupe(found));
    return 0;
  }
  if (what === 'hostile') {
    const figures = await benchHostile({ seconds, onProgress });
    process.stdout.write(values.json ? `${JSON.stringify(figures, null, 2)}\n` : printHostile(figures));
    const broken = figures.filter(({ p99Ms, failed }) => p99Ms > P99_BOUND_MS || failed > 0);
    for (const { beside } of broken) process.stderr.write(`the bound was broken beside ${beside}\n`);
    return broken.length === 0 ? 0 : 1;
  }
  const bench = await benchEdge({ seconds, onProgress });
  process.stdout.write(values.json ? `${JSON.stringify(bench, null, 2)}\n` : printEdge(bench));
  return 0;
}

process.exitCode = await main();
