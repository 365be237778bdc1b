/**
 * Packs admitted events into one open block a shard, and publishes blocks.
 *
 * A block is sent
 *   - when it is full (events or bytes): a broker costs per message, so full blocks are the cheap ones;
 *   - at the end of the turn of the event loop in which it was begun, if none of its shard's blocks is in
 *     flight: at low load an event waits for nothing. Requests read in the same turn share the block;
 *   - at the end of the turn in which the last block in flight of its shard is settled: under load the blocks
 *     grow by themselves to what comes in during one acknowledgement, with what this turn still reads;
 *   - where events come densely, not before as many requests are in it as share the shard: those of the block
 *     that was settled and those that waited meanwhile. Senders that wait for their answers would otherwise
 *     fall into two halves that take turns, and no block would hold more than one half. Few events, or one
 *     sender after another, never wait for this;
 *   - when its linger is over, whatever it waits for: no event waits longer for others than that.
 *
 * A request is done when every block that carries one of its events is settled: acknowledged, all of them,
 * or failed, at least one. A request is counted once a block it has events in, however many events those
 * are; there is no promise and no record an event.
 *
 * A correction goes to the shard of its original, whose identity is put into it here, where the key is: the log of that
 * shard has both, and so their order.
 *
 * Nearly all events are packed by the kernel (edge-kernel.ts), into open blocks of its own. Those that it does not take,
 * and all when there is none, go through the BlockBuilder, which is the reference: both make the same bytes of the same
 * events. A shard has an open block of either kind; before an event goes into one the other is sent, so that events stay
 * in the order in which they came.
 *
 * After a failure the events of the block may be in the log or not. The request is told so, nothing is
 * tried again here, and what its other blocks have stored stays: the sender repeats the whole request with
 * the same ids, and identities make that harmless.
 */
import { crc32 } from 'node:zlib';
import { HEADER } from '../contract/block.ts';
import { BlockBuilder } from '../contract/block-builder.ts';
import { BlockMemory } from '../contract/block-memory.ts';
import { ATTRIBUTES_KEPT, ID, SOURCE, type EventBatch } from '../contract/event-batch.ts';
import { IdentityHasher, ShardRule, formatIdentity } from '../contract/identity.ts';
import { RUN_DONE, RUN_FULL, RUN_PLACE, type EdgeKernel } from './edge-kernel.ts';

const ascii = new TextEncoder();
/**
 * Events of the block that was settled and of the open one from which on the open one waits for more. Measured at the
 * broker, an event in a block of 25 costs two to four times as much as in one of 200, and beyond that hardly less; in
 * the aggregator a block costs about 0.1 ms by itself. With fewer events the wait would cost more latency than it saves.
 */
const DENSE_EVENTS = 100;
/** The kernel knows a request by a number that is never 0. */
const MARK_LAST = 0x3fff_ffff;

export interface PackLimits {
  readonly blockEventsMax: number;
  /** A block is sent once it may have so many bytes: it has at most one event more. */
  readonly blockBytesMax: number;
  readonly lingerMs: number;
}

/** What the pack needs of the world. */
export interface PackPort {
  /** Resolves when the block is durable in the shard's log. */
  publish(shard: number, block: Uint8Array, events: number): Promise<unknown>;
  /** Epoch milliseconds. */
  now(): number;
  /** Runs it at the end of this turn of the event loop. */
  defer(run: () => void): void;
  /** Runs it after the time; the result calls it off. */
  after(ms: number, run: () => void): () => void;
}

/** One request's share in the blocks. */
export interface Ticket {
  /** Blocks not yet settled that carry events of the request. */
  pending: number;
  /** Why one of them failed. */
  failure: unknown;
  done: ((failure: unknown) => void) | null;
}

/** An open block. */
interface OpenBlock {
  readonly count: number;
  /** Encodes the block and begins the next one. */
  finish(acceptedAtMs: number): Uint8Array;
}

/** One shard's blocks of one kind. */
interface Shard<Block extends OpenBlock = OpenBlock> {
  readonly number: number;
  readonly builder: Block;
  /** Whose events are in the open block. */
  tickets: Ticket[];
  newest: Ticket | null;
  inFlight: number;
  /** Requests that share the shard as of the last settled block, and until when that is believed (epoch ms). */
  expected: number;
  expectedUntilMs: number;
  stopLinger: (() => void) | null;
  /** Whether the shard is in the list of those to look at when the turn ends. */
  touched: boolean;
}

export class Pack {
  readonly #port: PackPort;
  readonly #limits: PackLimits;
  readonly #hasher: IdentityHasher;
  readonly #rule: ShardRule;
  readonly #shards: Shard<BlockBuilder>[];
  readonly #kernel: EdgeKernel | null;
  /** As `#shards`, of the kernel's blocks; empty without one. */
  readonly #ofKernel: Shard[];
  /** An event was added past the kernel since its last one. */
  #isPast = false;
  #mark = 0;
  /** Of the event that is being added. */
  readonly #identity = new Uint32Array(4);
  #touched: Shard[] = [];

