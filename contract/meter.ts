/**
 * A meter turns events of one type into a quantity per subject, hour and group.
 *
 * A definition never changes: rollups written under one meaning must not be read under another. What may change
 * is told as a new *version* of the meter, which holds from the beginning of an hour on. An event belongs to the
 * last version that begins at or before its hour and stands before it in the log. The hour decides, so no hour
 * mixes two meanings, as long as a version stands in the log before the first event of its hour does. That is
 * why a version must be stored well ahead: see `METER_LIMITS.versionLeadMs`.
 */
import { isReservedPath, isReservedType } from './corrections.ts';
import { scaleDecimal, unscaleDecimal } from './quantity.ts';
import { HOUR_MS } from './window.ts';

export const AGGREGATIONS = ['count', 'sum', 'min', 'max', 'average', 'latest', 'unique_count'] as const;
export type Aggregation = (typeof AGGREGATIONS)[number];

/**
 * Which events a meter takes. A value is compared as text, whole: a number in its shortest decimal form, a literal
 * as its JSON, '' for what the event lacks. An event that is left out is neither counted nor refused by the meter.
 */
export type MeterFilter =
  | { readonly property: string; readonly in: readonly string[] }
  | { readonly property: string; readonly notIn: readonly string[] };

export interface Meter {
  readonly key: string;
  readonly eventType: string;
  readonly aggregation: Aggregation;
  /** Dotted path in `data` of the value; null for count. For unique_count whatever stands there, as text. */
  readonly valueProperty: string | null;
  /** Dotted paths in `data`, in the order in which the rollup keeps their values. */
  readonly groupBy: readonly string[];
  /** All of them must let an event through. Absent: none. */
  readonly filters?: readonly MeterFilter[];
  /** Distinct groups that an hour of one shard may have; further ones go to the overflow group. Absent: 10,000. */
  readonly groupsMax?: number;
  /** 1 and absent for the first definition of a key. */
  readonly version?: number;
  /** Start of the first hour of the version, epoch milliseconds. Absent for the first version, which has none. */
  readonly effectiveFromMs?: number;
}

export const METER_LIMITS = {
  keyLength: 64,
  groupByMax: 8,
  metersPerTenant: 500,
  dimensionLength: 256,
  filtersMax: 8,
  filterValuesMax: 64,
  filterValueLength: 256,
  pathLength: 256,
  versionsMax: 100,
  groupsMaxDefault: 10_000,
  groupsMaxMost: 100_000,
  /**
   * How far the first hour of a version must lie behind the moment at which the log stores its definition. An
   * edge takes no event whose time lies further ahead than its own bound, one hour by default, and ten
   * minutes less than this at most: so no event of the version's first hour can stand before it in the log, also if
   * clocks disagree by some minutes.
   */
  versionLeadMs: 2 * HOUR_MS,
  /** How far it must lie ahead when a version is asked for: an hour more, for a broker that is away meanwhile. */
  versionNoticeMs: 3 * HOUR_MS,
} as const;

/** The group of everything that exceeds `groupsMax`, in each of its dimensions. An event cannot take it for itself. */
export const OVERFLOW_GROUP = '__overflow__';

const KEY = /^[a-z][a-z0-9_]{0,63}$/;

export const versionOf = (meter: Meter): number => meter.version ?? 1;
export const effectiveFromOf = (meter: Meter): number => meter.effectiveFromMs ?? 0;
export const groupsMaxOf = (meter: Meter): number => meter.groupsMax ?? METER_LIMITS.groupsMaxDefault;
export const filterValues = (filter: MeterFilter): readonly string[] =>
  'in' in filter ? filter.in : filter.notIn;

/** Whether a value lets an event through; '' for what it lacks. */
export function letsThrough(filter: MeterFilter, value: string): boolean {
  return 'in' in filter ? filter.in.includes(value) : !filter.notIn.includes(value);
}

/** Those of a filter's values that a number of this scale is written as, as mantissas: what it has as text, without text. */
export function mantissasAmong(values: readonly string[], scale: number): Set<number> {
  const mantissas = new Set<number>();
  for (const text of values) {
    const mantissa = scaleDecimal(text, scale);
    if (typeof mantissa === 'bigint' && unscaleDecimal(mantissa, scale) === text)
      mantissas.add(Number(mantissa));
  }
  return mantissas;
}

/** A count, of events or of distinct values, adds one for each event, whatever its value is. */
export function countsEvents(aggregation: Aggregation): boolean {
  return aggregation === 'count' || aggregation === 'unique_count';
}

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
    const what = meter.aggregation === 'unique_count' ? 'a value' : 'a number';
    mistakes.push(`valueProperty: ${meter.aggregation} needs the path of ${what} in data`);
  }
  if (meter.groupBy.length > METER_LIMITS.groupByMax)
    mistakes.push(`groupBy: ${METER_LIMITS.groupByMax} paths at most`);
  if (new Set(meter.groupBy).size !== meter.groupBy.length) mistakes.push('groupBy: a path is named twice');
  if (meter.groupBy.some((path) => path === '' || path.length > METER_LIMITS.pathLength))
    mistakes.push('groupBy: paths of 1 to 256 characters');
  if (meter.groupBy.includes('subject'))
    mistakes.push('groupBy: subject is always a group of its own; leave it out');
  mistakes.push(
    ...filterMistakes(meter.filters ?? []),
    ...versionMistakes(meter),
    ...reservedMistakes(meter),
  );
  const { groupsMaxMost } = METER_LIMITS;
  if (!isWhole(groupsMaxOf(meter), 1, groupsMaxMost))
    mistakes.push(`groupsMax: a whole number from 1 to ${groupsMaxMost}`);
  return mistakes;
}

