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