  /** @param o.kernel with the same shards, key and limits. */
  constructor(o: {
    shards: number;
    identityKey: string;
    limits: PackLimits;
    port: PackPort;
    kernel?: EdgeKernel | null;
  }) {
    this.#port = o.port;
    this.#limits = o.limits;
    this.#hasher = new IdentityHasher(o.identityKey);
    this.#rule = new ShardRule(o.shards);
    const kernel = o.kernel ?? null;
    const memory = new BlockMemory();
    const shardsOf = <Block extends OpenBlock>(begin: (number: number) => Block): Shard<Block>[] =>
      Array.from({ length: o.shards }, (_, number) => ({
        number,
        builder: begin(number),
        tickets: [],
        newest: null,
        inFlight: 0,
        expected: 0,
        expectedUntilMs: 0,
        stopLinger: null,
        touched: false,
      }));
    this.#shards = shardsOf(() => new BlockBuilder(memory));
    this.#kernel = kernel;
    this.#ofKernel = kernel === null ? [] : shardsOf((number) => new KernelBlock(kernel, number, memory));
  }

  /** Blocks on their way to the log. */
  get inFlight(): number {
    const inFlight = (sum: number, shard: Shard): number => sum + shard.inFlight;
    return this.#shards.reduce(inFlight, 0) + this.#ofKernel.reduce(inFlight, 0);
  }

  /** Begins a request: its events are added before another request's. */
  begin(): Ticket {
    return { pending: 0, failure: null, done: null };
  }

  /** Copies all events of the batch in. */
  addAll(ticket: Ticket, batch: EventBatch): void {
    const { count } = batch;
    const kernel = this.#kernel;
    if (kernel === null || batch.corrections > 0 || !kernel.turnTo(batch)) {
      for (let event = 0; event < count; event++) this.add(ticket, batch, event);
      return;
    }
    const { exports } = kernel;
    this.#mark = this.#mark === MARK_LAST ? 1 : this.#mark + 1;
    exports.identify(0, count);
    let event = 0;
    while (event < count) {
      if (this.#isPast) this.#sendPast();
      event = exports.addRun(event, count, batch.bodies, this.#mark);
      const reason = kernel.resultWord(0);
      const about = kernel.resultWord(1);
      const joined = kernel.resultWord(2);
      for (let at = 0; at < joined; at++) {
        const shard = this.#ofKernel[kernel.u32[kernel.touched / 4 + at]!]!;
        this.#join(shard, ticket);
        this.#touch(shard);
      }
      if (reason === RUN_FULL) this.#send(this.#ofKernel[about]!);
      else if (reason === RUN_PLACE) kernel.learnPlace(batch.paths, about);
      else if (reason !== RUN_DONE) this.add(ticket, batch, event++);
    }
  }

  /** Copies the event in, past the kernel. */
  add(ticket: Ticket, batch: EventBatch, event: number): void {
    const identity = this.#identity;
    this.#hasher.turnTo(batch.tenant);
    const isCorrection = batch.corrections > 0 && batch.corrects[event] === 1;
    const shard = this.#shards[isCorrection ? this.#correct(batch, event) : this.#identify(batch, event)]!;
    const { builder } = shard;
    if (this.#kernel !== null) {
      this.#isPast = true;
      const other = this.#ofKernel[shard.number]!;
      if (other.builder.count > 0) this.#send(other);
    }
    builder.add(batch, event, identity);
    this.#join(shard, ticket);
    if (
      builder.count >= this.#limits.blockEventsMax ||
      builder.estimatedBytes >= this.#limits.blockBytesMax
    ) {
      this.#send(shard);
    } else this.#touch(shard);
  }

  /** The open block of the shard has an event of the request. */
  #join(shard: Shard, ticket: Ticket): void {
    if (shard.newest === ticket) return;
    shard.newest = ticket;
    shard.tickets.push(ticket);
    ticket.pending += 1;
  }

  /** The shard is looked at when the turn ends. */
  #touch(shard: Shard): void {
    if (shard.touched) return;
    shard.touched = true;
    if (this.#touched.push(shard) === 1) this.#port.defer(() => this.#endTurn());
  }

  /** Sends what was added past the kernel. */
  #sendPast(): void {
    this.#isPast = false;
    for (const shard of this.#shards) if (shard.builder.count > 0) this.#send(shard);
  }

  /** Sets the identity of the event and returns its shard. */
  #identify({ view, start, end }: EventBatch, event: number): number {
    const source = event * ATTRIBUTES_KEPT + SOURCE;
    const id = event * ATTRIBUTES_KEPT + ID;
    const identity = this.#identity;
    this.#hasher.hash(view, start[source]!, end[source]!, start[id]!, end[id]!, identity);
    return this.#rule.of(identity);
  }