function filterMistakes(filters: readonly MeterFilter[]): string[] {
  const { filtersMax, filterValuesMax, filterValueLength, pathLength } = METER_LIMITS;
  const mistakes: string[] = [];
  if (filters.length > filtersMax) mistakes.push(`filters: ${filtersMax} at most`);
  filters.forEach((filter, at) => {
    const place = `filters[${at}]`;
    const { property } = filter;
    if (property === '' || property.length > pathLength || !property.isWellFormed())
      mistakes.push(`${place}.property: a path of 1 to ${pathLength} characters`);
    const values = filterValues(filter);
    const list = 'in' in filter ? 'in' : 'notIn';
    if (values.length === 0 || values.length > filterValuesMax)
      mistakes.push(`${place}.${list}: 1 to ${filterValuesMax} values`);
    if (new Set(values).size !== values.length) mistakes.push(`${place}.${list}: a value is named twice`);
    if (values.some((value) => value.length > filterValueLength || !value.isWellFormed()))
      mistakes.push(`${place}.${list}: Unicode texts of at most ${filterValueLength} characters`);
  });
  return mistakes;
}

/** What is ours says nothing of the usage. */
function reservedMistakes({ eventType, valueProperty, groupBy, filters = [] }: Meter): string[] {
  const mistakes = isReservedType(eventType)
    ? ['eventType: types that begin with tallyline. are reserved']
    : [];
  const paths: readonly (readonly [place: string, path: string])[] = [
    ['valueProperty', valueProperty ?? ''],
    ...groupBy.map((path) => ['groupBy', path] as const),
    ...filters.map(({ property }, at) => [`filters[${at}].property`, property] as const),
  ];
  for (const [place, path] of paths)
    if (isReservedPath(path)) mistakes.push(`${place}: paths that begin with tallyline are reserved`);
  return mistakes;
}

function versionMistakes(meter: Meter): string[] {
  const version = versionOf(meter);
  if (!isWhole(version, 1, METER_LIMITS.versionsMax))
    return [`version: a whole number from 1 to ${METER_LIMITS.versionsMax}`];
  const from = meter.effectiveFromMs;
  if (version === 1)
    return from === undefined ? [] : ['effectiveFrom: the first version holds for every hour; leave it out'];
  if (from === undefined || !isWhole(from, 1, 2 ** 32 * 1_000 - 1) || from % HOUR_MS !== 0)
    return ['effectiveFrom: the first instant of an hour, such as 2026-12-01T00:00:00Z'];
  return [];
}

/** Why `next` cannot be the version after `last`; empty when it can. Both are sound. */
export function successionMistakes(last: Meter, next: Meter): string[] {
  const mistakes: string[] = [];
  // A number may be left out: that of a version which did not reach the log in time.
  if (versionOf(next) <= versionOf(last)) mistakes.push(`version: higher than ${versionOf(last)}`);
  if (effectiveFromOf(next) <= effectiveFromOf(last))
    mistakes.push('effectiveFrom: later than that of the version before');
  if (next.eventType !== last.eventType)
    mistakes.push('eventType: stays as it is; define another meter for another type');
  if (next.aggregation !== last.aggregation)
    mistakes.push('aggregation: stays as it is; define another meter for another one');
  if (last.groupBy.some((path, at) => next.groupBy[at] !== path))
    mistakes.push('groupBy: paths can be added at the end, and none removed or moved');
  return mistakes;
}

export function sameMeter(a: Meter, b: Meter): boolean {
  return (
    a.key === b.key &&
    a.eventType === b.eventType &&
    a.aggregation === b.aggregation &&
    a.valueProperty === b.valueProperty &&
    sameTexts(a.groupBy, b.groupBy) &&
    groupsMaxOf(a) === groupsMaxOf(b) &&
    versionOf(a) === versionOf(b) &&
    effectiveFromOf(a) === effectiveFromOf(b) &&
    sameFilters(a.filters ?? [], b.filters ?? [])
  );
}

/** The definition and nothing else, and nothing of it that says what its absence says. */
export function definitionOf(meter: Meter): Meter {
  const { key, eventType, aggregation, valueProperty, groupBy, filters = [] } = meter;
  const [groupsMax, version, effectiveFromMs] = [groupsMaxOf(meter), versionOf(meter), meter.effectiveFromMs];
  return {
    key,
    eventType,
    aggregation,
    valueProperty,
    groupBy: [...groupBy],
    ...(filters.length === 0 ? {} : { filters }),
    ...(groupsMax === METER_LIMITS.groupsMaxDefault ? {} : { groupsMax }),
    ...(version === 1 ? {} : { version }),
    ...(effectiveFromMs === undefined ? {} : { effectiveFromMs }),
  };
}

function sameFilters(a: readonly MeterFilter[], b: readonly MeterFilter[]): boolean {
  return (
    a.length === b.length &&
    a.every((filter, at) => {
      const other = b[at]!;
      return (
        filter.property === other.property &&
        'in' in filter === 'in' in other &&
        sameTexts(filterValues(filter), filterValues(other))
      );
    })
  );
}

function sameTexts(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((text, at) => text === b[at]);
}

function isWhole(value: number, least: number, most: number): boolean {
  return Number.isSafeInteger(value) && value >= least && value <= most;
}
