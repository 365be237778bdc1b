/**
 * What has become of a body so far, kept while a reader goes through it: events committed to the batch, events
 * refused. All formats end an event here, so that the same event meets the same fate in each.
 */
import { ID, type EventBatch } from '../../contract/event-batch.ts';
import { EVENT_LIMITS } from '../../contract/event.ts';
import { REJECTIONS, type EdgeRejectionCode, type RejectedEvent } from '../../contract/rejections.ts';
import { messageOf } from './admit.ts';
import type { BodyContext, BodyFault, BodyOutcome } from './body.ts';
import { commitCorrection, isVoid } from './correction.ts';
import { TEXT, type Draft } from './draft.ts';

export class Reception {
  readonly #context: BodyContext;
  readonly #batch: EventBatch;
  readonly #requireSpecversion: boolean;
  readonly #rejected: RejectedEvent[] = [];
  #unmatched = 0;

  constructor(context: BodyContext, batch: EventBatch, requireSpecversion: boolean) {
    this.#context = context;
    this.#batch = batch;
    this.#requireSpecversion = requireSpecversion;
  }

  /** Events were read and committed elsewhere, `unmatched` of which no meter counts. */
  tookElsewhere(unmatched: number): void {
    this.#unmatched += unmatched;
  }

  /** The whole event at `index` has been read: commits it, or lists why not. Returns whether it was committed. */
  end(index: number, draft: Draft): boolean {
    const { admission, meters, tenant, nowMs } = this.#context;
    const batch = this.#batch;
    let code = admission.admit(batch, draft, this.#requireSpecversion, nowMs);
    if (code !== null) return this.#reject(index, draft, code, admission.message(code));
    // A void counts nothing: it lacks no value, and no meter is missing for it.
    if (draft.corrects && isVoid(draft)) {
      commitCorrection(batch, draft);
      return true;
    }
    code = meters.check(tenant, batch, draft);
    if (code !== null) return this.#reject(index, draft, code, messageOf(code, meters.faultField));
    if (!meters.matched) this.#unmatched += 1;
    if (draft.corrects) commitCorrection(batch, draft);
    else batch.commit();
    return true;
  }

  /** What stood at `index` could not be read at all: a line that is no JSON. */
  rejectUnread(index: number, code: EdgeRejectionCode): void {
    this.#batch.abandon();
    this.#rejected.push({ index, id: null, code, message: REJECTIONS[code].message });
  }

  outcome(): BodyOutcome {
    return { read: true, unmatched: this.#unmatched, rejected: this.#rejected };
  }

  #reject(index: number, draft: Draft, code: EdgeRejectionCode, message: string): false {
    this.#rejected.push({ index, id: idOf(this.#batch, draft), code, message });
    this.#batch.abandon();
    return false;
  }
}

/** The body as a whole is refused: nothing of it counts. `more` says where, or how much is too much. */
export function refuseBody(batch: EventBatch, code: BodyFault, more?: string): BodyOutcome {
  batch.count = 0;
  batch.fieldCount = 0;
  const { message } = REJECTIONS[code];
  return { read: false, code, message: more === undefined ? message : `${message.slice(0, -1)} (${more}).` };
}

/** Where a body of bytes stops being what it should be. */
export function placeOf(at: number, bodyEnd: number): string {
  return at >= bodyEnd ? 'it ends too early' : `the fault is at byte ${at}`;
}

/** The id to name a refused event by: a text that is short enough to be one. */
function idOf(batch: EventBatch, draft: Draft): string | null {
  if (!draft.isObject || draft.kind[ID] !== TEXT) return null;
  const start = draft.start[ID]!;
  const end = draft.end[ID]!;
  if (end - start > EVENT_LIMITS.idBytes) return null;
  return Buffer.from(batch.bytes.buffer, batch.bytes.byteOffset + start, end - start).toString();
}
