// Ids for events that have none, so that replaying a file again counts nothing twice.
//
// The id is made from the name of the file (without its folder and .gz), the place in it, and the bytes that stand
// there. The place keeps apart lines that are equal, which are two events; the bytes make another event of a line
// that was changed, instead of a conflict with what it was; the name keeps apart the first lines of two files. So a
// file that was renamed, or got a line in the middle, is another file: `--name` gives a renamed one its old name.
import { createHash } from 'node:crypto';

export function idFromLine(name: string, place: number, event: Uint8Array): string {
  const hash = createHash('sha256').update(`${name}\n${place}\n`).update(event).digest('hex').slice(0, 32);
  return `line-${place}-${hash}`;
}

const OPEN_OBJECT = 123;

/**
 * The event with an id from its line, if it is a JSON object without an id; else as it is, for the edge to judge.
 * The id is put before the other fields, which stay as they stand, byte by byte.
 */
export function withId(name: string, place: number, event: Buffer): Buffer {
  if (event[0] !== OPEN_OBJECT) return event;
  let fields: object;
  try {
    fields = JSON.parse(event.toString()) as object;
  } catch {
    return event;
  }
  if (Object.hasOwn(fields, 'id')) return event;
  const id = `{"id":"${idFromLine(name, place, event)}"`;
  const separator = Object.keys(fields).length > 0 ? ',' : '';
  return Buffer.concat([Buffer.from(id + separator), event.subarray(1)]);
}
