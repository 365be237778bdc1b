#!/usr/bin/env node
// `npm run bench -- [edge|hostile] [--json] [--seconds N]`: measures and prints; docs/benchmarks.md says how to read it.
import { parseArgs } from 'node:util';
import { benchEdge, type EdgeBench, type EdgeFigure } from './edge.ts';
import { benchHostile, P99_BOUND_MS, type HostileFigure } from './hostile.ts';

const usage = `usage: npm run bench -- [edge|hostile] [--seconds N] [--json]

  edge        events a second and CPU an event at the edge, beside an empty server and JSON.parse
  hostile     the latency of a quiet tenant beside clients that do their worst; fails above ${P99_BOUND_MS} ms (p99)
  --seconds   how long each figure is measured; 4 by default
  --json      the figures as JSON
`;

function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows
    .map((row) =>
      row.map((cell, at) => (at < 2 ? cell.padEnd(widths[at]!) : cell.padStart(widths[at]!))).join('  '),
    )
    .join('\n');
}

const whole = (value: number): string => Math.round(value).toLocaleString('en-US');
const fixed = (value: number): string => value.toFixed(value < 10 ? 2 : 1);

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
  return `${table(reading)}\n\n${table(served)}\n`;
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

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      json: { type: 'boolean', default: false },
      seconds: { type: 'string', default: '4' },
      help: { type: 'boolean', default: false },
    },
  });
  const seconds = Number(values.seconds);
  const [what = 'edge'] = positionals;
  if (
    values.help ||
    !['edge', 'hostile'].includes(what) ||
    positionals.length > 1 ||
    !(seconds > 0 && seconds <= 600)
  ) {
    (values.help ? process.stdout : process.stderr).write(usage);
    return values.help ? 0 : 64;
  }
  const onProgress = (text: string): void => {
    if (!values.json) process.stderr.write(`${text}\n`);
  };
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
