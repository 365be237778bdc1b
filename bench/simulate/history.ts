/**
 * One seed is one history: producers send, a broker loses and brings back, processes are killed, held back and woken,
 * and at last everything is sent again that was lost and comes to rest. The model says at every watermark and at the
 * end what must be in the tables.
 */
import { runProcess, type ProcessLimits } from './aggregator-process.ts';
import { Dice } from './dice.ts';
import { Model } from './model.ts';
import { Producer, type Publication } from './producer.ts';
import { SimulatedLog, type Stored } from './simulated-log.ts';
import { SimulatedTables, type TableGuards } from './simulated-tables.ts';
import { Life, World } from './world.ts';

export const ALL_GUARDS: TableGuards = { version: true, firstWrite: true, epoch: true, settle: true };

export interface Outcome {
  readonly seed: number;
  /** Null when everything was as it must be. */
  readonly violation: string | null;
  readonly steps: number;
  /** Of everything that happened, in order. */
  readonly hash: number;
  readonly story: readonly string[];
}

/** A history that does not come to rest by then never will. */
const STEPS_MAX = 30_000;

/**
 * The history of a seed, step by step. Whoever runs it lets the consequences of a step run before he asks for the next:
 * after each `yield` all promises that are settled have been taken note of.
 */
export function* historyOf(
  seed: number,
  guards: TableGuards,
  tellStory: boolean,
): Generator<void, Outcome, void> {
  const history = new History(seed, guards, tellStory);
  const { world } = history;
  try {
    yield* history.run();
  } catch (error) {
    world.fail(error instanceof Error ? (error.stack ?? error.message) : String(error));
  }
  const { steps, hash, story, violation } = world;
  return { seed, violation: violation?.message ?? null, steps, hash, story: story ?? [] };
}

