import { describe, expect, test } from 'vitest';
import { BlockError } from '../contract/block.ts';
import { BlockBuilder } from '../contract/block-builder.ts';
import { PATH_AMENDS, PATH_TARGET, PATH_VOIDS, TYPE_VOID } from '../contract/corrections.ts';
import { EventBatch } from '../contract/event-batch.ts';
import { IdentityHasher } from '../contract/identity.ts';
import type { Meter } from '../contract/meter.ts';
import { formatQuantity, quantityOf } from '../contract/quantity.ts';
import { addAll, batchOf } from '../test/event-batch.ts';
import { bucketParts } from './bucket.ts';
import { Preparer, REFUSALS, WIDE, type Prepared } from './prepare.ts';
import { metersInForce } from './registry.ts';
import type { RollupKey } from './rollup-key.ts';

interface Sent {
  readonly tenant?: string;
  readonly type?: string;
  readonly subject?: string;
  readonly timeMs?: number;
  readonly data: Record<string, unknown>;
}

const HOUR = 1_767_225_600; // 2026-01-01T00:00:00Z

function blockOf(events: readonly Sent[]): Uint8Array<ArrayBuffer> {
  const builder = new BlockBuilder();
  const batch = new EventBatch();
  const hasher = new IdentityHasher('000102030405060708090a0b0c0d0e0f');
  events.forEach((sent, at) => {
    const event = {
      id: `e${at}`,
      type: sent.type ?? 'call',
      subject: sent.subject ?? 'ann',
      time: new Date(sent.timeMs ?? HOUR * 1_000).toISOString(),
      data: sent.data,
    };
    addAll(builder, batchOf(sent.tenant ?? 'acme', [event], batch), hasher);
  });
  return builder.finish(0);
}

const sum = (over: Partial<Meter> = {}): Meter => ({
  key: 'tokens',
  eventType: 'call',
  aggregation: 'sum',
  valueProperty: 'tokens',
  groupBy: [],
  ...over,
});
const count: Meter = { ...sum(), key: 'calls', aggregation: 'count', valueProperty: null };

const preparer = new Preparer('000102030405060708090a0b0c0d0e0f');

/** A key of the block, as texts. */
function keyOf({ tenants, contributions }: Prepared, key: number): RollupKey {
  const { buckets, meters, keyBucket, keyMeter } = contributions;
  const bucket = keyBucket[key]!;
  return {
    tenant: tenants[buckets.tenant[bucket]!]!,
    meter: meters[keyMeter[key]!]!,
    ...bucketParts(buckets.bytes, buckets.start[bucket]!),
  };
}

/** Each event's contributions as `meter subject [dimensions] = value`, or the code that refuses it. */
function told(prepared: Prepared): (string | readonly string[])[] {
  const { contributions, refused } = prepared;
  return Array.from(refused, (code, at) => {
    if (code !== 0) {
      expect(contributions.start[at + 1]).toBe(contributions.start[at]);
      return REFUSALS[code - 1]!;
    }
    const lines: string[] = [];
    for (let one = contributions.start[at]!; one < contributions.start[at + 1]!; one++) {
      const key = keyOf(prepared, contributions.key[one]!);
      const [mantissa, scale] = [contributions.mantissa[one]!, contributions.scale[one]!];
      const value = scale === WIDE ? contributions.wide[mantissa]! : quantityOf(mantissa, scale);
      const by = key.dimensions.length === 0 ? '' : ` [${key.dimensions.join('|')}]`;
      const hour = key.hourSeconds === HOUR ? '' : ` +${(key.hourSeconds - HOUR) / 3_600}h`;
      lines.push(`${key.tenant} ${key.meter} ${key.subject}${by}${hour} = ${formatQuantity(value)}`);
    }
    return lines;
  });
}

function check(meters: readonly Meter[], events: readonly Sent[], expected: readonly (string | string[])[]) {
  const inForce = metersInForce(meters.map((meter) => ({ tenant: 'acme', meter })));
  expect(told(preparer.prepare(blockOf(events), inForce))).toEqual(expected);
}

