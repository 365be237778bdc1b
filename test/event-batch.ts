/**
 * From plain objects to batches, identities and blocks, for tests whose subject is not how bodies are read. It
 * shares nothing with the readers of ingest/: data is flattened here a second time, with strings and bigints.
 */
import { BlockBuilder } from '../contract/block-builder.ts';
import { ATTRIBUTES_KEPT, ID, SOURCE, SUBJECT, TYPE, EventBatch } from '../contract/event-batch.ts';
import type { UsageEvent } from '../contract/event.ts';
import { FIELD_LITERAL, FIELD_NUMBER, FIELD_TEXT } from '../contract/fields.ts';
import { IdentityHasher } from '../contract/identity.ts';
import { PathTable } from '../contract/path-table.ts';
import type { PlainEvent, PlainField } from './batch-events.ts';

const encoder = new TextEncoder();

/** A batch of events that are taken for admitted; without a time they happened at `acceptedAtMs`. */
export function batchOf(
  tenant: string,
  events: readonly UsageEvent[],
  batch = new EventBatch(),
  acceptedAtMs = 0,
): EventBatch {
  return fillBatch(
    batch,
    tenant,
    events.map((event) => plainEventOf(event, acceptedAtMs)),
  );
}

export function plainEventOf(event: UsageEvent, acceptedAtMs = 0): PlainEvent {
  return {
    id: event.id,
    source: event.source ?? '',
    type: event.type,
    subject: event.subject,
    timeMs: event.time === undefined ? acceptedAtMs : Date.parse(event.time),
    timeGiven: event.time !== undefined,
    fields: fieldsOf(event.data ?? {}, ''),
  };
}

/** The fields of parsed data, in the order of its keys. */
export function fieldsOf(data: Readonly<Record<string, unknown>>, prefix: string): PlainField[] {
  return Object.entries(data).flatMap(([key, value]): PlainField[] => {
    const path = `${prefix}${key}`;
    if (typeof value === 'string') return [{ path, text: value }];
    if (typeof value === 'number') return [{ path, number: exact(value) }];
    const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
    if (isObject && Object.keys(value).length > 0)
      return fieldsOf(value as Readonly<Record<string, unknown>>, `${path}.`);
    return [{ path, literal: JSON.stringify(value) }];
  });
}

/** [mantissa, scale] of a number that is written without an exponent or with a small negative one. */
function exact(value: number): [number, number] {
  const [, sign, whole, fraction = '', exponent = '0'] = /^(-?)(\d+)(?:\.(\d+))?(?:e(-\d+))?$/.exec(
    String(value),
  )!;
  const mantissa = BigInt(`${whole}${fraction}`) * (sign === '-' ? -1n : 1n);
  return [Number(mantissa), fraction.length - Number(exponent)];
}

/**
 * Puts the events into the batch as the body of a request would be: texts apart from each other, then columns. A dotted
 * path comes from nested objects, or from one key with dots in it.
 */
export function fillBatch(
  batch: EventBatch,
  tenant: string,
  events: readonly PlainEvent[],
  nested = true,
): EventBatch {
  const pieces: Uint8Array[] = [];
  let length = 0;
  const place = (text: string): [number, number] => {
    const bytes = encoder.encode(text);
    // What lies between texts in a body: never read, or a text would come out of the block with it.
    const between = encoder.encode('", "');
    pieces.push(between, bytes);
    length += between.length + bytes.length;
    return [length - bytes.length, length];
  };
  const placed = events.map((event) => ({
    event,
    attributes: [event.id, event.source, event.type, event.subject].map(place),
    fields: event.fields.map((field) =>
      place('text' in field ? field.text : 'literal' in field ? field.literal : ''),
    ),
  }));
  batch.reset(Buffer.concat(pieces), encoder.encode(tenant));
  for (const { event, attributes, fields } of placed) {
    const at = batch.count * ATTRIBUTES_KEPT;
    [ID, SOURCE, TYPE, SUBJECT].forEach((which, number) => {
      [batch.start[at + which], batch.end[at + which]] = attributes[number]!;
    });
    batch.timeMs[batch.count] = event.timeMs;
    batch.timeGiven[batch.count] = event.timeGiven ? 1 : 0;
    event.fields.forEach((field, number) => addField(batch, field, fields[number]!, nested));
    batch.commit();
  }
  return batch;
}

function addField(
  batch: EventBatch,
  field: PlainField,
  [start, end]: [number, number],
  nested: boolean,
): void {
  let path = PathTable.ROOT;
  for (const name of nested ? field.path.split('.') : [field.path]) {
    const key = encoder.encode(name);
    path = batch.paths.child(path, key, 0, key.length);
  }
  if ('number' in field) batch.addField(path, FIELD_NUMBER, field.number[1], field.number[0], 0, 0);
  else batch.addField(path, 'text' in field ? FIELD_TEXT : FIELD_LITERAL, 0, 0, start, end);
}

/** The identity of an event, from strings. */
export function identityOf(hasher: IdentityHasher, tenant: string, source: string, id: string): Uint32Array {
  const [sourceBytes, idBytes] = [encoder.encode(source), encoder.encode(id)];
  const sourceEnd = sourceBytes.length;
  const bytes = new Uint8Array(sourceEnd + idBytes.length + 3);
  bytes.set(sourceBytes);
  bytes.set(idBytes, sourceEnd);
  const words = new Uint32Array(4);
  hasher.turnTo(encoder.encode(tenant));
  hasher.hash(new DataView(bytes.buffer), 0, sourceEnd, sourceEnd, sourceEnd + idBytes.length, words);
  return words;
}

/** The identity of a correction, from strings. */
export function correctionOf(
  hasher: IdentityHasher,
  tenant: string,
  source: string,
  original: string,
  id: string,
): Uint32Array {
  const texts = [source, original, id].map((text) => encoder.encode(text));
  const [first, second, third] = texts.map(({ length }) => length) as [number, number, number];
  const bytes = new Uint8Array(first + second + third + 3);
  bytes.set(Buffer.concat(texts));
  const words = new Uint32Array(4);
  const [behindSource, behindOriginal] = [first, first + second];
  hasher.turnTo(encoder.encode(tenant));
  hasher.hashCorrection(
    new DataView(bytes.buffer),
    0,
    behindSource,
    behindSource,
    behindOriginal,
    behindOriginal,
    behindOriginal + third,
    words,
  );
  return words;
}

/** Adds all events of the batch to the block, each with its identity. */
export function addAll(builder: BlockBuilder, batch: EventBatch, hasher: IdentityHasher): void {
  const words = new Uint32Array(4);
  hasher.turnTo(batch.tenant);
  for (let event = 0; event < batch.count; event++) {
    const at = event * ATTRIBUTES_KEPT;
    const { view, start, end } = batch;
    hasher.hash(view, start[at + SOURCE]!, end[at + SOURCE]!, start[at + ID]!, end[at + ID]!, words);
    builder.add(batch, event, words);
  }
}
