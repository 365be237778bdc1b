import fc from 'fast-check';
import { expect, test } from 'vitest';
import { BlockError, messageKind } from './block.ts';
import {
  decodeBackfillChanged,
  decodeMeterDefined,
  encodeBackfillChanged,
  encodeMeterDefined,
  parseMeterRecord,
  type BackfillChanged,
  type MeterDefined,
} from './control.ts';
import { AGGREGATIONS, type Meter } from './meter.ts';
import { MESSAGE_BACKFILL, MESSAGE_METER } from './subjects.ts';

const meter: Meter = {
  key: 'input_tokens',
  eventType: 'llm.request',
  aggregation: 'sum',
  valueProperty: 'usage.input',
  groupBy: ['model', 'region'],
};
const message: MeterDefined = { tenant: 'acme', meter };

const anyMeter: fc.Arbitrary<Meter> = fc
  .record({
    key: fc.stringMatching(/^[a-z][a-z0-9_]{0,20}$/),
    eventType: fc.string({ unit: 'grapheme', minLength: 1, maxLength: 30 }),
    aggregation: fc.constantFrom(...AGGREGATIONS),
    value: fc.string({ minLength: 1, maxLength: 20 }),
    groupBy: fc.uniqueArray(
      fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 }).filter((path) => path !== 'subject'),
      { maxLength: 8 },
    ),
  })
  .map(({ value, ...rest }) => ({ ...rest, valueProperty: rest.aggregation === 'count' ? null : value }));

test('a definition is written and read back', () => {
  fc.assert(
    fc.property(anyMeter, (one) => {
      const bytes = encodeMeterDefined({ tenant: 'acme', meter: one });
      expect(messageKind(bytes)).toBe(MESSAGE_METER);
      expect(decodeMeterDefined(bytes)).toEqual({ tenant: 'acme', meter: one });
    }),
  );
});

test('a definition with any one bit flipped is not read as one', () => {
  const bytes = encodeMeterDefined(message);
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    bytes[bit >> 3]! ^= 1 << (bit & 7);
    const isDefinition = messageKind(bytes) === MESSAGE_METER;
    if (isDefinition) expect(() => decodeMeterDefined(bytes), `bit ${bit}`).toThrow(BlockError);
    bytes[bit >> 3]! ^= 1 << (bit & 7);
  }
});

test('a definition that is cut off is refused', () => {
  const bytes = encodeMeterDefined(message);
  for (let length = 0; length < bytes.length; length++) {
    expect(() => decodeMeterDefined(bytes.subarray(0, length)), `length ${length}`).toThrow(BlockError);
  }
});

test.each<[string, unknown]>([
  ['no object', null],
  ['no tenant', { meter }],
  ['no meter', { tenant: 'acme' }],
  ['an unknown aggregation', { tenant: 'acme', meter: { ...meter, aggregation: 'median' } }],
  ['a sum without a value', { tenant: 'acme', meter: { ...meter, valueProperty: null } }],
  ['a count with a value', { tenant: 'acme', meter: { ...meter, aggregation: 'count' } }],
  ['groups that are no texts', { tenant: 'acme', meter: { ...meter, groupBy: [1] } }],
  ['groups that are no list', { tenant: 'acme', meter: { ...meter, groupBy: 'model' } }],
  ['a key with a dash', { tenant: 'acme', meter: { ...meter, key: 'input-tokens' } }],
])('%s is no definition', (_, value) => {
  expect(parseMeterRecord(JSON.stringify(value))).toBeNull();
});

test('members that are not known are left out, and text that is no JSON is none', () => {
  expect(parseMeterRecord(JSON.stringify({ tenant: 'acme', meter: { ...meter, more: 1 }, more: 2 }))).toEqual(
    message,
  );
  expect(parseMeterRecord('{')).toBeNull();
});

const HOUR_MS = 3_600_000;
const changed: BackfillChanged = {
  tenant: 'acme',
  change: 'committed',
  backfill: { id: 'bf_1', meter: 'input_tokens', version: 2, fromMs: 5 * HOUR_MS, toMs: 9 * HOUR_MS },
};

test('a change of a backfill is written and read back, and not with any one bit flipped', () => {
  const bytes = encodeBackfillChanged(changed);
  expect(messageKind(bytes)).toBe(MESSAGE_BACKFILL);
  expect(decodeBackfillChanged(bytes)).toEqual(changed);
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    bytes[bit >> 3]! ^= 1 << (bit & 7);
    if (messageKind(bytes) === MESSAGE_BACKFILL)
      expect(() => decodeBackfillChanged(bytes), `bit ${bit}`).toThrow(BlockError);
    bytes[bit >> 3]! ^= 1 << (bit & 7);
  }
});

test.each<[string, object]>([
  ['an unknown change', { ...changed, change: 'forgotten' }],
  ['no tenant', { ...changed, tenant: undefined }],
  ['half an hour', { ...changed, backfill: { ...changed.backfill, toMs: 9.5 * HOUR_MS } }],
  ['no hours', { ...changed, backfill: { ...changed.backfill, toMs: 5 * HOUR_MS } }],
  ['two years', { ...changed, backfill: { ...changed.backfill, toMs: 17_600 * HOUR_MS } }],
  ['version 0', { ...changed, backfill: { ...changed.backfill, version: 0 } }],
  ['an id with a space', { ...changed, backfill: { ...changed.backfill, id: 'a b' } }],
])('%s is no change of a backfill', (_, value) => {
  const bytes = encodeBackfillChanged(value as BackfillChanged);
  expect(() => decodeBackfillChanged(bytes)).toThrow(BlockError);
});
