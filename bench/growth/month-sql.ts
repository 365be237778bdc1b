/**
 * A month of the canonical workload as SQL, made inside of ClickHouse from the numbers 0 to n - 1: the same law of
 * subjects, models, users and digits as in bench/canonical/workload.ts, drawn with another hash, and without duplicates,
 * which leave no raw event. Times rise with the number, evenly over the month.
 *
 * Raw events and rollup rows are made from the numbers separately, and not one from the other: that the product reads the
 * same from both is then a comparison.
 */
import { EVENT_TYPE, INPUT_DIGITS, OUTPUT_DIGITS, SUBJECT_DIGITS, TENANT } from '../canonical/workload.ts';
import { METERS } from '../canonical/tally.ts';
import { NAME_STEP } from './month-subjects.ts';

/** October 2026: 31 days. */
export const MONTH = { start: Date.UTC(2026, 9, 1), end: Date.UTC(2026, 10, 1) };
export const MONTH_HOURS = (MONTH.end - MONTH.start) / 3_600_000;
const INCARNATION = '72057594037927936'; // 1 in the highest byte
const BLOCK_EVENTS = 2_000;

export interface Month {
  readonly seed: number;
  readonly events: number;
  readonly subjects: number;
  readonly shards: number;
}

/** Events with these numbers. */
export interface NumberRange {
  readonly from: number;
  readonly count: number;
}

const least = (digits: readonly number[]): string => `[${digits.map((one) => 10 ** (one - 1)).join(', ')}]`;

/** One row an event: n, subject, model, input, output, user, time, hour, shard, position. All numbers are ours. */
function eventsOf({ seed, events, subjects, shards }: Month, { from, count }: NumberRange): string {
  const octaves = Math.floor(Math.log2(subjects));
  const lastWidth = subjects - 2 ** octaves + 1;
  const input = `${least(INPUT_DIGITS)}[1 + n % ${INPUT_DIGITS.length}]`;
  const output = `${least(OUTPUT_DIGITS)}[1 + n % ${OUTPUT_DIGITS.length}]`;
  return `SELECT number AS n, cityHash64(${seed}, 1, n) AS a, cityHash64(${seed}, 2, n) AS b,
    intDiv(a % 65536 % ${2 * octaves + 1}, 2) AS octave,
    bitShiftLeft(toUInt64(1), octave) AS begin,
    begin - 1 + if(octave < ${octaves}, bitAnd(bitShiftRight(a, 16), begin - 1), bitShiftRight(a, 16) % ${lastWidth}) AS rank,
    concat('cus_', leftPad(toString(rank * ${NAME_STEP} % ${subjects}), ${SUBJECT_DIGITS}, '0')) AS subject,
    ['small-0', 'small-0', 'small-0', 'small-1', 'small-1', 'large-0', 'large-0', 'large-1'][1 + b % 8] AS model,
    ${input} + bitShiftRight(b, 8) % (9 * ${input}) AS input,
    ${output} + bitShiftRight(b, 32) % (9 * ${output}) AS output,
    concat('u', leftPad(toString(bitShiftRight(b, 58)), 2, '0')) AS user,
    fromUnixTimestamp64Milli(toInt64(${MONTH.start} + intDiv(n * ${MONTH.end - MONTH.start}, ${events})), 'UTC') AS time,
    toDateTime(toStartOfHour(time), 'UTC') AS hour,
    toUInt16(bitShiftRight(a, 48) % ${shards}) AS shard,
    ${INCARNATION} + bitShiftLeft(intDiv(n, ${BLOCK_EVENTS}) + 1, 16) + n % ${BLOCK_EVENTS} AS position
  FROM numbers(${from}, ${count})`;
}

// One part an insert: with the default of a million rows in a block there would be three of rollups, to be merged again.
const INSERT = `SETTINGS optimize_on_insert = 0, async_insert = 0, max_partitions_per_insert_block = 0,
    min_insert_block_size_rows = 8000000, min_insert_block_size_bytes = 4000000000`;

