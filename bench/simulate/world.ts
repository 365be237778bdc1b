/**
 * The simulated world's time and order: everything that is under way is a task, and a die decides which is done next.
 *
 * A process is a *life*. It runs our code, which waits on nothing but tasks: to crash it, its tasks are let go and it
 * waits for ever. What it was sending may still arrive. A life can be held back, too, while the others go on.
 *
 * Between two tasks all that follows from the first has run: Node empties the queue of resolved promises before it calls
 * the next immediate. So the order of everything follows from the die, and the same seed is the same history.
 */
import { setImmediate as immediate } from 'node:timers/promises';
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
  ready(): boolean;
  run(): void;
  /** The life has ended: what becomes of the task. */
  orphaned(): void;
}

/** What went wrong, in one sentence: the seed has found something. */
export class Violation extends Error {
  override readonly name = 'Violation';
}

/** How often a request meets each fate. */
export interface Weather {
  /** Of requests that fail in some way. */
  readonly fault: number;
  /** Of answers that take their time, so that others overtake them. */
  readonly delay: number;
}

/** How long an insert takes that nobody waits for. */
const LATE_MS = [0, 20, 300, 1_000, 5_000] as const;

const always = (): boolean => true;
const nothing = (): void => {};

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

  constructor(dice: Dice, weather: Weather, tellStory: boolean) {
    this.dice = dice;
    this.weather = weather;
    this.story = tellStory ? [] : null;
  }

  /** Notes what happened. The text goes into the hash of the history. */
  tell(what: string): void {
    let { hash } = this;
    for (let at = 0; at < what.length; at++) hash = Math.imul(hash ^ what.charCodeAt(at), 0x01000193);
    this.hash = (hash ^ this.steps) | 0;
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
        if (this.#unlucky()) {
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
        orphaned: nothing,
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
    const id = `${what} #${++this.#insertNumber}`;
    return new Promise((resolve, reject) => {
      let told = false;
      const tellSender = (give: () => void): void => {
        if (told || life.dead) return;
        told = true;
        this.#answer(life, id, give);
      };
      const write = (part: number): void => {
        this.running.delete(id);
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
        this.running.add(id);
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
          this.running.delete(id);
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
        this.#push({ what: id, life: null, dueMs, ready: always, run, orphaned: nothing });
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
        ready: always,
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
        ready: always,
        run: end,
        orphaned: nothing,
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
    for (const task of own) task.orphaned();
  }

  /** Does one thing that can be done, after its consequences have run; false when there is nothing. */
  async step(): Promise<boolean> {
    await immediate();
    const tasks = this.#tasks;
    let earliest = Infinity;
    let able = 0;
    for (const task of tasks) {
      if (task.life?.held === true || !task.ready()) continue;
      if (task.dueMs <= this.nowMs) able += 1;
      else if (task.dueMs < earliest) earliest = task.dueMs;
    }
    if (earliest < Infinity && (able === 0 || this.dice.chance(0.05))) {
      this.nowMs = earliest;
      able += 1;
    }
    if (able === 0) return false;
    let chosen = this.dice.below(able);
    const at = tasks.findIndex(
      (task) => task.life?.held !== true && task.dueMs <= this.nowMs && task.ready() && chosen-- === 0,
    );
    // Several may have become due at once: then the choice is among the first of them.
    const task = tasks[at]!;
    tasks.splice(at, 1);
    this.steps += 1;
    task.run();
    return true;
  }

  #unlucky(): boolean {
    return !this.calm && this.dice.chance(this.weather.fault);
  }

  #tellOf(life: Life, what: string): void {
    this.tell(`${life.number}${life.dead ? ' (dead)' : ''}: ${what}`);
  }

  #add(life: Life, what: string, run: () => void): void {
    this.#push({ what, life, dueMs: 0, ready: always, run, orphaned: nothing });
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

function lost(): Error {
  return new Error('no answer');
}
