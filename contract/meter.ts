/**
 * A meter turns events of one type into a quantity per subject, hour and group. Its definition never
 * changes under its key: rollups written under one meaning must not be read under another.
 */
export const AGGREGATIONS = ['count', 'sum', 'min', 'max', 'average', 'latest'] as const;
export type Aggregation = (typeof AGGREGATIONS)[number];

export interface Meter {
  readonly key: string;
  readonly eventType: string;
  readonly aggregation: Aggregation;
  /** Dotted path in `data` of the value; null for count. */
  readonly valueProperty: string | null;
  /** Dotted paths in `data`, in the order in which the rollup keeps their values. */
  readonly groupBy: readonly string[];
}

export const METER_LIMITS = {
  keyLength: 64,
  groupByMax: 8,
  metersPerTenant: 500,
  dimensionLength: 256,
} as const;

const KEY = /^[a-z][a-z0-9_]{0,63}$/;

/** Every mistake of a definition, each a sentence that names the field; empty when it is sound. */
export function meterMistakes(meter: Meter): string[] {
  const mistakes: string[] = [];
  if (!KEY.test(meter.key)) {
    mistakes.push('key: lower-case letters, digits and underscores, starting with a letter, 64 at most');
  }
  if (meter.eventType === '' || meter.eventType.length > 128) mistakes.push('eventType: 1 to 128 characters');
  if (meter.aggregation === 'count' && meter.valueProperty !== null) {
    mistakes.push('valueProperty: a count has none; leave it out or choose sum');
  }
  if (meter.aggregation !== 'count' && (meter.valueProperty === null || meter.valueProperty === '')) {
    mistakes.push(`valueProperty: ${meter.aggregation} needs the path of a number in data`);
  }
  if (meter.groupBy.length > METER_LIMITS.groupByMax)
    mistakes.push(`groupBy: ${METER_LIMITS.groupByMax} paths at most`);
  if (new Set(meter.groupBy).size !== meter.groupBy.length) mistakes.push('groupBy: a path is named twice');
  if (meter.groupBy.some((path) => path === '' || path.length > 256))
    mistakes.push('groupBy: paths of 1 to 256 characters');
  if (meter.groupBy.includes('subject'))
    mistakes.push('groupBy: subject is always a group of its own; leave it out');
  return mistakes;
}

export function sameMeter(a: Meter, b: Meter): boolean {
  return (
    a.key === b.key &&
    a.eventType === b.eventType &&
    a.aggregation === b.aggregation &&
    a.valueProperty === b.valueProperty &&
    a.groupBy.length === b.groupBy.length &&
    a.groupBy.every((path, at) => path === b.groupBy[at])
  );
}
