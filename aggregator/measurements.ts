import type { Metrics } from '../runtime/metrics.ts';

const LAG_SECONDS = [0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30, 60, 300, 3_600];
const FLUSH_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30];

export type Measurements = ReturnType<typeof createMeasurements>;

/** Every metric of the aggregator, made at once so that a dashboard finds them all from the start. */
export function createMeasurements(metrics: Metrics) {
  return {
    events: metrics.counter('tallyline_aggregator_events_total', 'events made durable, by verdict', [
      'verdict',
    ]),
    unreadable: metrics.counter(
      'tallyline_aggregator_unreadable_total',
      'messages of the log that could not be decoded; kept whole in refused_events',
    ),
    lag: metrics.histogram(
      'tallyline_metering_lag_seconds',
      'from acceptance at the edge to visible in the rollups, or to posted in the ledger; once a block',
      LAG_SECONDS,
      ['stage'],
    ),
    flush: metrics.histogram(
      'tallyline_aggregator_flush_seconds',
      'duration of a flush, from its first row to its watermark',
      FLUSH_SECONDS,
    ),
    flushFailures: metrics.counter(
      'tallyline_aggregator_flush_failures_total',
      'requests to ClickHouse that failed and were made again',
    ),
    rows: metrics.counter('tallyline_aggregator_inserted_rows_total', 'rows inserted, by table', ['table']),
    lookups: metrics.counter(
      'tallyline_aggregator_dedupe_lookups_total',
      'identities asked for in ClickHouse because no filter ruled them out',
    ),
    meterConflicts: metrics.counter(
      'tallyline_aggregator_meter_conflicts_total',
      'meter definitions in the log that contradict an earlier one of the same key, or came too late, and were ignored',
    ),
    overflowed: metrics.counter(
      'tallyline_aggregator_overflowed_contributions_total',
      'what events added to the overflow group of a meter, whose hour had more groups than its bound',
    ),
    incarnations: metrics.gauge(
      'tallyline_aggregator_incarnations_count',
      "incarnations of each shard's log so far; it rises when the broker lost or replaced a part that was read",
      ['shard'],
    ),
    undelivered: metrics.gauge(
      'tallyline_aggregator_log_undelivered_messages',
      'messages that a log has acknowledged and cannot be read any more, by shard; anything but 0 needs a person',
      ['shard'],
    ),
    takeOvers: metrics.counter('tallyline_aggregator_take_overs_total', 'shards that this process has taken'),
    epochs: metrics.gauge(
      'tallyline_aggregator_epochs_count',
      'epoch under which this process counts a shard; 0 when it does not count it any more',
      ['shard'],
    ),
    fenced: metrics.counter(
      'tallyline_aggregator_fenced_total',
      'times that ClickHouse refused an insert because another process has taken a shard over',
    ),
    purged: metrics.counter(
      'tallyline_aggregator_purged_messages_total',
      'messages purged behind the watermark',
    ),
  };
}
