import { Type, type Static } from 'typebox';
import {
  AGGREGATIONS,
  METER_LIMITS,
  effectiveFromOf,
  filterValues,
  groupsMaxOf,
  meterMistakes,
  successionMistakes,
  versionOf,
  type Meter,
  type MeterFilter,
} from '../../contract/meter.ts';
import { formatInstant, parseInstant } from '../../contract/window.ts';
import type { StoredMeter } from '../meters.ts';
import { mistakeOf, type Mistake } from './problems.ts';
import { named, Nullable, object, oneOf } from './schema.ts';

const AggregationName = oneOf(AGGREGATIONS, 'How the values of a window become one');

const Texts = Type.Array(Type.String({ maxLength: METER_LIMITS.filterValueLength }), {
  minItems: 1,
  maxItems: METER_LIMITS.filterValuesMax,
});

const FilterSchema = object(
  {
    property: Type.String({ maxLength: METER_LIMITS.pathLength, description: 'Path in `data`' }),
    in: Type.Optional(Texts),
    notIn: Type.Optional(Texts),
  },
  'Which events are taken: those whose value is `in` the list, or `notIn` it. Values are compared as text, whole; `""` stands for what an event lacks',
);

const valueProperty = Type.Optional(
  Nullable(
    Type.String({
      maxLength: METER_LIMITS.pathLength,
      description: 'Path of the value in `data`, nested with dots; absent for count',
      examples: ['input_tokens'],
    }),
  ),
);
const groupBy = Type.Optional(
  Type.Array(Type.String({ maxLength: METER_LIMITS.pathLength }), {
    maxItems: METER_LIMITS.groupByMax,
    description: 'Paths in `data` by which usage can be grouped and filtered',
    examples: [['model']],
  }),
);
const filters = Type.Optional(
  Type.Array(FilterSchema, {
    maxItems: METER_LIMITS.filtersMax,
    description: 'All of them must let an event through; what is left out is neither counted nor refused',
  }),
);
const groupsMax = Type.Optional(
  Type.Integer({
    minimum: 1,
    maximum: METER_LIMITS.groupsMaxMost,
    description: `Distinct groups in an hour of one shard; further ones are counted together as \`__overflow__\`. ${METER_LIMITS.groupsMaxDefault} when absent`,
  }),
);

export const MeterBody = object({
  key: Type.String({
    maxLength: METER_LIMITS.keyLength,
    description: 'Never changes its meaning',
    examples: ['input_tokens'],
  }),
  eventType: Type.String({
    maxLength: 128,
    description: 'The `type` of the events it counts',
    examples: ['llm.request'],
  }),
  aggregation: AggregationName,
  valueProperty,
  groupBy,
  filters,
  groupsMax,
});

export const MeterVersionBody = object({
  effectiveFrom: Type.String({
    maxLength: 64,
    description: `First hour of the version (RFC 3339), at least ${METER_LIMITS.versionNoticeMs / 3_600_000} hours ahead`,
    examples: ['2027-01-01T00:00:00Z'],
  }),
  valueProperty,
  groupBy,
  filters,
  groupsMax,
});

const VERSION = {
  version: Type.Integer({ minimum: 1 }),
  effectiveFrom: Nullable(
    Type.String({
      format: 'date-time',
      description: 'Null for the first, which has every hour before the second',
    }),
  ),
  valueProperty: Nullable(Type.String()),
  groupBy: Type.Array(Type.String()),
  filters: Type.Array(FilterSchema),
  groupsMax: Type.Integer({ minimum: 1 }),
};

export const MeterSchema = named(
  'Meter',
  object(
    {
      key: Type.String(),
      eventType: Type.String(),
      aggregation: AggregationName,
      ...VERSION,
      versions: Type.Array(object(VERSION), { description: 'All versions in order, those to come included' }),
    },
    'Turns events of one type into a quantity per subject, hour and group. What it says of itself is its newest version',
  ),
);

export function meterFrom(body: Static<typeof MeterBody>): { meter: Meter; mistakes: Mistake[] } {
  const { filters: read, mistakes } = filtersFrom(body.filters ?? []);
  const meter: Meter = {
    key: body.key,
    eventType: body.eventType,
    aggregation: body.aggregation,
    valueProperty: body.valueProperty ?? null,
    groupBy: body.groupBy ?? [],
    filters: read,
    ...(body.groupsMax === undefined ? {} : { groupsMax: body.groupsMax }),
  };
  return { meter, mistakes: [...mistakes, ...meterMistakes(meter)].map(mistakeOf) };
}

/** The version after the last one: what the body does not name stays as it is. */
export function versionFrom(
  last: Meter,
  version: number,
  body: Static<typeof MeterVersionBody>,
): { meter: Meter; mistakes: Mistake[] } {
  const { filters: read, mistakes } =
    body.filters === undefined ? { filters: last.filters ?? [], mistakes: [] } : filtersFrom(body.filters);
  const effectiveFromMs = parseInstant(body.effectiveFrom);
  const meter: Meter = {
    key: last.key,
    eventType: last.eventType,
    aggregation: last.aggregation,
    valueProperty: body.valueProperty === undefined ? last.valueProperty : body.valueProperty,
    groupBy: body.groupBy ?? last.groupBy,
    filters: read,
    groupsMax: body.groupsMax ?? groupsMaxOf(last),
    version,
    ...(effectiveFromMs === null ? {} : { effectiveFromMs }),
  };
  return {
    meter,
    mistakes: [...mistakes, ...meterMistakes(meter), ...successionMistakes(last, meter)].map(mistakeOf),
  };
}

/** One list and not the other: with both, or none, it would be a guess what is meant. */
function filtersFrom(bodies: readonly Static<typeof FilterSchema>[]): {
  filters: MeterFilter[];
  mistakes: string[];
} {
  const mistakes = bodies.flatMap((body, at) =>
    (body.in === undefined) === (body.notIn === undefined) ? [`filters[${at}]: either in or notIn`] : [],
  );
  const read = bodies.map(({ property, in: taken, notIn = [] }) =>
    taken === undefined ? { property, notIn } : { property, in: taken },
  );
  return { filters: read, mistakes };
}

export function meterJson(meter: StoredMeter): Static<typeof MeterSchema> {
  const { key, eventType, aggregation, versions } = meter;
  return { key, eventType, aggregation, ...versionJson(meter), versions: versions.map(versionJson) };
}

function versionJson(meter: Meter) {
  const { valueProperty: path, groupBy: by, filters: taken = [] } = meter;
  const version = versionOf(meter);
  return {
    version,
    effectiveFrom: version === 1 ? null : formatInstant(effectiveFromOf(meter)),
    valueProperty: path,
    groupBy: [...by],
    filters: taken.map((filter) => {
      const { property } = filter;
      const values = [...filterValues(filter)];
      return 'in' in filter ? { property, in: values } : { property, notIn: values };
    }),
    groupsMax: groupsMaxOf(meter),
  };
}