describe('prepare', () => {
  test('an event contributes to every meter of its tenant and type, and to no other', () => {
    check(
      [sum(), count, sum({ key: 'other', eventType: 'upload' })],
      [
        { data: { tokens: 5 } },
        { data: { tokens: 7 }, type: 'chat' },
        { data: { tokens: 9 }, tenant: 'rival' },
        { data: { tokens: 11 }, subject: 'bob' },
      ],
      [['acme tokens ann = 5', 'acme calls ann = 1'], [], [], ['acme tokens bob = 11', 'acme calls bob = 1']],
    );
  });

  test('values are exact, whether a number or text', () => {
    check(
      [sum()],
      [
        { data: { tokens: 0.1 } },
        { data: { tokens: '0.1' } },
        { data: { tokens: -3 } },
        { data: { tokens: '999999999999999999.999999999' } },
        { data: { tokens: Number.MAX_SAFE_INTEGER } },
      ],
      [
        ['acme tokens ann = 0.1'],
        ['acme tokens ann = 0.1'],
        ['acme tokens ann = -3'],
        ['acme tokens ann = 999999999999999999.999999999'],
        ['acme tokens ann = 9007199254740991'],
      ],
    );
  });

  test('a value that a meter cannot take refuses the event whole', () => {
    check(
      [count, sum()],
      [
        { data: {} },
        { data: { tokens: null } },
        { data: { tokens: true } },
        { data: { tokens: [1] } },
        { data: { tokens: 'many' } },
        { data: { tokens: '1e3' } },
        { data: { tokens: '0.1234567891' } },
        { data: { tokens: '1000000000000000000' } },
        { data: { tokens: 1 } },
      ],
      [
        'meter_value_missing',
        'meter_value_missing',
        'meter_value_not_a_number',
        'meter_value_not_a_number',
        'meter_value_not_a_number',
        'meter_value_not_a_number',
        'meter_value_out_of_range',
        'meter_value_out_of_range',
        ['acme calls ann = 1', 'acme tokens ann = 1'],
      ],
    );
  });

  test('dimensions stand in the order of groupBy, as text, empty where they are missing', () => {
    check(
      [sum({ groupBy: ['region', 'model.name'] }), { ...count, groupBy: ['region'] }],
      [
        { data: { tokens: 1, region: 'eu', model: { name: 'm1' } } },
        { data: { tokens: 2, model: { name: 7.5 }, region: true } },
        { data: { tokens: 3 } },
        { data: { tokens: 4, region: '' } },
        { data: { tokens: 5, region: '7', model: { name: '7.5' } } },
      ],
      [
        ['acme tokens ann [eu|m1] = 1', 'acme calls ann [eu] = 1'],
        ['acme tokens ann [true|7.5] = 2', 'acme calls ann [true] = 1'],
        ['acme tokens ann [|] = 3', 'acme calls ann [] = 1'],
        ['acme tokens ann [|] = 4', 'acme calls ann [] = 1'],
        ['acme tokens ann [7|7.5] = 5', 'acme calls ann [7] = 1'],
      ],
    );
  });

  test('a dimension is cut to 256 characters, counted as characters', () => {
    const long = '😀'.repeat(300);
    const inForce = metersInForce([{ tenant: 'acme', meter: { ...count, groupBy: ['name'] } }]);
    const prepared = preparer.prepare(blockOf([{ data: { name: long } }]), inForce);
    expect(keyOf(prepared, 0).dimensions).toEqual(['😀'.repeat(256)]);
  });

  test('hours are half-open and a key stands once a block', () => {
    const at = HOUR * 1_000;
    const events = [at, at + 3_599_999, at + 3_600_000].map((timeMs) => ({ timeMs, data: { tokens: 1 } }));
    check([sum()], events, [['acme tokens ann = 1'], ['acme tokens ann = 1'], ['acme tokens ann +1h = 1']]);
    const inForce = metersInForce([{ tenant: 'acme', meter: sum() }]);
    expect(preparer.prepare(blockOf(events), inForce).contributions.keyBucket).toHaveLength(2);
  });

  test('texts that hold quotes, zeros and separators make keys of their own', () => {
    const odd = ['a"b', 'a\\', 'a\u0000b', 'a,b', '[', 'é'];
    const inForce = metersInForce([{ tenant: 'acme', meter: { ...count, groupBy: ['x'] } }]);
    const events = odd.flatMap((subject) => odd.map((x) => ({ subject, data: { x } })));
    const prepared = preparer.prepare(blockOf(events), inForce);
    const keys = Array.from(prepared.contributions.keyBucket, (_, key) => keyOf(prepared, key));
    expect(keys.map(({ subject, dimensions }) => [subject, ...dimensions])).toEqual(
      events.map(({ subject, data }) => [subject, data.x]),
    );
  });

  test('more contributions than were foreseen fit', () => {
    const meters = Array.from({ length: 40 }, (_, at) => ({ ...count, key: `m${at}` }));
    const events = Array.from({ length: 50 }, () => ({ data: {} }));
    const inForce = metersInForce(meters.map((meter) => ({ tenant: 'acme', meter })));
    const { contributions } = preparer.prepare(blockOf(events), inForce);
    expect(contributions.key).toHaveLength(2_000);
    expect(contributions.keyBucket).toHaveLength(40);
    expect(contributions.buckets.count).toBe(1);
    expect(contributions.mantissa.every((value) => value === 1)).toBe(true);
  });

  test('a message that is no sound block is an error with a reason, not a guess', () => {
    const none = metersInForce([]);
    const flipped = blockOf([{ data: { tokens: 1 } }]);
    flipped[100]! ^= 1;
    expect(() => preparer.prepare(flipped, none)).toThrow(BlockError);
    expect(() => preparer.prepare(new Uint8Array(10), none)).toThrow(BlockError);
    const far = blockOf([{ data: {}, timeMs: 2 ** 32 * 1_000 }]);
    expect(() => preparer.prepare(far, none)).toThrow('a time');
  });
});

