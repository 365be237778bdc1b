// The report as text, as docs/benchmarks.md shows it.
import { fixed, table, whole } from '../table.ts';
import type { Report } from './report.ts';
import { PARTS, sumOf, type ByPart } from './usage.ts';

const MEBIBYTE = 1024 ** 2;
/** Memory that rises by less than this over the last two thirds of a run is flat. */
const FLAT_WITHIN = 0.05;
/** A schedule whose last answer came later than this behind its end was not kept up with. */
const LATE_SECONDS = 1;

export function printReport(report: Report): string {
  return [
    summary(report),
    table(costs(report)),
    table(latencies(report), 1),
    table(ceilings(report)),
    disk(report),
    ...cannot(report),
    verdict(report),
  ].join('\n\n');
}

function summary(r: Report): string {
  const percent = (part: number): string => `${whole(part * 100)} %`;
  return [
    `${whole(r.eventsPerSecond)} events a second sustained (${whole(r.sendingEventsPerSecond)} while sending), ${fixed(r.cpuMicrosPerEvent.total)} µs of CPU an event`,
    `${percent(r.ratioToSlowestPart)} of the slowest part alone (${r.slowestPart}), ${percent(r.ratioToSumOfParts)} of the CPU is what the parts alone take`,
  ].join('\n');
}

function costs(r: Report): string[][] {
  const cell = (parts: ByPart, part: (typeof PARTS)[number], digits = 2): string =>
    parts[part] === undefined ? '' : fixed(parts[part], digits);
  return [
    ['process', 'CPU µs/event', 'at half the rate', 'posting afterwards', 'peak MB'],
    ...PARTS.map((part) => [
      part,
      cell(r.cpuMicrosPerEvent, part),
      cell(r.halfCpuMicrosPerEvent, part),
      cell(r.postingCpuMicrosPerEvent, part),
      r.peakRssBytes[part] === undefined ? '' : whole(r.peakRssBytes[part] / MEBIBYTE),
    ]),
    [
      'all but the load',
      fixed(r.cpuMicrosPerEvent.total),
      fixed(r.halfCpuMicrosPerEvent.total),
      fixed(sumOf(r.postingCpuMicrosPerEvent)),
      '',
    ],
  ];
}

function latencies(r: Report): string[][] {
  const { half, single } = r.measurements;
  return [
    ['', 'events/s', 'p50 ms', 'p99 ms'],
    ['answer, full load', whole(r.sendingEventsPerSecond), fixed(r.sustainedP50Ms), fixed(r.sustainedP99Ms)],
    ['answer, half the rate', whole(r.halfEventsPerSecond), fixed(r.edgeP50Ms), fixed(r.edgeP99Ms)],
    ['  of it the load itself', '', fixed(half.ownDelayP50Ms), fixed(half.ownDelayP99Ms)],
    [
      'answer, one event a request',
      whole(r.singleEventsPerSecond),
      fixed(r.singleP50Ms),
      fixed(r.singleP99Ms),
    ],
    ['  of it the load itself', '', fixed(single.ownDelayP50Ms), fixed(single.ownDelayP99Ms)],
    ['visible, half the rate', '', fixed(r.lagP50Ms.visible), fixed(r.lagP99Ms.visible)],
    ...(r.measurements.options.withLedger
      ? [['posted, half the rate', '', fixed(r.lagP50Ms.posted), fixed(r.lagP99Ms.posted)]]
      : []),
  ];
}

function ceilings(r: Report): string[][] {
  return [
    ['alone', 'events/s', 'CPU µs/event', 'sustained to it'],
    ...r.ceilings.map(({ name, eventsPerSecond, cpuMicrosPerEvent }) => [
      name,
      whole(eventsPerSecond),
      Object.entries(cpuMicrosPerEvent)
        .map(([part, micros]) => `${part} ${fixed(micros)}`)
        .join(', '),
      `${whole((r.eventsPerSecond / eventsPerSecond) * 100)} %`,
    ]),
  ];
}

function disk({ diskBytesPerEvent, rollupRows, rollupRowsPerEvent, measurements }: Report): string {
  const flushEvents = measurements.insert?.flushEvents ?? 0;
  const tables = Object.entries(diskBytesPerEvent.tables)
    .map(([name, bytes]) => `${name} ${fixed(bytes, 1)}`)
    .join(', ');
  return `${whole(rollupRows)} rollup rows, ${fixed(rollupRowsPerEvent)} written an event in flushes of ${whole(flushEvents)}; bytes an event on disk: ${fixed(diskBytesPerEvent.nats, 1)} in the log, ${fixed(diskBytesPerEvent.clickhouse, 1)} in ClickHouse (${tables})`;
}

/** What this machine did not manage. */
function cannot(r: Report): string[] {
  const { half, single } = r.measurements;
  const unseen = (['visible', 'posted'] as const).flatMap((what) => {
    const lag = half.lag?.[what];
    return lag === null || lag === undefined || lag.unseen === 0
      ? []
      : [
          `${whole(lag.unseen)} of ${whole(lag.events)} events of the probe were not ${what} a minute after the last`,
        ];
  });
  const slow = [
    { what: 'half the rate', steady: half },
    { what: 'one event a request', steady: single },
  ].flatMap(({ what, steady }) =>
    steady.events / steady.eventsPerSecond - steady.events / steady.askedEventsPerSecond < LATE_SECONDS
      ? []
      : [
          `${what}: only ${whole(steady.eventsPerSecond)} of ${whole(steady.askedEventsPerSecond)} events a second were answered; up to ${whole(steady.queuedMax)} requests waited for a connection`,
        ],
  );
  return [...slow, ...unseen];
}

function verdict(r: Report): string {
  const { options } = r.measurements;
  const sent = `${whole(r.received)} events of ${whole(options.subjects)} subjects, ${whole(r.duplicates)} of them duplicates`;
  const posted = options.withLedger
    ? `, and of every price of ${whole(options.customers)} customers`
    : '; without the ledger, so nothing is posted';
  return r.totalsExact
    ? `${sent}: every total is exact, of every subject and meter${posted}\n`
    : `${sent}: TOTALS DIFFER\n${r.differences.map((text) => `  ${text}`).join('\n')}\n`;
}

/** Whether memory is flat, by part; for a long run. */
export function printMemory(r: Report): string {
  const { memory } = r.measurements.half;
  const minutes = ((memory.at(-1)?.seconds ?? 0) * 2) / 3 / 60;
  const rows = PARTS.flatMap((part) => {
    const first = memory[Math.floor(memory.length / 3)]?.bytes[part];
    const last = memory.at(-1)?.bytes[part];
    if (first === undefined || last === undefined) return [];
    const slope = r.memorySlopeBytesPerMinute[part] ?? 0;
    const rise = slope * minutes;
    return [
      [
        part,
        whole(first / MEBIBYTE),
        whole(last / MEBIBYTE),
        fixed(slope / MEBIBYTE, 2),
        rise < first * FLAT_WITHIN ? 'flat' : 'RISES',
      ],
    ];
  });
  return `${table([['memory', 'MB after a third', 'MB at the end', 'MB a minute', '']].concat(rows))}\n`;
}