  /** The same for a correction. Writes the identity of its original into the last of its fields. */
  #correct(batch: EventBatch, event: number): number {
    const { view, start, end, textStart, textEnd } = batch;
    const source = event * ATTRIBUTES_KEPT + SOURCE;
    const id = event * ATTRIBUTES_KEPT + ID;
    const [from, to] = [start[source]!, end[source]!];
    const target = batch.fieldStart[event + 1]! - 1;
    const [originalStart, originalEnd] = [textStart[target - 1]!, textEnd[target - 1]!];
    const identity = this.#identity;
    this.#hasher.hash(view, from, to, originalStart, originalEnd, identity);
    const shard = this.#rule.of(identity);
    batch.bytes.set(ascii.encode(formatIdentity(identity)), textStart[target]!);
    this.#hasher.hashCorrection(view, from, to, originalStart, originalEnd, start[id]!, end[id]!, identity);
    return shard;
  }

  /**
   * Ends a request. `done` is called once, when all its blocks are settled, with null or the reason of a
   * failure; at once when it added nothing.
   */
  end(ticket: Ticket, done: (failure: unknown) => void): void {
    if (ticket.pending === 0) done(ticket.failure);
    else ticket.done = done;
  }

  /** Sends whatever is open, for a stop. */
  flush(): void {
    for (const shard of this.#shards) if (shard.builder.count > 0) this.#send(shard);
    for (const shard of this.#ofKernel) if (shard.builder.count > 0) this.#send(shard);
  }

  #endTurn(): void {
    const touched = this.#touched;
    this.#touched = [];
    for (const shard of touched) {
      shard.touched = false;
      if (shard.builder.count === 0) continue;
      if (shard.inFlight === 0 && !this.#expectsMore(shard)) this.#send(shard);
      else shard.stopLinger ??= this.#port.after(this.#limits.lingerMs, () => this.#send(shard));
    }
  }

  /** Whether other requests are about to join those of the open block. */
  #expectsMore(shard: Shard): boolean {
    return shard.tickets.length < shard.expected && this.#port.now() < shard.expectedUntilMs;
  }

  #send(shard: Shard): void {
    shard.stopLinger?.();
    shard.stopLinger = null;
    const { tickets } = shard;
    shard.tickets = [];
    shard.newest = null;
    const events = shard.builder.count;
    const block = shard.builder.finish(this.#port.now());
    shard.inFlight += 1;
    shard.expected = 0;
    this.#port.publish(shard.number, block, events).then(
      () => this.#settle(shard, events, tickets, null),
      (error: unknown) => this.#settle(shard, events, tickets, error ?? new Error('publish failed')),
    );
  }

  /** Nothing of the shard is in flight any more: what waits goes when this turn ends, unless more is expected. */
  #openGate(shard: Shard, events: number, settled: readonly Ticket[]): void {
    const waiting = shard.tickets;
    const count = shard.builder.count;
    if (events + count >= DENSE_EVENTS) {
      // A request larger than a block has events in both, and its sender waits for them.
      const inBoth = waiting.length > 0 && settled.at(-1) === waiting[0] ? 1 : 0;
      shard.expected = settled.length + waiting.length - inBoth;
      shard.expectedUntilMs = this.#port.now() + this.#limits.lingerMs;
    }
    if (count > 0) this.#touch(shard);
  }

  #settle(shard: Shard, events: number, tickets: readonly Ticket[], failure: unknown): void {
    shard.inFlight -= 1;
    if (shard.inFlight === 0) this.#openGate(shard, events, tickets);
    for (const ticket of tickets) {
      ticket.pending -= 1;
      ticket.failure ??= failure;
      if (ticket.pending === 0) ticket.done?.(ticket.failure);
    }
  }
}

/** The open block of one shard in the memory of the kernel. */
class KernelBlock implements OpenBlock {
  readonly #kernel: EdgeKernel;
  readonly #shard: number;
  readonly #memory: BlockMemory;

  constructor(kernel: EdgeKernel, shard: number, memory: BlockMemory) {
    this.#kernel = kernel;
    this.#shard = shard;
    this.#memory = memory;
  }

  get count(): number {
    return this.#kernel.count(this.#shard);
  }

  finish(acceptedAtMs: number): Uint8Array {
    const { exports, out, u8 } = this.#kernel;
    const length = exports.finishBlock(this.#shard, acceptedAtMs);
    const memory = this.#memory;
    const begin = memory.take(length);
    memory.u8.set(u8.subarray(out, out + length), begin);
    const block = new Uint8Array(memory.u8.buffer, begin, length);
    memory.u32[(begin + HEADER.crc) / 4] = crc32(block.subarray(HEADER.events));
    return block;
  }
}
