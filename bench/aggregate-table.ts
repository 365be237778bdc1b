import type { AggregateBench } from './aggregate.ts';
import { fixed, table, whole } from './table.ts';

export function printAggregate(bench: AggregateBench): string {
  const steps = [
    ['step, on its own', 'ns/event'],
    ...bench.steps.map(({ step, nanosPerEvent }) => [step, whole(nanosPerEvent)]),
    ['all', whole(bench.steps.reduce((sum, { nanosPerEvent }) => sum + nanosPerEvent, 0))],
  ];
  const rates = [
    ['from the log', 'events/s', 'own CPU µs/event', 'NATS µs/event', 'ClickHouse µs/event'],
    ...bench.rates.map(({ what, eventsPerSecond, cpuPerEventUs }) => [
      what,
      whole(eventsPerSecond),
      fixed(cpuPerEventUs.own),
      fixed(cpuPerEventUs.nats),
      fixed(cpuPerEventUs.clickhouse),
    ]),
  ];
  return (
    `${whole(bench.events)} events in ${whole(bench.blocks)} blocks, ${fixed(bench.blockBytesPerEvent)} bytes an event; ` +
    `${whole(bench.rollupRows)} rollup rows; every total is exact\n\n${table(steps)}\n\n${table(rates)}\n\n` +
    `the aggregator's rate is ${whole(bench.ratioToSlower * 100)} % of the slower bare one\n`
  );
}
