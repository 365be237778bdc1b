/** A meter definition as a row of `meters`, and back from the view `meter_definitions`. */
import { parseMeterRecord, type MeterDefined } from '../contract/control.ts';
import { effectiveFromOf, filterValues, groupsMaxOf, versionOf } from '../contract/meter.ts';
import type { MeterAt } from './ports.ts';

/** A filter is a tuple: property, values, and 1 when they are what it leaves out. */
type FilterColumns = [property: string, values: readonly string[], excludes: number];

/** Of the view. `effective_from` in epoch seconds, 0 for a first version. */
export interface StoredMeter {
  readonly tenant: string;
  readonly meter: string;
  readonly version: number;
  readonly event_type: string;
  readonly aggregation: string;
  readonly value_property: string;
  readonly group_by: readonly string[];
  readonly filters: readonly FilterColumns[];
  readonly groups_max: number;
  readonly effective_from: number;
}

export function meterRow({ shard, position, defined: { tenant, meter } }: MeterAt): object {
  const filters = (meter.filters ?? []).map((filter): FilterColumns => [
    filter.property,
    filterValues(filter),
    'in' in filter ? 0 : 1,
  ]);
  return {
    tenant,
    meter: meter.key,
    versions_before: versionOf(meter) - 1,
    event_type: meter.eventType,
    aggregation: meter.aggregation,
    value_property: meter.valueProperty ?? '',
    group_by: meter.groupBy,
    filters,
    groups_max: groupsMaxOf(meter),
    effective_from: effectiveFromOf(meter) / 1_000,
    shard,
    position,
  };
}

/** It is read by the same rules as a message of the log. What does not pass them was not written by an aggregator. */
export function definedOf(row: StoredMeter): MeterDefined {
  const { tenant, version } = row;
  const meter = {
    key: row.meter,
    eventType: row.event_type,
    aggregation: row.aggregation,
    valueProperty: row.value_property === '' ? null : row.value_property,
    groupBy: row.group_by,
    filters: row.filters.map(([property, values, excludes]) =>
      excludes === 0 ? { property, in: values } : { property, notIn: values },
    ),
    groupsMax: row.groups_max,
    version,
    ...(version === 1 ? {} : { effectiveFromMs: row.effective_from * 1_000 }),
  };
  const defined = parseMeterRecord(JSON.stringify({ tenant, meter }));
  if (defined === null)
    throw new Error(`the stored definition of meter ${JSON.stringify(row.meter)} is not sound`);
  return defined;
}
