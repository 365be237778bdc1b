import { Type, type Static } from 'typebox';
import { AGGREGATIONS, METER_LIMITS, meterMistakes, type Meter } from '../../contract/meter.ts';
import { mistakeOf, type Mistake } from './problems.ts';
import { named, Nullable, object, oneOf } from './schema.ts';

const AggregationName = oneOf(AGGREGATIONS, 'How the values of a window become one');

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
  valueProperty: Type.Optional(
    Nullable(
      Type.String({
        maxLength: 256,
        description: 'Path of the value in `data`, nested with dots; absent for count',
        examples: ['input_tokens'],
      }),
    ),
  ),
  groupBy: Type.Optional(
    Type.Array(Type.String({ maxLength: 256 }), {
      maxItems: METER_LIMITS.groupByMax,
      description: 'Paths in `data` by which usage can be grouped and filtered',
      examples: [['model']],
    }),
  ),
});

export const MeterSchema = named(
  'Meter',
  object(
    {
      key: Type.String(),
      eventType: Type.String(),
      aggregation: AggregationName,
      valueProperty: Nullable(Type.String()),
      groupBy: Type.Array(Type.String()),
    },
    'Turns events of one type into a quantity per subject, hour and group',
  ),
);

export function meterFrom(body: Static<typeof MeterBody>): { meter: Meter; mistakes: Mistake[] } {
  const meter: Meter = {
    key: body.key,
    eventType: body.eventType,
    aggregation: body.aggregation,
    valueProperty: body.valueProperty ?? null,
    groupBy: body.groupBy ?? [],
  };
  return { meter, mistakes: meterMistakes(meter).map(mistakeOf) };
}

export function meterJson(meter: Meter): Static<typeof MeterSchema> {
  const { key, eventType, aggregation, valueProperty, groupBy } = meter;
  return { key, eventType, aggregation, valueProperty, groupBy: [...groupBy] };
}
