import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';

/**
 * Metrics of one process, with the house rules checked when a metric is made, not when a dashboard turns
 * out to be empty: names start with tallyline_ and end in their unit, and no label names a tenant, subject
 * or customer (one series a customer would cost more than the events they send, and it tells strangers who
 * the customers are).
 */
export interface Metrics {
  readonly registry: Registry;
  counter(name: string, help: string, labels?: readonly string[]): Counter;
  /** With `read`, the value is asked for at every scrape instead of being set. */
  gauge(name: string, help: string, labels?: readonly string[], read?: () => number): Gauge;
  histogram(name: string, help: string, buckets: readonly number[], labels?: readonly string[]): Histogram;
  /** Prometheus text format 0.0.4. */
  render(): Promise<string>;
}

const UNITS = [
  'total',
  'seconds',
  'bytes',
  'count',
  'ratio',
  'events',
  'rows',
  'messages',
  'blocks',
  'shards',
  'batches',
  'connections',
  'sequence',
  'cents',
  'info',
];
const NAME = new RegExp(`^tallyline_[a-z0-9_]+_(${UNITS.join('|')})$`);
const LABEL = /^[a-z][a-z0-9_]*$/;
const LABELS_REFUSED = /(^|_)(tenant|subject|customer)s?(_|$)/;

/** Throws for a name or label that breaks the rules above: a bug, found by the first test that runs. */
export function checkMetric(name: string, labels: readonly string[]): void {
  if (!NAME.test(name)) {
    throw new Error(
      `metric ${name}: names look like tallyline_<what>_<unit>, with a unit of ${UNITS.join(', ')}`,
    );
  }
  for (const label of labels) {
    if (!LABEL.test(label)) throw new Error(`metric ${name}: label ${label} is not snake_case`);
    if (LABELS_REFUSED.test(label)) {
      throw new Error(`metric ${name}: label ${label} would make one series per ${label}`);
    }
  }
}

export function createMetrics(stage: string): Metrics {
  const registry = new Registry();
  registry.setDefaultLabels({ stage });
  collectDefaultMetrics({ register: registry, prefix: 'tallyline_' });

  const common = (name: string, help: string, labels: readonly string[]) => {
    checkMetric(name, labels);
    return { name, help, labelNames: [...labels], registers: [registry] };
  };
  return {
    registry,
    counter: (name, help, labels = []) => new Counter(common(name, help, labels)),
    gauge(name, help, labels = [], read) {
      if (read === undefined) return new Gauge(common(name, help, labels));
      return new Gauge({
        ...common(name, help, labels),
        collect() {
          this.set(read());
        },
      });
    },
    histogram: (name, help, buckets, labels = []) =>
      new Histogram({ ...common(name, help, labels), buckets: [...buckets] }),
    render: () => registry.metrics(),
  };
}
