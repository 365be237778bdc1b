/**
 * Counts one shard: reads its log in order, prepares blocks in workers, decides verdicts.
 *
 * The whole protocol of a shard, of which this file does 1 and 2, recover.ts does 0 and flush.ts does 3 to 5:
 *
 * 0. Start. The watermark in ClickHouse says up to where the log is durably counted, and of which log. The
 *    stream must be that log (watermark.ts), or counting stops with an alert: going on could skip events in
 *    silence. Meters, counters and the dedupe index are loaded from the tables, which know everything that
 *    was counted, also what a crashed flush wrote beyond the watermark.
 * 1. Read. From the message behind the watermark, in order, without acknowledgements: the broker's consumer
 *    state is no truth. A hole in the sequences is a loss, and stops counting like a wrong stream does. A
 *    meter definition holds for the blocks behind it. Blocks are prepared in parallel and decided in order. A
 *    message that nobody can decode is kept whole as one refused row, and its neighbours count.
 * 2. Decide (verdict.ts). A duplicate has an entry at a smaller position of the log. The same position is
 *    the event's own replay, so reading anything twice decides the same twice.
 * 3. Fold (fold.ts). Contributions go into absolute totals; what lies at or below a row's position is in it
 *    already.
 * 4. Flush. Raw rows, then what is derived from them, then the watermark. Every row's version is a position,
 *    so whatever a crash left of a flush, doing it again ends in the same rows.
 * 5. Forget. Only what lies behind the watermark may be purged from the log, and only when it fills.
 */
import { BlockError, messageKind } from '../contract/block.ts';
import { decodeMeterDefined, type MeterDefined } from '../contract/control.ts';
import { MESSAGE_EVENTS, MESSAGE_METER, streamName } from '../contract/subjects.ts';
import type { Log } from '../runtime/log.ts';
import { LogRewoundError, readLog, type LogMessage, type NatsLink } from '../runtime/nats.ts';
import type { Backlog } from './backlog.ts';
import type { Measurements } from './measurements.ts';
import { EARLIER, positionInShard } from './position-in-shard.ts';
import type { Prepared } from './prepare.ts';
import type { Recovered } from './recover.ts';
import { decideBlock, unknownIn } from './verdict.ts';
import { IncarnationMismatchError } from './watermark.ts';
import type { PrepareAnswer } from './worker.ts';
import type { Workers } from './workers.ts';

interface Read {
  readonly sequence: number;
  /** When the log stored it, epoch milliseconds. */
  readonly timeMs: number;
  /** What it takes of the backlog. */
  readonly bytes: number;
}

/** A message of the log that is ready to be made durable. */
export type Decided = Read &
  (
    | { readonly kind: 'events'; readonly prepared: Prepared; readonly verdicts: Uint8Array }
    | { readonly kind: 'meter'; readonly message: Uint8Array; readonly defined: MeterDefined | null }
    | { readonly kind: 'unreadable'; readonly message: Uint8Array }
  );

type Arrived = Read & { readonly answer: Promise<Exclude<Arrival, { kind: 'meter' }>> | Arrival };
type Arrival =
  | PrepareAnswer
  | { readonly kind: 'meter'; readonly message: Uint8Array; readonly defined: MeterDefined | null };

export interface ConsumerOptions {
  readonly link: NatsLink;
  readonly workers: Workers;
  readonly backlog: Backlog;
  readonly measurements: Measurements;
  readonly log: Log;
  /** How much of the stream may be fetched ahead. */
  readonly readBytesMax: number;
  /** Asks ClickHouse for identities that the index may have forgotten, for as long as it takes. */
  lookUp(identities: Uint32Array, events: readonly number[]): Promise<void>;
  /** Called when there is something to flush. */
  onDecided(): void;
}

/** Blocks being prepared at a time, for each thread: enough that no thread waits for the loop that feeds it. */
const AHEAD = 4;

export class ShardConsumer {
  readonly shard: number;
  readonly state: Recovered;
  /** Decided and not taken by a flush, in log order. */
  readonly decided: Decided[] = [];
  /** The sequence up to which everything was decided. */
  lastDecided: number;
  /** Acceptance of the newest block that a flush has taken, epoch milliseconds; 0 for none. */
  newestAcceptedMs: number;
  readonly #options: ConsumerOptions;
  readonly #arrived: Arrived[] = [];
  #wakeDecider: () => void = () => {};
  #wakeReader: () => void = () => {};

  constructor(shard: number, state: Recovered, options: ConsumerOptions) {
    this.shard = shard;
    this.state = state;
    this.#options = options;
    this.lastDecided = state.watermark?.sequence ?? 0;
    this.newestAcceptedMs = state.watermark?.acceptedAtMs ?? 0;
  }

