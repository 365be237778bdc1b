/** What producers send through an edge: blocks of events and corrections, meter definitions, and now and then rubbish. */
import { BlockBuilder } from '../../contract/block-builder.ts';
import { encodeMeterDefined, type MeterDefined } from '../../contract/control.ts';
import { PATH_AMENDS, PATH_TARGET, PATH_VOIDS, TYPE_VOID } from '../../contract/corrections.ts';
import { ATTRIBUTES_KEPT, EventBatch, ID, SOURCE, SUBJECT, TYPE } from '../../contract/event-batch.ts';
import { FIELD_NUMBER, FIELD_TEXT } from '../../contract/fields.ts';
import { formatIdentity, IdentityHasher, ShardRule } from '../../contract/identity.ts';
import type { Meter, MeterFilter } from '../../contract/meter.ts';
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
  /** Of a correction, the id of the original; null for an event. */
  readonly corrects: string | null;
}

/** What says which event it is, of the tenants' events and corrections: a correction has an identity of its own. */
export function nameOf({ tenant, id, corrects }: Pick<SentEvent, 'tenant' | 'id' | 'corrects'>): string {
  return corrects === null ? `${tenant}/${id}` : `${tenant}/${corrects}<${id}`;
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
function metersOf(dice: Dice): MeterDefined[] {
  // Groups of an hour: as many as there are, or fewer rows than groups.
  const groupsMax = dice.oneOf([1, 2, 100]);
  const filters: MeterFilter[] = [{ property: 'region', in: ['eu'] }];
  return [
    { tenant: 'acme', meter: meter('requests', 'count', []) },
    { tenant: 'acme', meter: { ...meter('tokens', 'sum', ['model']), groupsMax } },
    { tenant: 'rival', meter: { ...meter('peak', 'max', ['model', 'region']), groupsMax } },
    { tenant: 'rival', meter: meter('newest', 'latest', []) },
    // The same key with another meaning, which comes too late.
    { tenant: 'acme', meter: meter('tokens', 'max', []) },
    { tenant: 'acme', meter: { ...meter('european', 'sum', ['model']), filters, groupsMax } },
  ];
}

// Scratch memory of the thread: an event leaves nothing in it.
const encoder = new TextEncoder();
const hasher = new IdentityHasher(IDENTITY_KEY);
const builder = new BlockBuilder();
const batch = new EventBatch();
const identity = new Uint32Array(4);
const body = new Uint8Array(65_536);
const BODY_VIEW = new DataView(body.buffer);
/** Behind the event: the id of the original that a correction names. */
const ORIGINAL_AT = 60_000;

export class Producer {
  readonly #dice: Dice;
  readonly #rule: ShardRule;
  readonly #shards: number;
  /** Events that were published, each once. */
  readonly past: SentEvent[] = [];
  #nextId = 0;
  #defined = 0;

  readonly #corrects: boolean;
  readonly #meters: readonly MeterDefined[];

  /** @param corrects whether it ever sends a correction. */
  constructor(dice: Dice, shards: number, corrects: boolean) {
    this.#corrects = corrects;
    this.#meters = metersOf(dice);
    this.#defined = dice.below(this.#meters.length);
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
    for (const event of events) byShard[this.#shardOf(event)]!.push(event);
    return byShard.flatMap((own, shard) =>
      own.length === 0
        ? []
        : [
            {
              what: `block of ${own.map(nameOf).join(' ')}`,
              shard,
              message: encodeBlock(own, START_MS),
              events: own,
              defined: null,
            },
          ],
    );
  }

  /** A correction goes where its original is. */
  #shardOf({ tenant, id, corrects }: SentEvent): number {
    return this.#shards === 1 ? 0 : this.#rule.of(identityOf({ tenant, id: corrects ?? id }));
  }

  /** The next definition, for every shard; again from the first one when there is no new one. */
  meter(): Publication[] {
    const defined = this.#meters[this.#defined++ % this.#meters.length]!;
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
      const one = dice.oneOf(past);
      if (throwOf < 25) return one;
      // The same id says something else.
      if (throwOf < 29) return { ...one, subject: 'somebody else' };
      if (throwOf < 32) return { ...one, data: { ...one.data, ...this.#data() } };
      if (throwOf < 34) return { ...one, timeMs: START_MS + dice.below(4) * HOUR_MS };
      if (throwOf < 50 && this.#corrects) {
        const correction = this.#correction(one);
        past.push(correction);
        return correction;
      }
    }
    const event = this.#fresh();
    past.push(event);
    return event;
  }

  /** Of that event, or of the original that it corrects; now and then of one that nobody has sent, yet. */
  #correction({ tenant, id, corrects }: SentEvent): SentEvent {
    const dice = this.#dice;
    const original = dice.chance(0.1) ? `e${this.#nextId + dice.below(3)}` : (corrects ?? id);
    const isVoid = dice.chance(0.5);
    const event = this.#fresh();
    const text = (value: string): Value => ({ text: value, isText: true });
    const target = text(formatIdentity(identityOf({ tenant, id: original })));
    return {
      ...event,
      tenant,
      // Its own id may be an event's: they have nothing to do with each other.
      id: dice.chance(0.2) ? original : `c${event.id}`,
      corrects: original,
      ...(isVoid ? { type: TYPE_VOID, subject: '' } : {}),
      data: isVoid
        ? { [PATH_VOIDS]: text(original), [PATH_TARGET]: target }
        : { ...event.data, [PATH_AMENDS]: text(original), [PATH_TARGET]: target },
    };
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
      corrects: null,
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

/** Of an event, in memory that the next call uses again. */
function identityOf({ tenant, id }: { readonly tenant: string; readonly id: string }): Uint32Array {
  const bytes = encoder.encode(`${id}\0\0\0\0`);
  hasher.turnTo(encoder.encode(tenant));
  hasher.hash(new DataView(bytes.buffer), 0, 0, 0, bytes.length - 4, identity);
  return identity;
}

function encodeBlock(events: readonly SentEvent[], acceptedAtMs: number): Uint8Array<ArrayBuffer> {
  for (const event of events) {
    fill(event);
    hasher.turnTo(batch.tenant);
    const { view, start, end } = batch;
    const [source, sourceEnd, id, idEnd] = [start[SOURCE]!, end[SOURCE]!, start[ID]!, end[ID]!];
    if (event.corrects === null) hasher.hash(view, source, sourceEnd, id, idEnd, identity);
    else {
      const original = encoder.encode(event.corrects);
      body.set(original, ORIGINAL_AT);
      const originalEnd = ORIGINAL_AT + original.length;
      hasher.hashCorrection(BODY_VIEW, source, sourceEnd, ORIGINAL_AT, originalEnd, id, idEnd, identity);
    }
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
