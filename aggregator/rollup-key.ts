/**
 * The key of a rollup row within its shard, as text: a JSON array of tenant, meter, subject, hour (epoch
 * seconds) and the dimensions. JSON, because it is unambiguous whatever the texts hold and can be read back.
 */
import { METER_LIMITS, OVERFLOW_GROUP } from '../contract/meter.ts';

export interface RollupKey {
  readonly tenant: string;
  readonly meter: string;
  readonly subject: string;
  readonly hourSeconds: number;
  readonly dimensions: readonly string[];
}

export function formatKey(key: RollupKey): string {
  return JSON.stringify([key.tenant, key.meter, key.subject, key.hourSeconds, ...key.dimensions]);
}

export function parseKey(text: string): RollupKey {
  const [tenant, meter, subject, hourSeconds, ...dimensions] = JSON.parse(text) as [
    string,
    string,
    string,
    number,
    ...string[],
  ];
  return { tenant, meter, subject, hourSeconds, dimensions };
}

/** The same subject and hour in the group of everything beyond the meter's bound. */
export function overflowKey(text: string): string {
  const key = parseKey(text);
  return formatKey({ ...key, dimensions: key.dimensions.map(() => OVERFLOW_GROUP) });
}

/** An event that names the overflow group in any dimension is in it in all: it has no group of its own. */
export function isOverflow(dimensions: readonly string[]): boolean {
  return dimensions.includes(OVERFLOW_GROUP);
}

/** A dimension is a label: its first 256 characters are kept (in SQL: substringUTF8(value, 1, 256)). */
export function dimensionOf(text: string): string {
  const max = METER_LIMITS.dimensionLength;
  return text.length <= max ? text : Array.from(text).slice(0, max).join('');
}
