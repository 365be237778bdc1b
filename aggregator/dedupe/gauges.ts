import type { Metrics } from '../../runtime/metrics.ts';
import type { DedupeIndex } from './index.ts';

/** What the indexes of all shards hold and cost. */
export function dedupeGauges(metrics: Metrics, indexes: () => readonly DedupeIndex[]): void {
  const sum = (of: (index: DedupeIndex) => number) => () =>
    indexes().reduce((total, index) => total + of(index), 0);
  const gauge = (name: string, help: string, value: () => number): void =>
    void metrics.gauge(`tallyline_aggregator_dedupe_${name}`, help, [], value);
  gauge(
    'keys_count',
    'identities kept exactly in memory',
    sum(({ size }) => size),
  );
  gauge(
    'bytes',
    'memory of the identities kept exactly',
    sum(({ bytes }) => bytes),
  );
  gauge(
    'filter_keys_count',
    'identities that are in filters',
    sum(({ cold }) => cold.size),
  );
  gauge(
    'filter_bytes',
    'memory of the filters',
    sum(({ cold }) => cold.bytes),
  );
  gauge(
    'filter_false_ratio',
    'share of new identities that the filters of the worst shard do not rule out, and ClickHouse is asked for; above ' +
      '0.01 the filters have outgrown their bound',
    () => Math.max(0, ...indexes().map(({ cold }) => cold.falseShare())),
  );
}
