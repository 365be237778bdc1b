/**
 * The blocks of one shard on their way to the threads: several that have arrived go together, as one job.
 *
 * A job costs the loop that feeds the threads the same however little is in it: a promise, an answer that is cloned, a
 * thread that is woken. With a message a job, a sixth of the loop's time went into posting blocks of 25 events.
 *
 *   1. A block that arrives when no job went for a while (GATHER_MS) goes at once. So at low load nothing ever waits for
 *      a neighbour.
 *   2. Otherwise it is gathered, and goes when that while is over and the job before has been answered. A thread answers
 *      faster than blocks arrive: if that alone were waited for, nearly every block would be a job of its own as long as
 *      there is no backlog. A flush begins every half second at most, and does not miss those that wait so long.
 *   3. What has come to a job's bound of bytes goes at once, whatever is under way: under load the jobs are large, and
 *      every thread has one.
 *   4. A job goes by the meters that were in force when its first block arrived, so it ends where they change; and it
 *      goes when nothing more is read before something of it is decided (`close`).
 *
 * The blocks of a job lie behind one another in one slot (slots.ts), and behind them is room for what is found in them.
 * How much that is, is known only when it is found, so it is reckoned from the jobs before: a share of the blocks' bytes
 * that follows the largest of late. What finds no room there comes in memory of its own.
 */
import type { Timing } from './ports.ts';
import type { PrepareAnswer } from './prepare-answers.ts';
import type { MeterRegistry } from './registry.ts';
import type { Placed, Slot } from './slots.ts';
import type { Workers } from './workers.ts';

/** The least time between two jobs that are not full. */
const GATHER_MS = 20;

/** Room for what is found, as a share of the blocks' bytes: at first, and how it follows what was needed. */
const ROOM_FIRST = 1.5;
const ROOM_SPARE = 1.25;
const ROOM_DECAY = 0.98;

/** A block that waits for its answer; `add` and the answer fill it in. */
export interface Asked {
  slot: Slot | null;
  ready: PrepareAnswer | null;
  failure: { readonly error: unknown } | null;
}

interface Job {
  readonly slot: Slot | null;
  readonly meters: SharedArrayBuffer;
  readonly metersVersion: number;
  readonly asked: Asked[];
  readonly messages: Uint8Array[];
  bytes: number;
}

export class PrepareQueue {
  readonly #workers: Workers;
  readonly #shard: number;
  readonly #timing: Pick<Timing, 'elapsedMs' | 'sleep'>;
  readonly #onAnswer: () => void;
  #open: Job | null = null;
  /** Jobs without an answer. */
  #underWay = 0;
  /** When the last job went. */
  #wentMs = -Infinity;
  #alarmed = false;
  /** The slot that was filled last, and its turn then. */
  #slot: Slot | null = null;
  #turn = 0;
  #room = ROOM_FIRST;

  /** @param onAnswer is called when blocks have got their answers. */
  constructor(
    workers: Workers,
    shard: number,
    timing: Pick<Timing, 'elapsedMs' | 'sleep'>,
    onAnswer: () => void,
  ) {
    this.#workers = workers;
    this.#shard = shard;
    this.#timing = timing;
    this.#onAnswer = onAnswer;
  }

  /** Takes a copy of the message. `asked` holds its slot from now on. */
  add(message: Uint8Array, asked: Asked, registry: MeterRegistry): void {
    const { bytes, slot } = this.#place(message);
    asked.slot = slot;
    if (this.#open !== null && this.#open.slot !== slot) this.close();
    this.#open ??= {
      slot,
      meters: registry.shared(),
      metersVersion: registry.version,
      asked: [],
      messages: [],
      bytes: 0,
    };
    const job = this.#open;
    job.asked.push(asked);
    job.messages.push(bytes);
    job.bytes += bytes.length;
    if (job.bytes >= this.#workers.jobBytes) this.close();
    else this.#closeWhenDue();
  }

  /** What was gathered goes: the meters are about to change, or whoever reads waits for what becomes of it. */
  close(): void {
    const job = this.#open;
    if (job === null) return;
    this.#open = null;
    this.#underWay += 1;
    this.#wentMs = this.#timing.elapsedMs();
    const roomStart = job.slot === null ? 0 : job.slot.end;
    if (job.slot !== null) job.slot.reserve(job.bytes * this.#room);
    const { asked, bytes, ...told } = job;
    const roomEnd = job.slot === null ? 0 : job.slot.end;
    this.#workers.prepare({ ...told, roomStart, roomEnd, shard: this.#shard }).then(
      ({ answers, columnBytes }) => {
        this.#room = Math.max(this.#room * ROOM_DECAY, (columnBytes / bytes) * ROOM_SPARE);
        asked.forEach((one, at) => (one.ready = answers[at]!));
        this.#answered();
      },
      (error: unknown) => {
        for (const one of asked) one.failure = { error };
        this.#answered();
      },
    );
  }

  /** Forgets what was gathered and is not under way. */
  clear(): void {
    this.#open = null;
  }

  #answered(): void {
    this.#underWay -= 1;
    this.#closeWhenDue();
    this.#onAnswer();
  }

  /** Is asked again with every block and every answer, and when the time has come. */
  #closeWhenDue(): void {
    if (this.#open === null || this.#underWay > 0) return;
    const waitMs = this.#wentMs + GATHER_MS - this.#timing.elapsedMs();
    if (waitMs <= 0) return this.close();
    // One alarm at a time: it can only be early, and then the next one is set.
    if (this.#alarmed) return;
    this.#alarmed = true;
    void this.#timing.sleep(Math.ceil(waitMs)).then(() => {
      this.#alarmed = false;
      this.#closeWhenDue();
    });
  }

  /** Behind the message before, if it has room there with all that is found in its job. */
  #place(message: Uint8Array): Placed {
    const slot = this.#slot;
    if (slot !== null && slot.isHeld && slot.turn === this.#turn) {
      const ofJob = (this.#open?.slot === slot ? this.#open.bytes : 0) + message.length;
      const needed = message.length + ofJob * this.#room;
      if (message.length > 0 && slot.end + needed <= slot.bytes.length)
        return { bytes: slot.place(message), slot };
    }
    const placed = this.#workers.slots.place(message);
    if (placed.slot !== null) {
      this.#slot = placed.slot;
      this.#turn = placed.slot.turn;
    }
    return placed;
  }
}
