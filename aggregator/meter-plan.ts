/**
 * What counting an event takes, worked out once for each shape of `data` instead of once an event: in which cells
 * the values and dimensions of the meters of its type stand, and what their filters still have to look at.
 */
import { FIELD_NUMBER } from '../contract/fields.ts';
import {
  filterValues,
  letsThrough,
  mantissasAmong,
  type Meter,
  type MeterFilter,
} from '../contract/meter.ts';

export interface MeterPlan {
  readonly meter: Meter;
  /** The meter's number in the block. */
  readonly number: number;
  /** Index of the value among the event's cells, -1 when the shape lacks it; unused for a count. */
  readonly value: number;
  readonly valueTag: number;
  readonly valueScale: number;
  readonly grouping: number;
  /** Those that the shape alone does not decide; null for none. */
  readonly filters: readonly FilterPlan[] | null;
}

/** A filter on a cell. */
export interface FilterPlan {
  readonly filter: MeterFilter;
  /** Whether the filter's list says what it takes, or what it leaves out. */
  readonly isIn: boolean;
  readonly cell: number;
  /** The mantissas that are among the filter's values, where the cell is a number; else null. */
  readonly numbers: ReadonlySet<number> | null;
  /** Whether a text lets an event through, by its number. */
  readonly texts: Map<number, boolean>;
}

/** Cells of the dimensions of one groupBy, with tag and scale; -1 where the shape lacks one. */
export interface Grouping {
  readonly cells: readonly number[];
  readonly tags: readonly number[];
  readonly scales: readonly number[];
}

export interface ShapeField {
  readonly cell: number;
  readonly tag: number;
  readonly scale: number;
}

export interface Plan {
  readonly meters: readonly MeterPlan[];
  readonly groupings: readonly Grouping[];
}

/** The plan of events of one shape. `fields` are the shape's, by path. */
export function makePlan(
  meters: readonly Meter[],
  fields: ReadonlyMap<string, ShapeField>,
  numberOf: (meter: Meter) => number,
): Plan {
  const groupings: Grouping[] = [];
  const numbers = new Map<string, number>();
  const plans: MeterPlan[] = [];
  for (const meter of meters) {
    const filters = filterPlans(meter.filters ?? [], fields);
    if (filters === 'never') continue;
    const by = JSON.stringify(meter.groupBy);
    let grouping = numbers.get(by);
    if (grouping === undefined) {
      grouping = groupings.length;
      numbers.set(by, grouping);
      const found = meter.groupBy.map((path) => fields.get(path));
      groupings.push({
        cells: found.map((field) => field?.cell ?? -1),
        tags: found.map((field) => field?.tag ?? 0),
        scales: found.map((field) => field?.scale ?? 0),
      });
    }
    const value = meter.valueProperty === null ? undefined : fields.get(meter.valueProperty);
    plans.push({
      meter,
      number: numberOf(meter),
      value: value?.cell ?? -1,
      valueTag: value?.tag ?? 0,
      valueScale: value?.scale ?? 0,
      grouping,
      filters: filters.length === 0 ? null : filters,
    });
  }
  return { meters: plans, groupings };
}

/** What the filters of a meter still have to look at in an event of this shape; 'never' when none gets through. */
function filterPlans(
  filters: readonly MeterFilter[],
  fields: ReadonlyMap<string, ShapeField>,
): FilterPlan[] | 'never' {
  const plans: FilterPlan[] = [];
  for (const filter of filters) {
    const field = fields.get(filter.property);
    if (field === undefined) {
      if (!letsThrough(filter, '')) return 'never';
      continue;
    }
    const { cell, tag, scale } = field;
    const numbers = tag === FIELD_NUMBER ? mantissasAmong(filterValues(filter), scale) : null;
    plans.push({ filter, isIn: 'in' in filter, cell, numbers, texts: new Map() });
  }
  return plans;
}
