import type { Metrics } from '../../runtime/metrics.ts';

export interface StreamMeasures {
  batch(outcome: 'taken' | 'refused'): void;
  /** A connection ended with this close code (RFC 6455; 1006 without one). */
  closed(code: number): void;
  watch(o: { connections(): number }): void;
}

/** The series are looked up once: a frame costs an addition. */
export function streamMeasures(
  metrics: Metrics,
  limits: { readonly streamConnectionsMax: number },
): StreamMeasures {
  const taken = metrics.counter('tallyline_edge_stream_batches_total', 'batches of streams, by outcome', [
    'outcome',
  ]);
  const closed = metrics.counter('tallyline_edge_stream_closed_total', 'streams that ended, by close code', [
    'code',
  ]);
  metrics
    .gauge('tallyline_edge_stream_limit_connections', 'streams that may be open')
    .set(limits.streamConnectionsMax);
  const outcomes = {
    taken: taken.labels({ outcome: 'taken' }),
    refused: taken.labels({ outcome: 'refused' }),
  };
  return {
    batch: (outcome) => outcomes[outcome].inc(),
    closed: (code) => closed.inc({ code: String(code) }),
    watch: (o) =>
      void metrics.gauge('tallyline_edge_stream_open_connections', 'streams that are open', [], () =>
        o.connections(),
      ),
  };
}
