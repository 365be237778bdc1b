#!/usr/bin/env node
// `npm run bench -- [canonical|edge|hostile|aggregate|dedupe|growth] [--json] [--seconds N]`: measures and prints;
// docs/benchmarks.md says how to read it.
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { benchEdge, type EdgeBench, type EdgeFigure } from './edge.ts';
import { benchAggregate } from './aggregate.ts';
import { printAggregate } from './aggregate-table.ts';
import { canonical } from './canonical/command.ts';
import { projectRoot } from './canonical/results.ts';
import { SUBJECTS as CANONICAL_SUBJECTS } from './canonical/workload.ts';
import { benchDedupe } from './dedupe.ts';
import { benchDedupeEvents } from './dedupe-events.ts';
import { printDedupe, printDedupeEvents } from './dedupe-table.ts';
import { SUBJECTS } from './event.ts';
import { choiceOf } from './growth/choice.ts';
import { growth, QUERY_RUNS, QUERY_SECONDS } from './growth/command.ts';
import { benchHostile, P99_BOUND_MS, type HostileFigure } from './hostile.ts';
import { fixed, table, whole } from './table.ts';

const KINDS = ['canonical', 'edge', 'hostile', 'aggregate', 'dedupe', 'growth'];

const usage = `usage: npm run bench -- [canonical|edge|hostile|aggregate|dedupe|growth] [--seconds N] [--json] [...]

  canonical   the default: every stage from the socket to the posted balance, as fast as it goes and at half of that;
              every total is compared, and it fails when one differs
  edge        events a second and CPU an event at the edge, beside an empty server and JSON.parse
  hostile     the latency of a quiet tenant beside clients that do their worst; fails above ${P99_BOUND_MS} ms (p99)
  aggregate   from a filled log to durable rows, step by step, beside bare reading and bare inserting
  dedupe      memory and time of the dedupe index, and its rebuild from ClickHouse; with --events, whether that many
              with 5 % duplicates end in exact totals
  growth      the same over more subjects, dedupe keys, shards and stored events; writes docs/growth.md and its plots
  --events    of aggregate: how many; 4,000,000 by default
  --subjects  of aggregate: how many its events have; 1,000 by default
  --keys      the largest index; 10,000,000 by default
  --seconds   how long each figure is measured; 4 by default; of canonical and growth the sustained phase, 20 by default
  --rate      of canonical: events a second of the steady phase; half of what was sustained by default
  --soak      of canonical: minutes that the steady phase goes on, with the memory of every process
  --seed      of canonical and growth: another one sends other events; 1 by default
  --no-ledger of canonical: stops the ledger before events come; what it costs is the difference
  --profile   of canonical: a folder for CPU profiles of the load, the edge, the aggregator and the ledger
  --unkept    of canonical: leaves bench/results as it is
  --only      of growth: which of subjects,keys,shards,queries; all by default, and the others' figures stay
  --sizes     of growth, with one part: its sizes, such as 1000,100000
  --missing   of growth: only sizes that have no figure yet; none is measured twice after a run that broke off
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
      seconds: { type: 'string' },
      rate: { type: 'string', default: '0' },
      soak: { type: 'string', default: '0' },
      seed: { type: 'string', default: '1' },
      profile: { type: 'string' },
      'no-ledger': { type: 'boolean', default: false },
      unkept: { type: 'boolean', default: false },
      keys: { type: 'string', default: '10000000' },
      events: { type: 'string', default: '0' },
      subjects: { type: 'string', default: String(SUBJECTS) },
      only: { type: 'string' },
      sizes: { type: 'string' },
      missing: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  const [what = 'canonical'] = positionals;
  const seconds = Number(values.seconds ?? (what === 'canonical' || what === 'growth' ? '20' : '4'));
  const [rate, soak, seed] = [Number(values.rate), Number(values.soak), Number(values.seed)];
  const [keys, events] = [Number(values.keys), Number(values.events)];
  const subjects = Number(values.subjects);
  const chosen = choiceOf(values.only, values.sizes);
  if (
    values.help ||
    !KINDS.includes(what) ||
    chosen === null ||
    positionals.length > 1 ||
    !(seconds > 0 && seconds <= 600) ||
    !(rate >= 0 && rate <= 10_000_000) ||
    !(soak >= 0 && soak <= 10_080) ||
    !(Number.isSafeInteger(seed) && seed >= 0 && seed < 2 ** 32) ||
    !(Number.isSafeInteger(keys) && keys >= 10_000 && keys <= 1_000_000_000) ||
    !(Number.isSafeInteger(subjects) && subjects >= 1 && subjects <= 1_000_000) ||
    !(Number.isSafeInteger(events) && events >= 0 && events <= 100_000_000)
  ) {
    (values.help ? process.stdout : process.stderr).write(usage);
    return values.help ? 0 : 64;
  }
  const onProgress = (text: string): void => {
    if (!values.json) process.stderr.write(`${text}\n`);
  };
  if (what === 'canonical') {
    return canonical({
      seconds,
      rate,
      seed,
      soakMinutes: soak,
      profileFolder: values.profile === undefined ? null : resolve(values.profile),
      withLedger: !values['no-ledger'],
      json: values.json,
      keep: !values.unkept,
    });
  }
  if (what === 'growth') {
    await growth({
      sizes: chosen,
      onlyMissing: values.missing,
      seed,
      seconds,
      eventsMax: 0,
      subjects: CANONICAL_SUBJECTS,
      queryRuns: QUERY_RUNS,
      querySeconds: QUERY_SECONDS,
      folder: join(projectRoot(), 'docs'),
      onProgress,
    });
    return 0;
  }
  if (what === 'aggregate') {
    const found = await benchAggregate({
      events: events === 0 ? AGGREGATE_EVENTS : events,
      subjects,
      onProgress,
    });
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
