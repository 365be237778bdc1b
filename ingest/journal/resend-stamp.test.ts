import { expect, test } from 'vitest';
import { BlockBuilder } from '../../contract/block-builder.ts';
import { decodeBlock, HEADER_BYTES, idOf } from '../../contract/block.ts';
import { IdentityHasher } from '../../contract/identity.ts';
import { addAll, batchOf } from '../../test/event-batch.ts';
import { stampResend } from './resend-stamp.ts';

function blockOf(ids: readonly string[]): Uint8Array {
  const builder = new BlockBuilder();
  const events = ids.map((id) => ({ id, source: 's', type: 't', subject: 'x', data: { n: 1.5, m: 'text' } }));
  addAll(builder, batchOf('acme', events), new IdentityHasher('0f'.repeat(16)));
  return Uint8Array.from(builder.finish(123_456));
}

test('a stamped block is sound, has the same events, and is another message than any copy of it', () => {
  const first = blockOf(['a', 'b', 'c']);
  const chances = [0.1, 0.2, 0.3, 0.4].values();
  const random = (): number => chances.next().value!;
  const [second, third] = [Uint8Array.from(first), Uint8Array.from(first)];
  stampResend(second, random);
  stampResend(third, random);
  expect(new Set([first, second, third].map((block) => Buffer.from(block).toString('hex'))).size).toBe(3);
  for (const copy of [second, third]) {
    expect(copy.subarray(HEADER_BYTES)).toEqual(first.subarray(HEADER_BYTES));
    const [before, after] = [decodeBlock(first), decodeBlock(copy)];
    expect([after.count, after.acceptedAtMs]).toEqual([before.count, before.acceptedAtMs]);
    expect(after.identity).toEqual(before.identity);
    expect(after.payloadHash).toEqual(before.payloadHash);
    expect([0, 1, 2].map((at) => idOf(after, at))).toEqual(['a', 'b', 'c']);
  }
});

test('a block in the middle of larger memory is stamped, and what is around it stays', () => {
  const block = blockOf(['a']);
  const larger = new Uint8Array(block.length + 16).fill(9);
  larger.set(block, 8);
  stampResend(larger.subarray(8, 8 + block.length), () => 0.5);
  expect(decodeBlock(Uint8Array.from(larger.subarray(8, 8 + block.length))).count).toBe(1);
  expect([...larger.subarray(0, 8), ...larger.subarray(8 + block.length)]).toEqual(Array(16).fill(9));
});
