import { idOf, textOf, type Block } from '../../contract/block.ts';
import { FIELD_LITERAL, FIELD_NUMBER } from '../../contract/fields.ts';
import { TARGET, lineOf, type Field } from './values.ts';

const IDENTITY = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** An event of a block, as `lineOf` writes it. */
export function lineInBlock(block: Block, event: number): string {
  const text = (numbers: Uint32Array): string => textOf(block, numbers[event]!);
  const isGiven = (block.flags[event]! & 1) === 1;
  const fields: Field[] = [];
  const shape = block.shape[event]!;
  const first = block.shapeStart[shape]!;
  for (let at = first; at < block.shapeStart[shape + 1]!; at++) {
    const path = textOf(block, block.shapeFields[at * 2]!);
    const code = block.shapeFields[at * 2 + 1]!;
    const cell = block.cells[block.cellStart[event]! + at - first]!;
    if (code >>> 8 === FIELD_NUMBER) fields.push([path, 'number', `${BigInt(cell)}e-${code & 0xff}`]);
    else if (path === 'tallyline.target' && IDENTITY.test(textOf(block, cell)))
      fields.push([path, 'text', TARGET]);
    else fields.push([path, code >>> 8 === FIELD_LITERAL ? 'literal' : 'text', textOf(block, cell)]);
  }
  return lineOf({
    id: idOf(block, event),
    source: text(block.source),
    type: text(block.type),
    subject: text(block.subject),
    timeMs: isGiven ? block.time[event]! : null,
    fields,
  });
}
