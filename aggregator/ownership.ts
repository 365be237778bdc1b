/**
 * Which of several aggregators counts which shard, and why two of them at once do no harm.
 *
 * Two things, and only the first is about being right:
 *
 * The fence is in ClickHouse. Each take-over of a shard writes a row with a higher epoch (owners.ts). Every insert
 * carries the epochs of the shards that it writes for, and the server compares them with the newest rows before it
 * takes the first row of the insert (fence.ts): one that is not the newest writes nothing at all. An insert may pass
 * the comparison and then be overtaken by a take-over; so the new owner, once its row is there, waits until every
 * insert has ended that ran then, and only then reads what the tables hold. From that moment the shard has one
 * writer, however long the old one was stopped, whatever it still has in memory, and whatever the clocks say.
 *
 * The lease is in a bucket of NATS, and is only there so that shards are not taken in vain. A process is a member with
 * a name, and writes its heartbeat every third of the TTL, by compare and set. A shard's entry says which member holds
 * it; it changes only when the shard changes hands, so a heartbeat is one write however many shards there are. Who sees
 * a member's entry stay the same for the TTL, by his own clock, takes that member to be dead, and its shards for free.
 * Free shards are dealt out to the least loaded, and the most loaded hands over (lease.ts).
 *
 * Taking a shard. A crash after each step:
 * 1. The entry in the bucket, by compare and set: of several contenders one goes on. After it: a lease of a dead
 *    member, free after the TTL.
 * 2. The row in `owners`, and waiting for inserts that run. After it: the same, and the old owner is fenced out.
 * 3. Recovering from the tables and the log (step 0 of consume.ts), then counting. After it: as ever.
 *
 * Handing over. 1. Stop reading. 2. Make durable what was decided. 3. Give up the claim in memory, then write the entry,
 * free and with the successor's name, who takes it at once. A crash before the entry is written leaves a lease of a
 * dead member, and nothing that was acknowledged is anywhere but in the log and the tables.
 *
 * What goes wrong:
 * - An owner that could not renew for the TTL writes nothing more until a heartbeat has succeeded, and looks then
 *   whether its shards are still its own. It may have been stopped, and others may have taken them.
 * - NATS is away: nobody can take anything, so everybody keeps what he has, and writes down what he has read. When
 *   NATS is back everybody gets a whole TTL to be heard.
 * - The bucket is lost, or an earlier state of it came back: an entry with a lower epoch than ours, or none, is written
 *   again. An entry with a higher epoch is the truth, and the shard is given up.
 * - An insert is refused by the fence: the process drops all that it counts and has in memory, since inserts are made
 *   for several shards together, and takes anew, with new epochs, what the bucket says is its own.
 * - A process that is started again under the same name takes what its predecessor held at once. Should that one live
 *   on, it is fenced out, and ends when its next heartbeat finds the name taken.
 */
import type { Log } from '../runtime/log.ts';
import { FencedError } from './fence.ts';
import type { LeaseBucket } from './lease-bucket.ts';
import {
  leaseKey,
  LeaseTable,
  memberKey,
  parseMember,
  type LeaseRecord,
  type MemberRecord,
} from './lease.ts';
import type { Timing } from './ports.ts';

/** Another process runs under the same name. */
export class SupersededError extends Error {
  override readonly name = 'SupersededError';
}

/** What counts shards (counting.ts). */
export interface Hands {
  /**
   * Becomes the owner in ClickHouse with at least this epoch, and begins to count. Waits for the engines for as long
   * as it takes. Resolves with the epoch. @throws FencedError when somebody newer came in between
   */
  begin(shard: number, epochAtLeast: number): Promise<number>;
  /** Ends counting; afterwards nothing is written for the shard any more. */
  end(shard: number, decided: 'flush' | 'drop'): Promise<void>;
}

export interface OwnershipOptions {
  readonly bucket: LeaseBucket;
  readonly hands: Hands;
  readonly name: string;
  /** Of this process; no other has it. */
  readonly instance: string;
  readonly shards: number;
  readonly mayTake: readonly number[] | 'all';
  readonly ttlMs: number;
  readonly timing: Timing;
  readonly log: Log;
  readonly signal: AbortSignal;
  onTakeOver(shard: number, epoch: number): void;
  onEnd(shard: number): void;
}

