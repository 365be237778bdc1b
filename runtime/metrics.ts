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
  /** A counter that somebody else counts: `read` says how far it is at a scrape. */
  count(name: string, help: string, read: () => number): void;
  /** The same with one label: `read` gives each of its values. */
  counts(
    name: string,
    help: string,
    label: string,
    read: () => Iterable<readonly [value: string, count: number]>,
  ): void;
  /** A histogram without labels for a hot path; see {@link Spread}. */
  spread(name: string, help: string, bounds: readonly number[], unit?: number): Spread;
  /** Prometheus text format 0.0.4. */
  render(): Promise<string>;
}

/**
 * A histogram that costs an observation a few additions: 12 ns, where the library's takes 190. `unit` is what
 * a unit of the exported metric is in those that are observed: 1,000 for milliseconds that are exported as seconds.
 */
export class Spread {
  readonly bounds: readonly number[];
  readonly #unit: number;
  readonly #scaled: Float64Array;
  /** By bucket, not cumulated; the last one is what lies above all bounds. */
  readonly #counts: Float64Array;
  #sum = 0;

  constructor(bounds: readonly number[], unit = 1) {
    this.bounds = bounds;
    this.#unit = unit;
    this.#scaled = Float64Array.from(bounds, (bound) => bound * unit);
    this.#counts = new Float64Array(bounds.length + 1);
  }

  observe(value: number): void {
    const bounds = this.#scaled;
    let bucket = 0;
    while (bucket < bounds.length && value > bounds[bucket]!) bucket += 1;
    this.#counts[bucket]! += 1;
    this.#sum += value;
  }

  /** As Prometheus wants it. */
  read(): { readonly cumulated: readonly number[]; readonly count: number; readonly sum: number } {
    const cumulated: number[] = [];
    let count = 0;
    for (const inBucket of this.#counts) cumulated.push((count += inBucket));
    return { cumulated, count, sum: this.#sum / this.#unit };
  }
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
    count(name, help, read) {
      new Counter({
        ...common(name, help, []),
        collect() {
          this.reset();
          this.inc(read());
        },
      });
    },
    counts(name, help, label, read) {
      new Counter({
        ...common(name, help, [label]),
        collect() {
          this.reset();
          for (const [value, count] of read()) this.inc({ [label]: value }, count);
        },
      });
    },
    spread(name, help, bounds, unit) {
      checkMetric(name, []);
      const spread = new Spread(bounds, unit);
      const exported = { name, help, type: 'histogram', aggregator: 'sum' };
      // The registry asks a metric for its name and its values; that is all it needs to be.
      registry.registerMetric({
        ...exported,
        get: () => Promise.resolve({ ...exported, values: valuesOf(name, spread) }),
      } as unknown as Histogram);
      return spread;
    },
    render: () => registry.metrics(),
  };
}

function valuesOf(name: string, spread: Spread): object[] {
  const { cumulated, count, sum } = spread.read();
  const buckets = spread.bounds.map((bound, at) => ({
    metricName: `${name}_bucket`,
    labels: { le: bound },
    value: cumulated[at],
  }));
  return [
    ...buckets,
    { metricName: `${name}_bucket`, labels: { le: '+Inf' }, value: count },
    { metricName: `${name}_sum`, labels: {}, value: sum },
    { metricName: `${name}_count`, labels: {}, value: count },
  ];
}
