import type { RejectedEvent } from '../contract/rejections.ts';
import type { Metrics } from '../runtime/metrics.ts';

export interface EdgeMeasures {
  answered(status: number, ms: number | null): void;
  accepted(events: number): void;
  rejected(events: readonly RejectedEvent[]): void;
  published(ms: number, events: number, bytes: number): void;
  publishFailed(kind: string): void;
  /** Gauges that are read at every scrape. */
  watch(o: { requestsInFlight(): number; bytesInFlight(): number }): void;
}

/** Every limit of the edge, exported beside the gauge that it bounds. */
export interface EdgeMeasureLimits {
  readonly requestsInFlightMax: number;
  readonly bytesInFlightMax: number;
  readonly bodyBytesMax: number;
  readonly batchEventsMax: number;
}

const SECONDS = [0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.25, 0.5, 1, 2.5, 5, 10];
const EVENTS = [1, 4, 16, 64, 256, 512, 1_024, 2_048, 4_096];
const BYTES = [256, 1_024, 4_096, 16_384, 32_768, 65_536, 98_304, 131_072, 262_144];

export function edgeMeasures(metrics: Metrics, limits: EdgeMeasureLimits): EdgeMeasures {
  const requests = metrics.counter('tallyline_edge_requests_total', 'requests answered', ['status']);
  const seconds = metrics.histogram(
    'tallyline_edge_request_seconds',
    'from the head of a request that was let in to its answer',
    SECONDS,
  );
  const accepted = metrics.counter(
    'tallyline_edge_events_accepted_total',
    'events answered 202: acknowledged by the log',
  );
  const rejected = metrics.counter('tallyline_edge_events_rejected_total', 'events rejected, by code', [
    'code',
  ]);
  const publish = metrics.histogram(
    'tallyline_edge_publish_seconds',
    'from sending a block to its acknowledgement',
    SECONDS,
  );
  const failures = metrics.counter('tallyline_edge_publish_failures_total', 'blocks that failed, by kind', [
    'kind',
  ]);
  const blockEvents = metrics.histogram('tallyline_edge_block_events', 'events in a block', EVENTS);
  const blockBytes = metrics.histogram('tallyline_edge_block_bytes', 'size of a block', BYTES);
  const limit = (name: string, help: string, value: number): void => metrics.gauge(name, help).set(value);
  limit('tallyline_edge_in_flight_limit_count', 'requests that may be in flight', limits.requestsInFlightMax);
  limit('tallyline_edge_in_flight_limit_bytes', 'body bytes that may be in flight', limits.bytesInFlightMax);
  limit('tallyline_edge_body_limit_bytes', 'body bytes of one request', limits.bodyBytesMax);
  limit('tallyline_edge_batch_limit_events', 'events of one request', limits.batchEventsMax);
  return {
    answered(status, ms) {
      requests.inc({ status: String(status) });
      if (ms !== null) seconds.observe(ms / 1_000);
    },
    accepted: (events) => accepted.inc(events),
    rejected(events) {
      for (const { code } of events) rejected.inc({ code });
    },
    published(ms, events, bytes) {
      publish.observe(ms / 1_000);
      blockEvents.observe(events);
      blockBytes.observe(bytes);
    },
    publishFailed: (kind) => failures.inc({ kind }),
    watch(o) {
      metrics.gauge(
        'tallyline_edge_requests_in_flight_count',
        'requests let in and not yet answered',
        [],
        () => o.requestsInFlight(),
      );
      metrics.gauge('tallyline_edge_requests_in_flight_bytes', 'body bytes reserved', [], () =>
        o.bytesInFlight(),
      );
    },
  };
}