class History {
  readonly world: World;
  readonly #dice: Dice;
  readonly #logs: SimulatedLog[];
  readonly #tables: SimulatedTables;
  readonly #model: Model;
  readonly #producer: Producer;
  readonly #limits: ProcessLimits;
  readonly #published: Publication[] = [];
  readonly #lives: Life[] = [];
  /** Whether the broker ever loses anything that it has confirmed. */
  readonly #loses: boolean;
  readonly #clocksDiffer: boolean;
  /** What a log was before it lost something. */
  #before: {
    log: SimulatedLog;
    messages: readonly (Stored | undefined)[];
    firstSequence: number;
    created: string;
  } | null = null;
  #eventsLeft: number;
  #lifeNumber = 0;

  constructor(seed: number, guards: TableGuards, tellStory: boolean) {
    const dice = new Dice(seed);
    this.#dice = dice;
    const shards = dice.between(1, 2);
    this.world = new World(
      dice,
      {
        fault: dice.oneOf([0, 0.05, 0.15]),
        silence: dice.oneOf([0, 0.01, 0.04]),
        delay: dice.oneOf([0, 0.2, 0.5]),
      },
      tellStory,
    );
    this.#logs = Array.from({ length: shards }, (_, shard) => new SimulatedLog(shard, this.world));
    this.#tables = new SimulatedTables(guards);
    this.#model = new Model(this.world, this.#tables, this.#logs);
    this.#producer = new Producer(dice, shards, dice.chance(0.6));
    this.#eventsLeft = dice.between(10, 60);
    this.#loses = dice.chance(0.7);
    this.#clocksDiffer = dice.chance(0.3);
    this.#limits = {
      threads: dice.between(1, 2),
      backlogBytesMax: dice.oneOf([1, 1_000, 100_000]),
      flushIntervalMs: dice.oneOf([0, 5, 100]),
      flushEventsMax: dice.oneOf([1, 5, 1_000]),
      dedupeKeysMax: dice.oneOf([2, 8, 1_000]),
      rollupRowsMax: dice.oneOf([1, 6, 1_000]),
      purge: dice.chance(0.3),
    };
  }

  *run(): Generator<void, void, void> {
    const { world } = this;
    for (let meters = this.#dice.below(4); meters > 0; meters--) this.#publish(this.#producer.meter());
    this.#start();
    while (this.#eventsLeft > 0 && world.violation === null) {
      if (this.#dice.chance(0.08)) {
        this.#happen();
        continue;
      }
      yield;
      if (!world.step()) this.#happen();
    }
    this.#calm();
    while (world.violation === null) {
      if (world.steps > STEPS_MAX) world.fail('it does not come to rest');
      yield;
      if (world.step()) continue;
      if (this.#alive().length > 0) break;
      this.#start();
    }
    if (world.violation === null) this.#model.finish(this.#published.flatMap(({ events }) => events));
  }

  /** One thing that comes from outside. */
  #happen(): void {
    const dice = this.#dice;
    const alive = this.#alive();
    const what = dice.below(100);
    if (what < 50) this.#publish(this.#producer.some(6));
    else if (what < 57) this.#publish(this.#producer.meter());
    else if (what < 59) this.#publish(this.#producer.rubbish());
    else if (what < 64) dice.oneOf(this.#logs).sync();
    else if (what < 67) dice.oneOf(this.#logs).disconnect();
    else if (what < 76) this.#lose();
    else if (what < 86 && alive.length > 0) this.world.end(dice.oneOf(alive), 'is killed');
    else if (what < 88 && alive.length > 0) this.#stop(dice.oneOf(alive));
    else if (what < 92 && alive.length > 0) this.#hold(dice.oneOf(alive));
    else if (what < 95) this.#wake();
    if (this.#alive().every(({ held }) => held) && dice.chance(0.7)) this.#start();
  }

  #alive(): Life[] {
    return this.#lives.filter(({ dead }) => !dead);
  }

  #start(): void {
    const { world } = this;
    const number = ++this.#lifeNumber;
    const life = new Life(number, this.#clocksDiffer ? this.#dice.between(-60_000, 60_000) : 0);
    this.#lives.push(life);
    world.tell(`process ${number} starts`);
    const [logs, tables, model] = [this.#logs, this.#tables, this.#model];
    void runProcess({ ...this.#limits, world, life, logs, tables, model }).then(() => {
      world.end(life, 'has ended');
    });
  }

  #stop(life: Life): void {
    this.world.tell(`process ${life.number} is stopped`);
    life.held = false;
    life.stopping.abort();
  }

  #hold(life: Life): void {
    this.world.tell(`process ${life.number} is held`);
    life.held = true;
  }

  #wake(): void {
    for (const life of this.#alive()) {
      if (life.held) this.world.tell(`process ${life.number} wakes`);
      life.held = false;
    }
  }

  #publish(publications: readonly Publication[]): void {
    for (const publication of publications) {
      // Sent again until it is confirmed: without a stream it comes at the end.
      this.#logs[publication.shard]!.append(publication);
      this.#published.push(publication);
      this.#eventsLeft -= publication.events.length;
    }
  }

  #lose(): void {
    if (!this.#loses) return;
    const dice = this.#dice;
    const log = dice.oneOf(this.#logs);
    const what = dice.below(12);
    if (this.#before !== null && what < 2) {
      const { log: of, messages, firstSequence, created } = this.#before;
      this.#before = null;
      if (of.exists && of.created === created) of.bringBack(messages, firstSequence);
      return;
    }
    if (!log.exists) return;
    const { messages, firstSequence, created } = log;
    this.#before = { log, messages: [...messages], firstSequence, created };
    if (what < 7) log.cutBack(dice.between(log.syncedTo, log.lastSequence));
    else if (what < 9) log.cutBack(dice.between(0, log.lastSequence));
    else if (what < 11) log.pierce(dice.between(log.firstSequence, log.lastSequence), dice.between(1, 3));
    else log.remove();
  }

  /** From now on nothing fails, and what was lost is sent again. */
  #calm(): void {
    const { world } = this;
    world.tell('calm');
    world.calm = true;
    this.#wake();
    for (const log of this.#logs) log.make();
    const there = new Set(this.#logs.flatMap(({ messages }) => messages.map((one) => one?.publication)));
    const missing = this.#published.filter((one) => !there.has(one));
    for (const publication of missing) this.#logs[publication.shard]!.append(publication);
  }
}
