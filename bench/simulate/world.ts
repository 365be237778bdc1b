/**
 * The simulated world's time and order: everything that is under way is a task, and a die decides which is done next.
 *
 * A process is a *life*. It runs our code, which waits on nothing but tasks: to crash it, its tasks are let go and it
 * waits for ever. What it was sending may still arrive. A life can be held back, too, while the others go on.
 *
 * Between two tasks all that follows from the first has to run: whoever calls `step` lets Node empty its queue of
 * resolved promises in between (seeds.ts). So the order of everything follows from the die, and the same seed is the
 * same history.
 */
import { Dice } from './dice.ts';

export class Life {
  readonly number: number;
  readonly stopping = new AbortController();
  /** How far its wall clock is wrong, milliseconds. */
  readonly clockOffMs: number;
  dead = false;
  held = false;

  constructor(number: number, clockOffMs: number) {
    this.number = number;
    this.clockOffMs = clockOffMs;
  }
}

interface Task {
  readonly what: string;
  readonly life: Life | null;
  /** Not before this time of the world. */
  readonly dueMs: number;
  /** Null for always. */
  readonly ready: (() => boolean) | null;
  run(): void;
  /** The life has ended: what becomes of the task. Null for nothing. */
  readonly orphaned: (() => void) | null;
}

/** What went wrong, in one sentence: the seed has found something. */
export class Violation extends Error {
  override readonly name = 'Violation';
}

/** How often a request meets each fate. */
export interface Weather {
  /** Of inserts that fail in some way. */
  readonly fault: number;
  /**
   * Of questions that get no answer. Fewer: a start asks twenty of them in a row and begins again when one fails, so
   * that seeds with many did little else.
   */
  readonly silence: number;
  /** Of answers that take their time, so that others overtake them. */
  readonly delay: number;
}

/** How long an insert takes that nobody waits for. */
const LATE_MS = [0, 20, 300, 1_000, 5_000] as const;

/** One for all: nobody reads where it came from, and a trace costs more than the step that it fails. */
const LOST = new Error('no answer');
const lost = (): Error => LOST;

export class World {
  readonly dice: Dice;
  readonly weather: Weather;
  /** Milliseconds since its beginning. */
  nowMs = 0;
  /** Nothing fails any more. */
  calm = false;
  steps = 0;
  hash = 0;
  violation: Violation | null = null;
  /** What happened; null when nobody wants to read it. */
  readonly story: string[] | null;
  /** The inserts that were sent and have neither happened nor been lost. */
  readonly running = new Set<string>();
  #insertNumber = 0;
  #tasks: Task[] = [];
  /** Places in #tasks of what can be done: memory for `step`. */
  readonly #able: number[] = [];

  constructor(dice: Dice, weather: Weather, tellStory: boolean) {
    this.dice = dice;
    this.weather = weather;
    this.story = tellStory ? [] : null;
  }

  /**
   * Notes what happened. Its length goes into the hash of the history, with when and in which step: the text itself
   * would have to be put together for it, and nobody reads it.
   */
  tell(what: string): void {
    this.#hash(what.length, 0);
    this.story?.push(`${this.nowMs} ms  ${what}`);
  }

  fail(what: string): void {
    if (this.violation !== null) return;
    this.tell(`VIOLATION ${what}`);
    this.violation = new Violation(what);
  }