  /** Runs until the signal. Throws what must not be gone over: a loss in the log, a mistake of ours. */
  async run(signal: AbortSignal): Promise<void> {
    const wake = (): void => {
      this.#wakeDecider();
      this.#wakeReader();
      this.#options.backlog.wake();
    };
    signal.addEventListener('abort', wake, { once: true });
    await Promise.all([this.#read(signal), this.#decide(signal)]);
  }

  async #read(signal: AbortSignal): Promise<void> {
    const { link, backlog, readBytesMax, workers } = this.#options;
    const stream = streamName(this.shard);
    let next = this.lastDecided + 1;
    try {
      const log = readLog(link, { stream, fromSequence: next, maxBytesInFlight: readBytesMax, signal });
      for await (const message of log) {
        if (message.sequence !== next) {
          throw new IncarnationMismatchError(
            `${stream} continues at ${message.sequence} where ${next} was next: messages are missing`,
          );
        }
        next += 1;
        this.#arrive(message);
        while (!signal.aborted && this.#arrived.length >= workers.threads * AHEAD) {
          await new Promise<void>((resolve) => (this.#wakeReader = resolve));
        }
        while (!signal.aborted && backlog.full) await backlog.changed();
        if (signal.aborted) return;
      }
    } catch (error) {
      if (error instanceof LogRewoundError) throw new IncarnationMismatchError(error.message);
      throw error;
    }
  }

  /** Starts the work on a message. Meters change the registry here, in log order, before the next block. */
  #arrive({ sequence, timeMs, data }: LogMessage): void {
    const { workers, backlog } = this.#options;
    // The data is a view into memory that holds other messages too; what goes to a worker must be its own.
    const message = new Uint8Array(data);
    const bytes = message.length;
    backlog.add(bytes);
    const { registry } = this.state;
    const answer =
      messageKind(message) === MESSAGE_EVENTS
        ? workers.prepare({
            message,
            shard: this.shard,
            meters: registry.shared(),
            metersVersion: registry.version,
          })
        : this.#control(sequence, message);
    // A failure is met where the answer is awaited; until then it must not count as unhandled.
    if (answer instanceof Promise) answer.catch(() => {});
    this.#arrived.push({ sequence, timeMs, bytes, answer });
    this.#wakeDecider();
  }

  #control(sequence: number, message: Uint8Array<ArrayBuffer>): Arrival {
    const { log, measurements } = this.#options;
    if (messageKind(message) !== MESSAGE_METER) {
      return { kind: 'unreadable', reason: 'no message of ours', message };
    }
    try {
      const definition = decodeMeterDefined(message);
      const outcome = this.state.registry.define(definition);
      if (outcome === 'contradicts') {
        measurements.meterConflicts.inc();
        log.error(
          { shard: this.shard, sequence, meter: definition.meter.key },
          'a meter is defined again in another way; the first definition stays',
        );
      }
      return { kind: 'meter', message, defined: outcome === 'new' ? definition : null };
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      return { kind: 'unreadable', reason: error.message, message };
    }
  }

  async #decide(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const arrived = this.#arrived[0];
      if (arrived === undefined) {
        await new Promise<void>((resolve) => (this.#wakeDecider = resolve));
        continue;
      }
      const answer = await arrived.answer;
      if (signal.aborted) return;
      const decided = await this.#verdict(arrived, answer);
      if (decided === null) return;
      this.#arrived.shift();
      this.#wakeReader();
      this.decided.push(decided);
      this.lastDecided = decided.sequence;
      this.#options.onDecided();
    }
  }

  /** Null when stopping. */
  async #verdict(read: Read, answer: Arrival): Promise<Decided | null> {
    const { sequence, timeMs, bytes } = read;
    if (answer.kind === 'meter') return { sequence, timeMs, bytes, ...answer };
    const { backlog, measurements, log } = this.#options;
    if (answer.kind === 'unreadable') {
      const { message, reason } = answer;
      measurements.unreadable.inc();
      log.error(
        { shard: this.shard, sequence, bytes: message.length, reason },
        'a message of the log cannot be decoded; it is kept whole in refused_events',
      );
      return { sequence, timeMs, bytes, kind: 'unreadable', message };
    }
    const { prepared } = answer;
    const { index, watermark } = this.state;
    if (!index.complete) {
      const unknown = unknownIn(index, prepared.block);
      if (unknown.length > 0) await this.#options.lookUp(prepared.block.identity, unknown);
      measurements.lookups.inc(unknown.length);
    }
    const verdicts = decideBlock(index, prepared.block, prepared.refused, sequence);
    index.rotate(watermark === null ? EARLIER : positionInShard(watermark.sequence + 1, 0) - 1);
    // A block can name many meters for each event: what it grew to counts too.
    const more = contributionBytes(prepared);
    backlog.add(more);
    return { sequence, timeMs, bytes: bytes + more, kind: 'events', prepared, verdicts };
  }
}

function contributionBytes({ contributions }: Prepared): number {
  const { key, keys } = contributions;
  return key.length * 13 + keys.reduce((sum, text) => sum + text.length * 2 + 64, 0);
}