/** Raw events, in the columns that the aggregator writes. */
export function insertEvents(month: Month, range: NumberRange): string {
  const { seed } = month;
  return `INSERT INTO events (tenant, hour, type, subject, time, identity, source, id_uuid, id_text, data_paths, data_values,
    payload_hash, accepted_at, shard, position)
  SELECT '${TENANT}', hour, '${EVENT_TYPE}', subject, time, reinterpretAsUUID(sipHash128(n, ${seed})), 'gateway-eu-1',
    reinterpretAsUUID(sipHash128(${seed}, n)), '', 'model\\xFFinput_tokens\\xFFoutput_tokens\\xFFuser\\xFF',
    concat(model, '\\xFF', toString(input), '\\xFF', toString(output), '\\xFF', user, '\\xFF'), sipHash64(n), time, shard, position
  FROM (${eventsOf(month, range)})
  ${INSERT}`;
}

/** What each event adds to which meter: key, dimensions, quantity. */
const CONTRIBUTIONS = `arrayConcat(
    [('input_tokens', [model], input), ('output_tokens', [model], output), ('largest_input', [], input),
      ('users', [], toUInt64(1))],
    if(model = 'small-0', [], [('requests', [], toUInt64(1))]))`;

/** Rollup rows of these numbers; they are to be those of whole hours, since a row is the total of its hour. */
export function insertRollups(month: Month, range: NumberRange): string {
  return `INSERT INTO rollup_hour (tenant, meter, subject, hour, dimensions, shard, value_count, value_sum, value_min, value_max,
    value_latest, latest_time, latest_position, position)
  SELECT '${TENANT}', c.1, subject, hour, c.2, shard, count(), toDecimal128(sum(c.3), 9), toDecimal128(min(c.3), 9),
    toDecimal128(max(c.3), 9), toDecimal128(argMax(c.3, position), 9), max(time), max(position), max(position)
  FROM (${eventsOf(month, range)}) ARRAY JOIN ${CONTRIBUTIONS} AS c
  GROUP BY c.1, subject, hour, c.2, shard
  ${INSERT}`;
}

/** What the numbers come to: by meter, over all subjects. */
export function expectedTotals(month: Month): string {
  return `SELECT toString(count()) AS events, toString(sum(input)) AS input_tokens, toString(sum(output)) AS output_tokens,
    toString(countIf(model != 'small-0')) AS requests, toString(max(input)) AS largest_input
  FROM (${eventsOf(month, { from: 0, count: month.events })})`;
}

/** The numbers of each run of whole hours with about so many events. */
export function hourRanges(events: number, about: number): NumberRange[] {
  const hours = Math.max(1, Math.floor((about * MONTH_HOURS) / events));
  // The first number whose time lies in an hour: n * month / events, cut, reaches it.
  const first = (hour: number): number =>
    Number((BigInt(hour) * BigInt(events) + BigInt(MONTH_HOURS) - 1n) / BigInt(MONTH_HOURS));
  const ranges: NumberRange[] = [];
  for (let hour = 0; hour < MONTH_HOURS; hour += hours) {
    const from = first(hour);
    const count = first(Math.min(MONTH_HOURS, hour + hours)) - from;
    if (count > 0) ranges.push({ from, count });
  }
  return ranges;
}

/** Rows of `meters`: each in every shard, before all events. */
export function meterRows(
  shards: number,
): ({ readonly shard: number } & Readonly<Record<string, unknown>>)[] {
  return Array.from({ length: shards }, (_, shard) =>
    METERS.map((meter) => ({
      tenant: TENANT,
      meter: meter.key,
      versions_before: 0,
      event_type: meter.eventType,
      aggregation: meter.aggregation,
      value_property: 'valueProperty' in meter ? meter.valueProperty : '',
      group_by: 'groupBy' in meter ? meter.groupBy : [],
      filters: 'filters' in meter ? meter.filters.map(({ property, notIn }) => [property, notIn, 1]) : [],
      shard,
      position: 1,
    })),
  ).flat();
}
