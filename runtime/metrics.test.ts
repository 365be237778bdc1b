import { expect, test } from 'vitest';
import { createMetrics } from './metrics.ts';

test('a label for a tenant, subject or customer is refused', () => {
  const metrics = createMetrics('test');
  for (const label of ['tenant', 'subject', 'customer', 'tenant_id', 'billing_customer', 'subjects']) {
    expect(() => metrics.counter('tallyline_refused_total', 'help', [label])).toThrow(label);
  }
  metrics.counter('tallyline_refused_total', 'help', ['reason']).inc({ reason: 'full' }, 2);
});

test.each([
  'events_total',
  'tallyline_events',
  'tallyline_Events_total',
  'tallyline_lag_ms',
  'tallyline_total',
])('the name %s is refused', (name) => {
  expect(() => createMetrics('test').gauge(name, 'help')).toThrow(name);
});

test('what was counted is rendered with its stage, beside the metrics of the process', async () => {
  const metrics = createMetrics('edge');
  metrics.counter('tallyline_published_total', 'messages published').inc(3);
  metrics.histogram('tallyline_ack_seconds', 'time to the ack', [0.1, 1]).observe(0.5);
  const rendered = await metrics.render();
  expect(rendered).toContain('tallyline_published_total{stage="edge"} 3');
  expect(rendered).toContain('tallyline_ack_seconds_bucket{le="1",stage="edge"} 1');
  expect(rendered).toContain('tallyline_process_resident_memory_bytes{stage="edge"}');
});

test('what a hot path counts by itself is rendered as the library would render it', async () => {
  const library = createMetrics('edge');
  const own = createMetrics('edge');
  const bounds = [0.001, 0.01, 0.5, 1];
  const histogram = library.histogram('tallyline_ack_seconds', 'time to the ack', bounds);
  const spread = own.spread('tallyline_ack_seconds', 'time to the ack', bounds, 1_000);
  for (const ms of [0.25, 1, 2, 10, 500, 999, 1_000, 70_000]) {
    histogram.observe(ms / 1_000);
    spread.observe(ms);
  }
  const counter = library.counter('tallyline_refused_total', 'refused', ['reason']);
  const counts = new Map([
    ['full', 3],
    ['away', 1],
  ]);
  for (const [reason, count] of counts) counter.inc({ reason }, count);
  own.counts('tallyline_refused_total', 'refused', 'reason', () => counts);
  library.counter('tallyline_ack_total', 'acks').inc(8);
  own.count('tallyline_ack_total', 'acks', () => 8);
  const linesOf = async (metrics: typeof own) =>
    (await metrics.render()).split('\n').filter((line) => /_ack_|_refused_/.test(line));
  expect(await linesOf(own)).toEqual(await linesOf(library));
  counts.set('full', 4);
  expect(await linesOf(own)).toContain('tallyline_refused_total{reason="full",stage="edge"} 4');
  expect(await linesOf(own)).toContain('tallyline_refused_total{reason="away",stage="edge"} 1');
});