describe('corrections', () => {
  const target = '00112233-4455-6677-8899-aabbccddeeff';
  const events: Sent[] = [
    { data: { tokens: 1 } },
    { type: TYPE_VOID, data: { [PATH_VOIDS]: 'e0', [PATH_TARGET]: target } },
    { data: { tokens: 2, [PATH_AMENDS]: 'e0', [PATH_TARGET]: target } },
    { data: { tokens: 3, [PATH_AMENDS]: 'e0', [PATH_TARGET]: target.slice(1) } },
    { data: { tokens: 4, [PATH_AMENDS]: 'e0', [PATH_TARGET]: 5 } },
    { data: { [PATH_AMENDS]: 'e0', [PATH_TARGET]: target } },
  ];

  test('are told with their targets; an amendment contributes, a void does not', () => {
    const prepared = preparer.prepare(blockOf(events), metersInForce([{ tenant: 'acme', meter: sum() }]));
    expect(prepared.corrections!.events).toEqual([1, 2]);
    const words = [0x00112233, 0x44556677, 0x8899aabb, 0xccddeeff];
    expect([...prepared.corrections!.targets]).toEqual([...words, ...words]);
    expect(Array.from(prepared.refused, (code) => (code === 0 ? '' : REFUSALS[code - 1]))).toEqual([
      ...['', '', '', 'correction_target_unknown', 'correction_target_unknown'],
      'meter_value_missing',
    ]);
    const { start } = prepared.contributions;
    expect([start[1]! - start[0]!, start[2]! - start[1]!, start[3]! - start[2]!]).toEqual([1, 0, 1]);
  });

  test('a block that has none says so, also when a path is as long as theirs', () => {
    const block = blockOf([{ data: { tokens: 1, ['x'.repeat(PATH_TARGET.length)]: target } }]);
    expect(preparer.prepare(block, metersInForce([])).corrections).toBeNull();
  });
});
