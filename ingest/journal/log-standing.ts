/**
 * How a shard's log stands: whether it takes blocks now, and whether what it acknowledged still counts.
 *
 * Every publish takes a *hold* first, and is told with it when the answer comes. A log comes into doubt by a new
 * epoch: what was acknowledged before, and what was under way, waits again and is sent again. An answer to a
 * publish of an earlier epoch says nothing of the log that is there now.
 *
 *   takes ──a publish fails──▶ away ──after a backoff──▶ one block is tried ──acknowledged──▶ takes
 *                               ▲───────────────────────────────┘ failed
 *
 * While it is away new blocks go to the journal only, and nobody waits for what is under way. There is no last
 * attempt; full jitter up to two seconds bounds how often it is tried.
 */
import { backoffMs } from '../../runtime/backoff.ts';
import type { Log } from '../../runtime/log.ts';
import { PublishError } from '../../runtime/nats.ts';
import type { JournalIndex } from './journal-index.ts';
import type { JournalMeasures } from './journal-measures.ts';

export interface StandingOptions {
  readonly index: JournalIndex;
  readonly log: Log;
  readonly measures: JournalMeasures;
  /** [0, 1). */
  random(): number;
  /** Runs it after the time; the result calls it off. */
  after(ms: number, run: () => void): () => void;
  /** It takes nothing any more: nothing is to wait for it. */
  onAway(shard: number): void;
  /** Something may be sent now that could not be before. */
  onChance(): void;
}

/** What was known when a block was published. */
export interface Hold {
  readonly epoch: number;
  /** The highest sequence acknowledged by then. */
  readonly highest: number;
}

const RETRY = { baseMs: 50, maxMs: 2_000 };
/** The aggregators' first. */
const FIRST_INCARNATION = 1;

export class LogStanding {
  readonly shard: number;
  readonly #o: StandingOptions;
  /** No connection, or the logs were not looked at since it stands. */
  #suspended = true;
  #epoch = 0;
  #highest = 0;
  #incarnation = FIRST_INCARNATION;
  #away = false;
  /** While away: whether one block may be tried. */
  #mayTry = false;
  #failures = 0;
  #stopRetry: () => void = () => {};

  constructor(shard: number, options: StandingOptions) {
    this.shard = shard;
    this.#o = options;
  }

  get epoch(): number {
    return this.#epoch;
  }

  /** Whether it can be asked anything. */
  get connected(): boolean {
    return !this.#suspended;
  }

  /** Whether a new block is to be published at once. */
  get takes(): boolean {
    return !this.#suspended && !this.#away;
  }

  /** Whether a block of the journal may be sent. */
  get mayTry(): boolean {
    return !this.#suspended && (!this.#away || this.#mayTry);
  }

  /** Before a block is sent. While the log is away, the next one waits for the answer to this one. */
  publishing(): Hold {
    this.#mayTry = false;
    return { epoch: this.#epoch, highest: this.#highest };
  }

  /** Whether what comes of the publish is about the log that is there now. */
  isCurrent({ epoch }: Hold): boolean {
    return epoch === this.#epoch;
  }

  /** A block was not sent after all, or its answer says nothing of the log: another may try. */
  returned(): void {
    this.#mayTry = this.#away;
  }

  /** Acknowledged. Returns whether the sequence counts. */
  acknowledged(hold: Hold, sequence: number): boolean {
    if (!this.isCurrent(hold)) return false;
    if (sequence <= hold.highest) {
      const { shard } = this;
      this.#o.log.error({ shard, sequence, before: hold.highest }, 'the log gives sequences a second time');
      this.doubt('sequence');
    }
    this.#highest = Math.max(this.#highest, sequence);
    if (this.#away) this.#o.log.info({ shard: this.shard }, 'the log takes blocks again');
    this.#recover();
    return true;
  }

  failed(hold: Hold, error: unknown): void {
    if (this.#suspended || !this.isCurrent(hold)) return;
    if (isRefusal(error) || isOwnBound(error)) return this.returned();
    if (!this.#away) {
      this.#o.log.warn(
        { error, shard: this.shard },
        'the log takes nothing: blocks stay in the edge journal',
      );
      this.#away = true;
      this.#o.onAway(this.shard);
    }
    this.#stopRetry();
    this.#mayTry = false;
    const ms = backoffMs(this.#failures++, RETRY, () => this.#o.random());
    this.#stopRetry = this.#o.after(ms, () => {
      // With nothing to try it with, the next new block is the trial.
      if (this.#o.index.waitingOf(this.shard) === 0) this.#away = false;
      this.#mayTry = this.#away;
      this.#o.onChance();
    });
  }

  /** Everything not released is sent again. */
  doubt(why: 'connection' | 'incarnation' | 'sequence'): void {
    this.#epoch += 1;
    this.#highest = 0;
    this.#o.index.forget(this.shard);
    this.#o.measures.doubted(why);
  }

  /** False when it is of an earlier state than one seen before. A later one is a doubt. */
  sawIncarnation(incarnation: number): boolean {
    if (incarnation > this.#incarnation) {
      this.#incarnation = incarnation;
      this.doubt('incarnation');
    }
    return incarnation === this.#incarnation;
  }

  suspend(): void {
    this.#suspended = true;
    this.doubt('connection');
    this.#recover();
  }

  resume(): void {
    this.#suspended = false;
  }

  stop(): void {
    this.#stopRetry();
  }

  #recover(): void {
    this.#stopRetry();
    this.#away = false;
    this.#mayTry = false;
    this.#failures = 0;
  }
}

/** The server refuses this block for good. */
export function isRefusal(error: unknown): boolean {
  return error instanceof PublishError && error.kind === 'rejected';
}

/** The pipeline's bound, and not the log's. */
function isOwnBound(error: unknown): boolean {
  return error instanceof PublishError && error.kind === 'full' && error.errCode === undefined;
}
