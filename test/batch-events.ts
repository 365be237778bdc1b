import { ATTRIBUTES_KEPT, ID, SOURCE, SUBJECT, TYPE, type EventBatch } from '../contract/event-batch.ts';
import { FIELD_LITERAL, FIELD_NUMBER, FIELD_TEXT } from '../contract/fields.ts';

/** A field as it was read: a number as [mantissa, scale]. */
export type PlainField =
  | { readonly path: string; readonly text: string }
  | { readonly path: string; readonly literal: string }
  | { readonly path: string; readonly number: readonly [number, number] };

export interface PlainEvent {
  readonly id: string;
  readonly source: string;
  readonly type: string;
  readonly subject: string;
  readonly timeMs: number;
  readonly timeGiven: boolean;
  readonly fields: readonly PlainField[];
}

/** What a batch holds, as plain objects that a test can compare. */
export function eventsOf(batch: EventBatch): PlainEvent[] {
  return Array.from({ length: batch.count }, (_, event) => eventOf(batch, event));
}

function eventOf(batch: EventBatch, event: number): PlainEvent {
  const attribute = (which: number): string => {
    const at = event * ATTRIBUTES_KEPT + which;
    return textOf(batch, batch.start[at]!, batch.end[at]!);
  };
  const fields: PlainField[] = [];
  for (let at = batch.fieldStart[event]!; at < batch.fieldStart[event + 1]!; at++) {
    fields.push(fieldOf(batch, at));
  }
  return {
    id: attribute(ID),
    source: attribute(SOURCE),
    type: attribute(TYPE),
    subject: attribute(SUBJECT),
    timeMs: batch.timeMs[event]!,
    timeGiven: batch.timeGiven[event] === 1,
    fields,
  };
}

function fieldOf(batch: EventBatch, at: number): PlainField {
  const path = batch.paths.path(batch.path[at]!);
  const tag = batch.code[at]! >> 8;
  const scale = batch.code[at]! & 0xff;
  const text = textOf(batch, batch.textStart[at]!, batch.textEnd[at]!);
  switch (tag) {
    case FIELD_NUMBER:
      return { path, number: [batch.mantissa[at]!, scale] };
    case FIELD_TEXT:
      return { path, text };
    case FIELD_LITERAL:
      return { path, literal: text };
    default:
      throw new Error(`field tag ${tag}`);
  }
}

/** Fatal: what a reader lets through is UTF-8. */
function textOf(batch: EventBatch, start: number, end: number): string {
  return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(batch.bytes.subarray(start, end));
}
