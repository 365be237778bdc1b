import { REJECTIONS, type RejectedEvent, type RejectionCode } from '../contract/rejections.ts';
import type { Metrics } from '../runtime/metrics.ts';

export interface EdgeMeasures {
  /** @param ms from the head of a request that was let in; null for one that was not. */
  answered(status: number, ms: number | null): void;
  /** @param unmatched of these, events that no meter counts. */
  accepted(events: number, unmatched: number): void;
  rejected(events: readonly RejectedEvent[]): void;
  published(ms: number, events: number, bytes: number): void;
  publishFailed(kind: string): void;
  /** Gauges that are read at every scrape. */
  watch(o: EdgeGauges): void;
}

export interface EdgeGauges {
  requestsInFlight(): number;
  bytesInFlight(): number;
  /** Bodies that wait for their turn to be read. */
  bodiesWaiting(): number;
  /** Bodies that wait to be decompressed. */
  decompressionsWaiting(): number;
  connections(): number;
}

/** Every limit of the edge, exported beside the gauge that it bounds. */
export interface EdgeMeasureLimits {
  readonly requestsInFlightMax: number;
  readonly bytesInFlightMax: number;
  readonly bodyBytesMax: number;
  readonly batchEventsMax: number;
  readonly connectionsMax: number;
}

const SECONDS = [0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.25, 0.5, 1, 2.5, 5, 10];
const EVENTS = [1, 4, 16, 64, 256, 512, 1_024, 2_048, 4_096];
const BYTES = [256, 1_024, 4_096, 16_384, 32_768, 65_536, 98_304, 131_072, 262_144];
const MS_A_SECOND = 1_000;
const STATUSES = 600;

/** What a request touches is counted in plain numbers, and given to the library when somebody asks for it. */
export function edgeMeasures(metrics: Metrics, limits: EdgeMeasureLimits): EdgeMeasures {
  const statuses = new Float64Array(STATUSES);
  const codes = new Map<RejectionCode, number>();
  for (const code of Object.keys(REJECTIONS) as RejectionCode[]) codes.set(code, 0);
  let accepted = 0;
  let unmatched = 0;

  metrics.counts('tallyline_edge_requests_total', 'requests answered', 'status', function* () {
    for (let status = 0; status < STATUSES; status++)
      if (statuses[status]! > 0) yield [String(status), statuses[status]!];
  });
  const seconds = metrics.spread(
    'tallyline_edge_request_seconds',
    'from the head of a request that was let in to its answer',
    SECONDS,
    MS_A_SECOND,
  );
  metrics.count(
    'tallyline_edge_events_accepted_total',
    'events answered for with yes: acknowledged by the log',
    () => accepted,
  );
  metrics.count(
    'tallyline_edge_events_unmatched_total',
    'of the accepted events, those that no meter known here counts',
    () => unmatched,
  );
  metrics.counts('tallyline_edge_events_rejected_total', 'events rejected, by code', 'code', function* () {
    for (const [code, count] of codes) if (count > 0) yield [code, count];
  });
  const publish = metrics.spread(
    'tallyline_edge_publish_seconds',
    'from sending a block to its acknowledgement',
    SECONDS,
    MS_A_SECOND,
  );
  const failures = metrics.counter('tallyline_edge_publish_failures_total', 'blocks that failed, by kind', [
    'kind',
  ]);
  const blockEvents = metrics.spread('tallyline_edge_block_events', 'events in a block', EVENTS);
  const blockBytes = metrics.spread('tallyline_edge_block_bytes', 'size of a block', BYTES);
  const limit = (name: string, help: string, value: number): void => metrics.gauge(name, help).set(value);
  limit('tallyline_edge_in_flight_limit_count', 'requests that may be in flight', limits.requestsInFlightMax);
  limit('tallyline_edge_in_flight_limit_bytes', 'body bytes that may be in flight', limits.bytesInFlightMax);
  limit('tallyline_edge_body_limit_bytes', 'body bytes of one request', limits.bodyBytesMax);
  limit('tallyline_edge_batch_limit_events', 'events of one request', limits.batchEventsMax);
  limit('tallyline_edge_limit_connections', 'connections that may be open', limits.connectionsMax);
  return {
    answered(status, ms) {
      statuses[status]! += 1;
      if (ms !== null) seconds.observe(ms);
    },
    accepted(events, ofThemUnmatched) {
      accepted += events;
      unmatched += ofThemUnmatched;
    },
    rejected(events) {
      for (const { code } of events) codes.set(code, codes.get(code)! + 1);
    },
    published(ms, events, bytes) {
      publish.observe(ms);
      blockEvents.observe(events);
      blockBytes.observe(bytes);
    },
    publishFailed: (kind) => failures.inc({ kind }),
    watch(o) {
      const gauge = (name: string, help: string, read: () => number): void =>
        void metrics.gauge(name, help, [], read);
      gauge('tallyline_edge_requests_in_flight_count', 'requests let in and not yet answered', () =>
        o.requestsInFlight(),
      );
      gauge('tallyline_edge_requests_in_flight_bytes', 'body bytes reserved', () => o.bytesInFlight());
      gauge('tallyline_edge_bodies_waiting_count', 'bodies that wait for their turn', () =>
        o.bodiesWaiting(),
      );
      gauge('tallyline_edge_decompressions_waiting_count', 'bodies that wait to be decompressed', () =>
        o.decompressionsWaiting(),
      );
      gauge('tallyline_edge_open_connections', 'connections that are open, streams included', () =>
        o.connections(),
      );
    },
  };
}
