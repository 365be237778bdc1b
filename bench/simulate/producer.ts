/** What producers send through an edge: blocks of events, meter definitions, and now and then rubbish. */
import { BlockBuilder } from '../../contract/block-builder.ts';
import { encodeMeterDefined, type MeterDefined } from '../../contract/control.ts';
import { ATTRIBUTES_KEPT, EventBatch, ID, SOURCE, SUBJECT, TYPE } from '../../contract/event-batch.ts';
import { FIELD_NUMBER, FIELD_TEXT } from '../../contract/fields.ts';
import { IdentityHasher, ShardRule } from '../../contract/identity.ts';
import type { Meter } from '../../contract/meter.ts';
import { PathTable } from '../../contract/path-table.ts';
import { HOUR_MS } from '../../contract/window.ts';
import type { Dice } from './dice.ts';

/** A number as its decimal text and whether it is sent as text. */
export interface Value {
  readonly text: string;
  readonly isText: boolean;
}

export interface SentEvent {
  readonly tenant: string;
  readonly id: string;
  readonly type: string;
  readonly subject: string;
  readonly timeMs: number;
  readonly data: Readonly<Record<string, Value>>;
}

/** A message as a producer has it, to be published again when it was lost. */
export interface Publication {
  readonly what: string;
  readonly shard: number;
  readonly message: Uint8Array;
  readonly events: readonly SentEvent[];
  readonly defined: MeterDefined | null;
}

const IDENTITY_KEY = '000102030405060708090a0b0c0d0e0f';
/** Two hours before the end of a month. */
const START_MS = Date.UTC(2026, 9, 31, 22);

const meter = (key: string, aggregation: Meter['aggregation'], groupBy: readonly string[]): Meter => ({
  key,
  eventType: 'llm',
  aggregation,
  valueProperty: aggregation === 'count' ? null : 'tokens',
  groupBy,
});
const METERS: readonly MeterDefined[] = [
  { tenant: 'acme', meter: meter('requests', 'count', []) },
  { tenant: 'acme', meter: meter('tokens', 'sum', ['model']) },
  { tenant: 'rival', meter: meter('peak', 'max', ['model', 'region']) },
  { tenant: 'rival', meter: meter('newest', 'latest', []) },
  // The same key with another meaning, which comes too late.
  { tenant: 'acme', meter: meter('tokens', 'max', []) },
];

// Scratch memory of the thread: an event leaves nothing in it.
const encoder = new TextEncoder();
const hasher = new IdentityHasher(IDENTITY_KEY);
const builder = new BlockBuilder();
const batch = new EventBatch();
const identity = new Uint32Array(4);
const body = new Uint8Array(65_536);

export class Producer {
  readonly #dice: Dice;
  readonly #rule: ShardRule;
  readonly #shards: number;
  /** Events that were published, each once. */
  readonly past: SentEvent[] = [];
  #nextId = 0;
  #defined = 0;

  constructor(dice: Dice, shards: number) {
    this.#dice = dice;
    this.#shards = shards;
    this.#rule = new ShardRule(shards);
  }

