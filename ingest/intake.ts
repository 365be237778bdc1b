/**
 * What HTTP and WebSocket have in common: from a body to its answer.
 *
 *   admits?  ──▶ room.enter ──▶ body comes in ──▶ take ──▶ read ──▶ quota ──▶ packed ──▶ durable ──▶ answer
 *
 * A body is refused as early as what is known of it allows, and as a whole or not at all: until `take` has
 * answered, nothing of it is promised, and an answer that takes it is given when the log (or the journal) has
 * every accepted event.
 */
import type { EventBatch } from '../contract/event-batch.ts';
import type { RejectedEvent } from '../contract/rejections.ts';
import type { Account } from './tenant/account.ts';
import type { AcknowledgedTotals } from './tenant/acknowledged.ts';
import type { Admission } from './read/admit.ts';
import { readBody, type BodyFormat } from './read/body.ts';
import type { JsonScanner } from './read/json-scanner.ts';
import type { EdgeMeasures } from './measures.ts';
import type { MeterBook } from './tenant/meters.ts';
import type { Pack } from './pack.ts';
import type { EdgeProblemCode } from './problems.ts';
import type { Quotas } from './tenant/quota.ts';
import type { Room } from './tenant/room.ts';
import type { Turns } from './tenant/turns.ts';

export interface Taken {
  readonly taken: true;
  readonly accepted: number;
  /** Of these, events that no meter counts. */
  readonly unmatched: number;
  readonly rejected: readonly RejectedEvent[];
}

export interface Refused {
  readonly taken: false;
  readonly code: EdgeProblemCode;
  /** Says more than the table of problems does. */
  readonly detail?: string;
  /** When to try again, where that can be said. */
  readonly retryAfterMs?: number;
}

export type IntakeAnswer = Taken | Refused;

export interface IntakeOptions {
  readonly room: Room;
  readonly turns: Turns;
  readonly quotas: Quotas;
  readonly admission: Admission;
  readonly meters: MeterBook;
  readonly batch: EventBatch;
  readonly scanner?: JsonScanner | null;
  readonly pack: Pack;
  readonly measures: EdgeMeasures;
  readonly acknowledged: AcknowledgedTotals;
  /** Epoch milliseconds. */
  now(): number;
  /** Why no event can be taken now, or null. */
  closedBecause(): EdgeProblemCode | null;
  /** The problem to answer when a block failed. */
  problemOf(failure: unknown): EdgeProblemCode;
  /** An exception, which is a bug of ours. */
  onBug(error: unknown): void;
}

/** Places in `data` that are remembered from body to body. */
const PATHS_KEPT = 16_384;

export class Intake {
  readonly #o: IntakeOptions;
  #stopping = false;

  constructor(options: IntakeOptions) {
    this.#o = options;
  }

  /** From now on everything is refused; what was let in is answered. Resolves when nothing is under way. */
  stop(): Promise<void> {
    this.#stopping = true;
    return this.#o.room.empty();
  }

  get stopping(): boolean {
    return this.#stopping;
  }

  /** Why a body of this tenant would be refused now. Asked before it is read; null: it may come in. */
  refuses(account: Account): Refused | null {
    const code = this.#stopping ? 'edge_stopping' : this.#o.closedBecause();
    if (code !== null) return { taken: false, code };
    const retryAfterMs = this.#o.quotas.exhausted(account.tenant, this.#o.now());
    return retryAfterMs === 0 ? null : { taken: false, code: 'quota_exceeded', retryAfterMs };
  }

  /**
   * Takes a whole body, for which there is room. `body` may be memory that is gone after the call. `answer` is
   * called exactly once, now or later.
   */
  take(account: Account, body: Uint8Array, format: BodyFormat, answer: (answer: IntakeAnswer) => void): void {
    if (this.#o.turns.now(account, body.length)) return this.#read(account, body, format, answer);
    const kept = new Uint8Array(body);
    this.#o.turns.wait(account, {
      bytes: kept.length,
      read: () => this.#read(account, kept, format, answer),
    });
  }

  #read(
    account: Account,
    body: Uint8Array,
    format: BodyFormat,
    answer: (answer: IntakeAnswer) => void,
  ): void {
    const { admission, meters, quotas, batch, pack, measures, acknowledged, scanner = null } = this.#o;
    const ticket = pack.begin();
    try {
      const nowMs = this.#o.now();
      batch.paths.trim(PATHS_KEPT);
      const { tenant, tenantBytes } = account;
      const outcome = readBody(
        body,
        format,
        { admission, meters, tenant, tenantBytes, nowMs, scanner },
        batch,
      );
      if (!outcome.read) return answer({ taken: false, code: outcome.code, detail: outcome.message });
      const { rejected, unmatched } = outcome;
      const accepted = batch.count;
      const over = quotas.take(tenant, accepted, body.length, nowMs);
      if (over !== null)
        return answer({ taken: false, code: 'quota_exceeded', retryAfterMs: over.retryAfterMs });
      measures.rejected(rejected);
      pack.addAll(ticket, batch);
      pack.end(ticket, (failure) => {
        if (failure !== null) return answer({ taken: false, code: this.#o.problemOf(failure) });
        measures.accepted(accepted, unmatched);
        acknowledged.add(tenant, accepted, nowMs);
        answer({ taken: true, accepted, unmatched, rejected });
      });
    } catch (error) {
      this.#o.onBug(error);
      answer({ taken: false, code: 'internal_error' });
    }
  }
}
