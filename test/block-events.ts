import { idOf, textOf, type Block } from '../contract/block.ts';
import { FIELD_NUMBER, FIELD_TEXT } from '../contract/fields.ts';
import type { PlainEvent, PlainField } from './batch-events.ts';

export interface BlockEvent extends PlainEvent {
  readonly tenant: string;
  readonly identity: readonly number[];
  readonly payloadHash: readonly number[];
}

/** What a block holds, as plain objects that a test can compare. */
export function eventsOfBlock(block: Block): BlockEvent[] {
  return Array.from({ length: block.count }, (_, at) => ({
    tenant: textOf(block, block.tenant[at]!),
    id: idOf(block, at),
    source: textOf(block, block.source[at]!),
    type: textOf(block, block.type[at]!),
    subject: textOf(block, block.subject[at]!),
    timeMs: block.time[at]!,
    timeGiven: block.flags[at] === 1,
    fields: fieldsOf(block, at),
    identity: [...block.identity.subarray(at * 4, at * 4 + 4)],
    payloadHash: [...block.payloadHash.subarray(at * 2, at * 2 + 2)],
  }));
}

function fieldsOf(block: Block, at: number): PlainField[] {
  const shape = block.shape[at]!;
  const first = block.shapeStart[shape]!;
  return Array.from({ length: block.shapeStart[shape + 1]! - first }, (_, index): PlainField => {
    const path = textOf(block, block.shapeFields[(first + index) * 2]!);
    const code = block.shapeFields[(first + index) * 2 + 1]!;
    const cell = block.cells[block.cellStart[at]! + index]!;
    if (code >>> 8 === FIELD_NUMBER) return { path, number: [cell, code & 0xff] };
    return code >>> 8 === FIELD_TEXT
      ? { path, text: textOf(block, cell) }
      : { path, literal: textOf(block, cell) };
  });
}