  /** A question or an order of a life; the answer is of the moment at which it is done. */
  ask<T>(life: Life, what: string, answer: () => T, failure: () => Error = lost): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#add(life, what, () => {
        if (!this.calm && this.dice.chance(this.weather.silence)) {
          this.#tellOf(life, `${what}: failed`);
          reject(failure());
          return;
        }
        this.#tellOf(life, what);
        try {
          const value = answer();
          this.#answer(life, what, () => resolve(value));
        } catch (error) {
          this.#tellOf(life, `${what}: ${String(error)}`);
          this.#answer(life, what, () => reject(error as Error));
        }
      });
    });
  }

  /** Work of the life's own threads: it takes its time, and does not fail. */
  work<T>(life: Life, what: string, answer: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#add(life, what, () => {
        this.#tellOf(life, what);
        try {
          resolve(answer());
        } catch (error) {
          reject(error as Error);
        }
      });
    });
  }

  /** Waits for a condition of the world, or the signal; `undefined` for the signal. */
  wait<T>(
    life: Life,
    what: string,
    ready: () => boolean,
    signal: AbortSignal,
    take: () => T,
  ): Promise<T | undefined> {
    return new Promise((resolve, reject) => {
      this.#push({
        what,
        life,
        dueMs: 0,
        ready: () => signal.aborted || ready(),
        run: () => {
          this.#tellOf(life, what);
          if (signal.aborted) return resolve(undefined);
          try {
            resolve(take());
          } catch (error) {
            reject(error as Error);
          }
        },
        orphaned: null,
      });
    });
  }

  /**
   * An insert. When it arrives, the fence is asked; from then on it *runs* until it has written, which may be at once or
   * later. It may fail with any part of its rows written, time out and run on, lose its answer; and when its sender
   * dies, it may be lost, run on, or not have arrived yet and arrive later.
   */
  insert<Row>(
    life: Life,
    what: string,
    rows: readonly Row[] | (() => readonly Row[]),
    put: (row: Row) => void,
    refusal: () => Error | null = () => null,
  ): Promise<void> {
    const number = String(++this.#insertNumber);
    const id = `${what} #${number}`;
    return new Promise((resolve, reject) => {
      let told = false;
      const tellSender = (give: () => void): void => {
        if (told || life.dead) return;
        told = true;
        this.#answer(life, id, give);
      };
      const write = (part: number): void => {
        this.running.delete(number);
        const all = typeof rows === 'function' ? rows() : rows;
        const taken = part === 1 ? all : all.filter(() => this.dice.chance(part));
        this.#tellOf(life, `${id} writes ${taken.length} of ${all.length} rows`);
        for (const row of taken) put(row);
      };
      const arrive = (): void => {
        const refused = refusal();
        if (refused !== null) {
          this.#tellOf(life, `${id} is refused`);
          tellSender(() => reject(refused));
          return;
        }
        this.running.add(number);
        if (!this.#unlucky()) {
          if (!this.calm && this.dice.chance(this.weather.delay)) return runOn(1, resolve);
          write(1);
          tellSender(resolve);
          return;
        }
        const fail = (): void => reject(lost());
        const fate = this.dice.below(6);
        if (fate === 0) {
          write(1);
          tellSender(fail);
        } else if (fate === 1) {
          write(0.5);
          tellSender(fail);
        } else if (fate === 2) {
          this.running.delete(number);
          this.#tellOf(life, `${id} fails`);
          tellSender(fail);
        } else {
          this.#tellOf(life, `${id} times out and runs on`);
          tellSender(fail);
          runOn(1, () => {});
        }
      };
      // Nobody's task any more, and it takes its time: its sender may have tried again and gone on by then.
      const byItself = (run: () => void): void => {
        const dueMs = this.nowMs + this.dice.oneOf(LATE_MS);
        this.#push({ what: id, life: null, dueMs, ready: null, run, orphaned: null });
      };
      const runOn = (part: number, then: () => void): void =>
        byItself(() => {
          write(part);
          tellSender(then);
        });
      this.#push({
        what: id,
        life,
        dueMs: 0,
        ready: null,
        run: arrive,
        orphaned: () => {
          // On its way when its sender died: lost, or it arrives in its own time.
          if (this.dice.chance(0.5)) byItself(arrive);
        },
      });
    });
  }

  sleep(life: Life, ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal?.aborted) return resolve();
      const end = (): void => {
        signal?.removeEventListener('abort', end);
        resolve();
      };
      signal?.addEventListener('abort', end, { once: true });
      this.#push({
        what: 'sleep',
        life,
        dueMs: this.nowMs + ms,
        ready: null,
        run: end,
        orphaned: null,
      });
    });
  }

  /** The life is over, in the middle of whatever it did. */
  end(life: Life, how: string): void {
    if (life.dead) return;
    this.tell(`process ${life.number} ${how}`);
    life.dead = true;
    const own = this.#tasks.filter((task) => task.life === life);
    this.#tasks = this.#tasks.filter((task) => task.life !== life);
    for (const task of own) task.orphaned?.();
  }

  /**
   * Does one thing that can be done; false when there is nothing. The consequences of the step before must have run.
   */
  step(): boolean {
    const earliest = this.#look();
    const able = this.#able;
    if (earliest < Infinity && (able.length === 0 || this.dice.chance(0.05))) {
      this.nowMs = earliest;
      this.#look();
    }
    if (able.length === 0) return false;
    const at = able[this.dice.below(able.length)]!;
    const tasks = this.#tasks;
    const task = tasks[at]!;
    tasks[at] = tasks.at(-1)!;
    tasks.pop();
    this.steps += 1;
    task.run();
    return true;
  }

  /** Finds what can be done now, and tells when the next thing is due that cannot yet. */
  #look(): number {
    const tasks = this.#tasks;
    this.#able.length = 0;
    let earliest = Infinity;
    for (let at = 0; at < tasks.length; at++) {
      const { life, ready, dueMs } = tasks[at]!;
      if (life?.held === true || (ready !== null && !ready())) continue;
      if (dueMs <= this.nowMs) this.#able.push(at);
      else if (dueMs < earliest) earliest = dueMs;
    }
    return earliest;
  }

  #unlucky(): boolean {
    return !this.calm && this.dice.chance(this.weather.fault);
  }

  #tellOf(life: Life, what: string): void {
    this.#hash(what.length, life.number);
    this.story?.push(`${this.nowMs} ms  ${life.number}${life.dead ? ' (dead)' : ''}: ${what}`);
  }

  #hash(length: number, life: number): void {
    const mixed = Math.imul(this.hash ^ length ^ (life << 8), 0x01000193) ^ this.steps;
    this.hash = Math.imul(mixed ^ this.nowMs, 0x85ebca6b) ^ (mixed >>> 15);
  }

  #add(life: Life, what: string, run: () => void): void {
    this.#push({ what, life, dueMs: 0, ready: null, run, orphaned: null });
  }

  #push(task: Task): void {
    // What a life still does when it is over, it does not do.
    if (task.life?.dead !== true) this.#tasks.push(task);
  }

  /** Now, or when others have overtaken it. */
  #answer(life: Life, what: string, give: () => void): void {
    if (this.calm || !this.dice.chance(this.weather.delay)) give();
    else this.#add(life, `answer to ${what}`, give);
  }
}