interface Mine {
  state: 'taking' | 'counting' | 'ending';
  epoch: number;
}

/** Shards that are handed over at a time. Each is paused while it is; many at once would pause all of them. */
const HAND_OVERS_MAX = 2;
const LEAVE_WITHIN_MS = 2_000;

export class Ownership {
  readonly #o: OwnershipOptions;
  readonly #table: LeaseTable;
  readonly #mine = new Map<number, Mine>();
  readonly #tasks = new Set<Promise<void>>();
  #generation = 1;
  #beat = 0;
  #memberRevision = 0;
  /** When the newest heartbeat that succeeded was sent. */
  #heardMs = -Infinity;
  /** Nothing is taken before: set after the fence has refused us, so that two who both believe to own take turns. */
  #takeFromMs = -Infinity;
  #wake: () => void = () => {};
  #confirmed: (() => void)[] = [];
  #settled: (() => void)[] = [];
  /** Whether there was a first look at the table. */
  #acted = false;

  constructor(o: OwnershipOptions) {
    this.#o = o;
    this.#table = new LeaseTable(o.name, o.shards, o.ttlMs);
  }

  /** Becomes a member, and knows the others. */
  async start(): Promise<void> {
    const { bucket, name, timing, signal } = this.#o;
    // Whoever had the name before has it no more.
    const before = await bucket.get(memberKey(name));
    const known = before === null ? null : parseMember(before.value);
    this.#generation = (known?.generation ?? 0) + 1;
    const sentMs = timing.elapsedMs();
    this.#memberRevision = await bucket.put(memberKey(name), this.#record());
    this.#heardMs = sentMs;
    bucket.onReconnect(() => this.#table.bucketMayBeAnother());
    await bucket.watch((key, value, revision) => {
      this.#table.set(key, value, revision, timing.elapsedMs());
      this.#wake();
    }, signal);
    this.#table.lookAnew(timing.elapsedMs());
  }

  /** Takes and hands over until the signal. @throws SupersededError, and what `hands` throw that is no FencedError */
  async run(): Promise<void> {
    const { timing, signal, ttlMs } = this.#o;
    let failed: { readonly error: unknown } | undefined;
    signal.addEventListener('abort', () => this.#wake(), { once: true });
    const fail = (error: unknown): void => {
      failed ??= { error };
      this.#wake();
    };
    this.#track(this.#beats().catch(fail));
    while (!signal.aborted && failed === undefined) {
      this.#act(fail);
      this.#acted ||= !this.#lapsed;
      for (const resolve of this.#settled.splice(0)) resolve();
      const nowMs = timing.elapsedMs();
      const next = Math.min(this.#table.nextDeathMs(nowMs), nowMs + ttlMs / 3);
      const woken = new AbortController();
      const wait = Math.max(1, Math.ceil(next - nowMs));
      await Promise.race([
        new Promise<void>((resolve) => (this.#wake = resolve)),
        timing.sleep(wait, woken.signal),
      ]);
      woken.abort();
    }
    for (const resolve of [...this.#confirmed.splice(0), ...this.#settled.splice(0)]) resolve();
    if (failed !== undefined) throw failed.error;
  }

  /** Resolves when what was to be taken at first is counted. */
  async settled(): Promise<void> {
    const taking = (): boolean => [...this.#mine.values()].some(({ state }) => state === 'taking');
    while (!this.#o.signal.aborted && (!this.#acted || taking()))
      await new Promise<void>((resolve) => this.#settled.push(resolve));
  }

  /** Resolves when writing makes sense: when the lease has not run out, or nobody could have taken it. */
  async mayWrite(): Promise<void> {
    while (this.#lapsed && this.#o.bucket.connected && !this.#o.signal.aborted) {
      await new Promise<void>((resolve) => this.#confirmed.push(resolve));
    }
  }

  /** The fence refused an insert; all that was counted is dropped. */
  fenced(): void {
    for (const shard of [...this.#mine.keys()]) this.#forget(shard);
    this.#takeFromMs = this.#o.timing.elapsedMs() + this.#o.ttlMs / 3;
    this.#wake();
  }

  /** After the signal, and after everything is durable: gives up all leases and leaves, if NATS answers soon. */
  async leave(): Promise<void> {
    const { bucket, name, timing } = this.#o;
    await Promise.race([Promise.all(this.#tasks), timing.sleep(LEAVE_WITHIN_MS)]);
    const leaving = (async (): Promise<void> => {
      await bucket.put(memberKey(name), this.#record(true));
      const all = [...this.#mine].map(([shard, { epoch }]) => this.#release(shard, epoch, ''));
      await Promise.all(all);
      await bucket.delete(memberKey(name));
    })();
    leaving.catch((error: unknown) => this.#o.log.debug({ error }, 'the leases were not given up'));
    await Promise.race([leaving.catch(() => {}), timing.sleep(LEAVE_WITHIN_MS)]);
  }

  get #lapsed(): boolean {
    return this.#o.timing.elapsedMs() - this.#heardMs > this.#o.ttlMs;
  }

  #record(leaving = false): string {
    const { name, instance, mayTake: shards } = this.#o;
    const generation = this.#generation;
    const record: MemberRecord = { name, instance, generation, beat: ++this.#beat, shards, leaving };
    return JSON.stringify(record);
  }

  async #beats(): Promise<void> {
    const { bucket, name, instance, ttlMs, timing, signal, log } = this.#o;
    const everyMs = ttlMs / 3;
    while (!signal.aborted) {
      const sentMs = timing.elapsedMs();
      try {
        const revision = await bucket.write(memberKey(name), this.#record(), this.#memberRevision);
        if (revision === null) {
          const found = await bucket.get(memberKey(name));
          const other = found === null ? null : parseMember(found.value);
          // Ours, when an answer was lost; a lower generation, or none, when the bucket was.
          if (other !== null && other.instance !== instance && other.generation >= this.#generation) {
            throw new SupersededError(
              `another process runs under the name ${name}: give each its own TALLYLINE_AGGREGATOR_NAME`,
            );
          }
          this.#memberRevision = found?.revision ?? 0;
          await timing.sleep(10, signal);
          continue;
        }
        this.#memberRevision = revision;
        if (this.#lapsed) this.#table.lookAnew(timing.elapsedMs());
        this.#heardMs = sentMs;
        for (const resolve of this.#confirmed.splice(0)) resolve();
        this.#wake();
      } catch (error) {
        if (error instanceof SupersededError) throw error;
        log.debug({ error }, 'a heartbeat failed');
        // Whether anybody may take anything depends on the connection, and that may have changed.
        for (const resolve of this.#confirmed.splice(0)) resolve();
      }
      await timing.sleep(Math.max(10, everyMs - (timing.elapsedMs() - sentMs)), signal);
    }
  }

  /** One look at the table, and what follows from it. Nothing here waits. */
  #act(fail: (error: unknown) => void): void {
    const { name, instance, timing, shards, bucket } = this.#o;
    if (this.#lapsed) return;
    const nowMs = timing.elapsedMs();
    const run = (task: Promise<void>): void => this.#track(task.catch(fail));

    const ending = new Set<number>();
    for (const [shard, mine] of this.#mine) {
      if (mine.state === 'ending') ending.add(shard);
      if (mine.state !== 'counting') continue;
      const lease = this.#table.lease(shard);
      if (lease?.owner === name && lease.instance === instance) continue;
      if (lease === null || lease.epoch < mine.epoch) run(this.#restore(shard, mine));
      else run(this.#lose(shard, mine, lease));
    }
    if (nowMs < this.#takeFromMs) return;

    const plan = this.#table.plan(instance, ending, nowMs);
    for (const shard of plan.take) if (!this.#mine.has(shard)) run(this.#take(shard));
    for (let shard = 0; shard < shards; shard++) {
      // What the bucket says is ours and nobody counts: an earlier attempt was fenced out, or cut off.
      const lease = this.#table.lease(shard);
      if (lease?.owner === name && lease.instance === instance && !this.#mine.has(shard))
        run(this.#take(shard));
    }
    for (const { shard, to } of plan.handOver) {
      if (ending.size >= HAND_OVERS_MAX) break;
      const mine = this.#mine.get(shard);
      if (mine?.state !== 'counting') continue;
      ending.add(shard);
      run(this.#handOver(shard, mine, to));
    }
    for (const forgotten of this.#table.forgotten(nowMs)) {
      this.#table.set(memberKey(forgotten), null, 0, nowMs);
      this.#track(bucket.delete(memberKey(forgotten)).catch(() => {}));
    }
  }

  async #take(shard: number): Promise<void> {
    const { hands, name, instance, log, onTakeOver } = this.#o;
    const before = this.#table.lease(shard);
    const mine: Mine = { state: 'taking', epoch: (before?.epoch ?? 0) + 1 };
    this.#mine.set(shard, mine);
    const lease: LeaseRecord = { owner: name, instance, epoch: mine.epoch, successor: '' };
    try {
      if (!(await this.#write(shard, lease))) {
        this.#forget(shard, mine);
        return;
      }
      const epoch = await hands.begin(shard, mine.epoch);
      // Dropped in the meantime, with everything else.
      if (this.#mine.get(shard) !== mine) return;
      [mine.state, mine.epoch] = ['counting', epoch];
      onTakeOver(shard, epoch);
      if (epoch !== lease.epoch) await this.#write(shard, { ...lease, epoch });
      this.#wake();
    } catch (error) {
      // Dropped in the meantime, with everything else.
      if (this.#mine.get(shard) !== mine) return;
      this.#forget(shard, mine);
      if (!(error instanceof FencedError)) throw error;
      log.warn({ error, shard }, 'another process took the shard at the same time');
      this.#takeFromMs = this.#o.timing.elapsedMs() + this.#o.ttlMs / 3;
    }
  }

  async #handOver(shard: number, mine: Mine, to: string): Promise<void> {
    const { hands, log } = this.#o;
    mine.state = 'ending';
    await hands.end(shard, 'flush');
    const { epoch } = mine;
    const released = await this.#release(shard, epoch, to);
    this.#forget(shard, mine);
    if (released) log.info({ shard, epoch, to }, 'shard handed over');
    this.#wake();
  }

  async #lose(shard: number, mine: Mine, { owner, epoch }: LeaseRecord): Promise<void> {
    const { hands, log } = this.#o;
    mine.state = 'ending';
    log.warn({ shard, owner, epoch }, 'another process has taken the shard; it is given up');
    await hands.end(shard, 'drop');
    this.#forget(shard, mine);
    this.#wake();
  }

  /** The bucket has forgotten that the shard is ours. */
  async #restore(shard: number, mine: Mine): Promise<void> {
    const { name, instance, log } = this.#o;
    mine.state = 'taking';
    log.warn({ shard, epoch: mine.epoch }, 'the lease was lost with the bucket; writing it again');
    await this.#write(shard, { owner: name, instance, epoch: mine.epoch, successor: '' });
    if (this.#mine.get(shard) === mine) mine.state = 'counting';
  }

  #release(shard: number, epoch: number, successor: string): Promise<boolean> {
    return this.#write(shard, { owner: '', instance: '', epoch, successor });
  }

  /** Compare and set of a shard's entry; false when it was lost, or NATS did not answer. */
  async #write(shard: number, lease: LeaseRecord): Promise<boolean> {
    const { bucket, timing, log } = this.#o;
    const value = JSON.stringify(lease);
    try {
      const revision = await bucket.write(leaseKey(shard), value, this.#table.revision(shard) ?? 0);
      if (revision === null) return false;
      this.#table.set(leaseKey(shard), value, revision, timing.elapsedMs());
      return true;
    } catch (error) {
      log.debug({ error, shard }, 'a lease was not written');
      return false;
    }
  }

  #forget(shard: number, mine?: Mine): void {
    if (mine !== undefined && this.#mine.get(shard) !== mine) return;
    if (this.#mine.delete(shard)) this.#o.onEnd(shard);
  }

  #track(task: Promise<void>): void {
    this.#tasks.add(task);
    void task.finally(() => this.#tasks.delete(task));
  }
}
