/**
 * The other kinds of log message: a meter definition, and a change of a backfill. They stand in every shard's log, so
 * that which meters an event counts for is decided by the log alone: a replay, or another owner, sees the same
 * definitions before the same events. The API publishes a definition to all shards and answers only after every
 * acknowledgement, so that an event sent after the answer always meets its meter.
 *
 * Layout: magic u32, version u16, kind u16, crc u32 over the rest, then JSON. They are few; JSON will do.
 */
import { crc32 } from 'node:zlib';
import { BACKFILL_CHANGES, backfillMistakes, type Backfill, type BackfillChange } from './backfill.ts';
import { BlockError, MAGIC } from './block.ts';
import {
  AGGREGATIONS,
  definitionOf,
  meterMistakes,
  type Aggregation,
  type Meter,
  type MeterFilter,
} from './meter.ts';
import { MESSAGE_BACKFILL, MESSAGE_METER } from './subjects.ts';
import { parseObject } from './record.ts';

const CONTROL_VERSION = 1;
const BODY = 12;

export interface MeterDefined {
  readonly tenant: string;
  readonly meter: Meter;
}

/** A change of a backfill; each says all of it, so that no message means anything only beside another one. */
export interface BackfillChanged {
  readonly tenant: string;
  readonly change: BackfillChange;
  readonly backfill: Backfill;
}

export function encodeMeterDefined(message: MeterDefined): Uint8Array {
  return encode(MESSAGE_METER, message);
}

export function decodeMeterDefined(message: Uint8Array): MeterDefined {
  const parsed = parseMeterRecord(textOf(message));
  if (parsed === null) throw new BlockError('a meter definition that is not sound');
  return parsed;
}

export function encodeBackfillChanged(message: BackfillChanged): Uint8Array {
  return encode(MESSAGE_BACKFILL, message);
}

export function decodeBackfillChanged(message: Uint8Array): BackfillChanged {
  const parsed = parseBackfillChanged(textOf(message));
  if (parsed === null) throw new BlockError('a change of a backfill that is not sound');
  return parsed;
}

function encode(kind: number, message: object): Uint8Array {
  const body = new TextEncoder().encode(JSON.stringify(message));
  const bytes = new Uint8Array(BODY + body.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint16(4, CONTROL_VERSION, true);
  view.setUint16(6, kind, true);
  bytes.set(body, BODY);
  view.setUint32(8, crc32(body), true);
  return bytes;
}

/** The JSON of a control message. @throws BlockError */
function textOf(message: Uint8Array): string {
  if (message.byteLength <= BODY) throw new BlockError('shorter than its header');
  const view = new DataView(message.buffer, message.byteOffset, message.byteLength);
  const body = message.subarray(BODY);
  if (view.getUint16(4, true) !== CONTROL_VERSION)
    throw new BlockError('a control version that is not known here');
  if (view.getUint32(8, true) !== crc32(body)) throw new BlockError('checksum');
  return new TextDecoder().decode(body);
}

/** Reads the JSON of {@link MeterDefined}, as in a log message; null when it is not sound. */
export function parseMeterRecord(text: string): MeterDefined | null {
  const value = parseObject(text);
  const tenant = value?.['tenant'];
  const meter = parseMeter(value?.['meter']);
  return typeof tenant !== 'string' || meter === null ? null : { tenant, meter };
}

function parseBackfillChanged(text: string): BackfillChanged | null {
  const value = parseObject(text);
  const tenant = value?.['tenant'];
  const change = value?.['change'];
  const read = value?.['backfill'];
  if (typeof tenant !== 'string' || !BACKFILL_CHANGES.includes(change as BackfillChange)) return null;
  if (typeof read !== 'object' || read === null) return null;
  const { id, meter, version, fromMs, toMs } = read as Partial<Record<keyof Backfill, unknown>>;
  if (typeof id !== 'string' || typeof meter !== 'string') return null;
  if (typeof version !== 'number' || typeof fromMs !== 'number' || typeof toMs !== 'number') return null;
  const backfill: Backfill = { id, meter, version, fromMs, toMs };
  return backfillMistakes(backfill).length === 0
    ? { tenant, change: change as BackfillChange, backfill }
    : null;
}

/** What the bucket of meters holds under `tenant.key`: all versions of a meter, in order. */
export interface MeterRecord {
  readonly tenant: string;
  readonly versions: readonly Meter[];
}

/** The first version stands where a {@link MeterDefined} has it; `later` is absent while there is no other. */
export function formatMeterVersions({ tenant, versions }: MeterRecord): string {
  const [meter, ...later] = versions.map(definitionOf);
  return JSON.stringify({ tenant, meter, ...(later.length === 0 ? {} : { later }) });
}

/** Reads it back; null when any of it is not sound. */
export function parseMeterVersions(text: string): MeterRecord | null {
  const value = parseObject(text);
  const tenant = value?.['tenant'];
  const later = value?.['later'] ?? [];
  if (typeof tenant !== 'string' || !Array.isArray(later)) return null;
  const versions: Meter[] = [];
  for (const one of [value?.['meter'], ...(later as unknown[])]) {
    const meter = parseMeter(one);
    if (meter === null) return null;
    versions.push(meter);
  }
  return { tenant, versions };
}

function parseMeter(value: unknown): Meter | null {
  if (typeof value !== 'object' || value === null) return null;
  const meter = value as Partial<Record<keyof Meter, unknown>>;
  const { key, eventType, aggregation, valueProperty, groupBy } = meter;
  const { filters = [], groupsMax, version, effectiveFromMs } = meter;
  if (
    typeof key !== 'string' ||
    typeof eventType !== 'string' ||
    !AGGREGATIONS.includes(aggregation as Aggregation)
  ) {
    return null;
  }
  if (valueProperty !== null && typeof valueProperty !== 'string') return null;
  if (!isTexts(groupBy) || !Array.isArray(filters) || !filters.every(isFilter)) return null;
  if (!isOptionalNumber(groupsMax) || !isOptionalNumber(version) || !isOptionalNumber(effectiveFromMs))
    return null;
  const read: Meter = {
    key,
    eventType,
    aggregation: aggregation as Aggregation,
    valueProperty,
    groupBy,
    filters: filters.map(filterOf),
    ...(groupsMax === undefined ? {} : { groupsMax }),
    ...(version === undefined ? {} : { version }),
    ...(effectiveFromMs === undefined ? {} : { effectiveFromMs }),
  };
  return meterMistakes(read).length === 0 ? definitionOf(read) : null;
}

/** One list and not the other: with both it would be a guess what is meant. */
function isFilter(value: unknown): value is MeterFilter {
  if (typeof value !== 'object' || value === null) return false;
  const { property, in: taken, notIn } = value as { property?: unknown; in?: unknown; notIn?: unknown };
  if (typeof property !== 'string') return false;
  return taken === undefined ? isTexts(notIn) : notIn === undefined && isTexts(taken);
}

function filterOf(filter: MeterFilter): MeterFilter {
  const { property } = filter;
  return 'in' in filter ? { property, in: filter.in } : { property, notIn: filter.notIn };
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((one) => typeof one === 'string');
}

function isOptionalNumber(value: unknown): value is number | undefined {
  return value === undefined || typeof value === 'number';
}