  /** A block for each shard that has any of up to so many events. */
  some(most: number): Publication[] {
    const dice = this.#dice;
    const events = Array.from({ length: dice.between(1, most) }, () => this.#event());
    return this.blocksOf(events);
  }

  blocksOf(events: readonly SentEvent[]): Publication[] {
    const byShard = Array.from({ length: this.#shards }, (): SentEvent[] => []);
    for (const event of events) byShard[shardOf(event, this.#rule)]!.push(event);
    return byShard.flatMap((own, shard) =>
      own.length === 0
        ? []
        : [
            {
              what: `block of ${own.map(({ tenant, id }) => `${tenant}/${id}`).join(' ')}`,
              shard,
              message: encodeBlock(own, START_MS),
              events: own,
              defined: null,
            },
          ],
    );
  }

  /** The next definition, for every shard; again and again the first ones when there is no new one. */
  meter(): Publication[] {
    const defined = METERS[this.#defined++ % METERS.length]!;
    const what = `meter ${defined.tenant}/${defined.meter.key}`;
    return Array.from({ length: this.#shards }, (_, shard) => ({
      what,
      shard,
      message: encodeMeterDefined(defined),
      events: [],
      defined,
    }));
  }

  /** Bytes that are no message of ours, or a block with one flipped bit. */
  rubbish(): Publication[] {
    const dice = this.#dice;
    const shard = dice.below(this.#shards);
    const message = dice.chance(0.5)
      ? Uint8Array.from({ length: dice.between(0, 40) }, () => dice.below(256))
      : encodeBlock([this.#fresh()], START_MS);
    if (message.length > 0) message[message.length - 1]! ^= 0x10;
    return [{ what: 'rubbish', shard, message, events: [], defined: null }];
  }

  #event(): SentEvent {
    const dice = this.#dice;
    const { past } = this;
    if (past.length > 0) {
      const throwOf = dice.below(100);
      if (throwOf < 25) return dice.oneOf(past);
      // The same id says something else.
      if (throwOf < 29) return { ...dice.oneOf(past), subject: 'somebody else' };
      if (throwOf < 32) return { ...dice.oneOf(past), data: this.#data() };
      if (throwOf < 34) return { ...dice.oneOf(past), timeMs: START_MS + dice.below(4) * HOUR_MS };
    }
    const event = this.#fresh();
    past.push(event);
    return event;
  }

  #fresh(): SentEvent {
    const dice = this.#dice;
    return {
      tenant: dice.chance(0.3) ? 'rival' : 'acme',
      id: `e${this.#nextId++}`,
      type: dice.chance(0.1) ? 'upload' : 'llm',
      subject: `customer-${dice.below(2)}`,
      // Few instants, so that the latest of several is decided by the log.
      timeMs: START_MS + dice.below(3) * HOUR_MS + dice.below(3) * 1_000,
      data: this.#data(),
    };
  }

  #data(): Record<string, Value> {
    const dice = this.#dice;
    const throwOf = dice.below(20);
    return {
      model: { text: `m${dice.below(2)}`, isText: true },
      ...(throwOf === 0 ? {} : { tokens: throwOf === 1 ? { text: 'lots', isText: true } : this.#value() }),
      ...(dice.chance(0.5) ? { region: { text: 'eu', isText: true } } : {}),
    };
  }

  #value(): Value {
    const dice = this.#dice;
    switch (dice.below(5)) {
      case 0:
        return { text: `${dice.below(9)}.${1 + dice.below(8)}`, isText: true };
      case 1:
        return { text: '0.000000001', isText: false };
      case 2:
        // Twice this is beyond a safe integer of nano units: the row goes on in bigints.
        return { text: '6000000.000000001', isText: true };
      case 3:
        return { text: `-${1 + dice.below(50)}`, isText: false };
      default:
        return { text: String(dice.below(5_000)), isText: false };
    }
  }
}

function shardOf({ tenant, id }: SentEvent, rule: ShardRule): number {
  const bytes = encoder.encode(`${id}\0\0\0\0`);
  hasher.turnTo(encoder.encode(tenant));
  hasher.hash(new DataView(bytes.buffer), 0, 0, 0, bytes.length - 4, identity);
  return rule.of(identity);
}

function encodeBlock(events: readonly SentEvent[], acceptedAtMs: number): Uint8Array<ArrayBuffer> {
  for (const event of events) {
    fill(event);
    hasher.turnTo(batch.tenant);
    const { view, start, end } = batch;
    hasher.hash(view, start[SOURCE]!, end[SOURCE]!, start[ID]!, end[ID]!, identity);
    builder.add(batch, 0, identity);
  }
  // Its memory is used again for the next block.
  return builder.finish(acceptedAtMs).slice();
}

/** The event alone in the batch, as the body of a request would be read. */
function fill({ tenant, id, type, subject, timeMs, data }: SentEvent): void {
  let length = 0;
  const place = (text: string): [number, number] => {
    const from = length;
    length += encoder.encodeInto(text, body.subarray(length)).written;
    return [from, length];
  };
  const attributes = [id, '', type, subject].map(place);
  const texts = Object.values(data).map(({ text, isText }) => place(isText ? text : ''));
  batch.reset(body.subarray(0, length), encoder.encode(tenant));
  [ID, SOURCE, TYPE, SUBJECT].forEach((which, at) => {
    [batch.start[which], batch.end[which]] = attributes[at]!;
  });
  batch.start.fill(0, ATTRIBUTES_KEPT);
  batch.timeMs[0] = timeMs;
  batch.timeGiven[0] = 1;
  Object.entries(data).forEach(([name, { text, isText }], at) => {
    const key = encoder.encode(name);
    const path = batch.paths.child(PathTable.ROOT, key, 0, key.length);
    const [from, to] = texts[at]!;
    if (isText) return batch.addField(path, FIELD_TEXT, 0, 0, from, to);
    const scale = text.split('.')[1]?.length ?? 0;
    batch.addField(path, FIELD_NUMBER, scale, Number(text.replace('.', '')), 0, 0);
  });
  batch.commit();
}
