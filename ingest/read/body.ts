/**
 * From the bytes of a body to a batch of admitted events. Callers see bytes go in and columns come out; by which
 * reader is this file's business alone.
 *
 * A body of JSON or msgpack is one document, one event or a list of them: when it cannot be read, nothing in it
 * can, and the request is refused with the place of the fault. In NDJSON every line stands for itself: a bad line
 * is one rejected event. An event that is not admitted is listed, and spoils none of its neighbours.
 */
import type { EventBatch } from '../../contract/event-batch.ts';
import type { RejectedEvent } from '../../contract/rejections.ts';
import type { Admission } from './admit.ts';
import { JsonReader } from './json-reader.ts';
import type { JsonScanner } from './json-scanner.ts';
import type { MeterBook } from '../tenant/meters.ts';
import { readMsgpack } from './msgpack.ts';

/**
 * `cloudevents` and `cloudevents-batch` are JSON whose events must have the attributes that CloudEvents 1.0
 * requires. One event or a list is taken for either.
 */
export type BodyFormat = 'json' | 'ndjson' | 'cloudevents' | 'cloudevents-batch' | 'msgpack';

export type BodyFault = 'body_not_json' | 'body_not_msgpack' | 'body_not_unicode' | 'batch_too_large';

export type BodyOutcome =
  /** The admitted events are in the batch; `unmatched` of them are counted by no meter known here. */
  | { readonly read: true; readonly unmatched: number; readonly rejected: readonly RejectedEvent[] }
  /** Nothing of the body counts, and the batch is empty. */
  | { readonly read: false; readonly code: BodyFault; readonly message: string };

export interface BodyContext {
  readonly admission: Admission;
  readonly meters: MeterBook;
  readonly tenant: string;
  readonly tenantBytes: Uint8Array;
  /** The time of acceptance, epoch milliseconds. */
  readonly nowMs: number;
  /** Reads what looks like events before it, into a batch whose home is the kernel's; null: nothing does. */
  readonly scanner?: JsonScanner | null;
}

const json = new JsonReader();

/** `body` is not kept: it may be memory that is gone after the call. What was in the batch before is gone. */
export function readBody(
  body: Uint8Array,
  format: BodyFormat,
  context: BodyContext,
  batch: EventBatch,
): BodyOutcome {
  switch (format) {
    case 'msgpack':
      return readMsgpack(body, context, batch);
    case 'ndjson':
      return json.readLines(body, context, batch);
    case 'json':
      return json.readDocument(body, context, batch, false);
    case 'cloudevents':
    case 'cloudevents-batch':
      return json.readDocument(body, context, batch, true);
  }
}
