/**
 * The second kind of log message: a meter definition. It stands in every shard's log, so that which
 * meters an event counts for is decided by the log alone: a replay, or another owner, sees the same
 * definitions before the same events. The API publishes it to all shards and answers only after every
 * acknowledgement, so that an event sent after the answer always meets its meter.
 *
 * Layout: magic u32, version u16, kind u16, crc u32 over the rest, then JSON. Meters are few; JSON will do.
 */
import { crc32 } from 'node:zlib';
import { BlockError, MAGIC } from './block.ts';
import { AGGREGATIONS, meterMistakes, type Aggregation, type Meter } from './meter.ts';
import { MESSAGE_METER } from './subjects.ts';
import { parseObject } from './record.ts';

const CONTROL_VERSION = 1;
const BODY = 12;

export interface MeterDefined {
  readonly tenant: string;
  readonly meter: Meter;
}

export function encodeMeterDefined(message: MeterDefined): Uint8Array {
  const body = new TextEncoder().encode(JSON.stringify(message));
  const bytes = new Uint8Array(BODY + body.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint16(4, CONTROL_VERSION, true);
  view.setUint16(6, MESSAGE_METER, true);
  bytes.set(body, BODY);
  view.setUint32(8, crc32(body), true);
  return bytes;
}

export function decodeMeterDefined(message: Uint8Array): MeterDefined {
  if (message.byteLength <= BODY) throw new BlockError('shorter than its header');
  const view = new DataView(message.buffer, message.byteOffset, message.byteLength);
  const body = message.subarray(BODY);
  if (view.getUint16(4, true) !== CONTROL_VERSION)
    throw new BlockError('a control version that is not known here');
  if (view.getUint32(8, true) !== crc32(body)) throw new BlockError('checksum');
  const parsed = parseMeterRecord(new TextDecoder().decode(body));
  if (parsed === null) throw new BlockError('a meter definition that is not sound');
  return parsed;
}

/** Reads the JSON of {@link MeterDefined}, as in a log message or a KV entry; null when it is not sound. */
export function parseMeterRecord(text: string): MeterDefined | null {
  const value = parseObject(text);
  if (value === null) return null;
  const { tenant, meter } = value as { tenant?: unknown; meter?: Partial<Record<keyof Meter, unknown>> };
  if (typeof tenant !== 'string' || typeof meter !== 'object' || meter === null) return null;
  const { key, eventType, aggregation, valueProperty, groupBy } = meter;
  if (
    typeof key !== 'string' ||
    typeof eventType !== 'string' ||
    !AGGREGATIONS.includes(aggregation as Aggregation)
  ) {
    return null;
  }
  if (valueProperty !== null && typeof valueProperty !== 'string') return null;
  if (!Array.isArray(groupBy) || groupBy.some((path) => typeof path !== 'string')) return null;
  const sound: Meter = {
    key,
    eventType,
    aggregation: aggregation as Aggregation,
    valueProperty,
    groupBy: groupBy as string[],
  };
  return meterMistakes(sound).length === 0 ? { tenant, meter: sound } : null;
}
