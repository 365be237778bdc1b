/**
 * The lines of which the files of a spool consist: a CRC-32 in eight hexadecimal digits, a space, the payload, a line
 * feed. JSON never holds a raw line feed, so that behind damage the next line is found again; and a folder of events
 * can be read and sent by hand.
 */
import { crc32 } from 'node:zlib';

const CRC_DIGITS = 8;
const LINE_FEED = 0x0a;
const SPACE = 0x20;

export function encodeLine(payload: string): string {
  return `${hex(crc32(payload))} ${payload}\n`;
}

/** Bytes of a line around its payload. */
export const LINE_OVERHEAD = CRC_DIGITS + 2;

export interface Line {
  /** Null when the line is damaged. */
  readonly payload: Buffer | null;
  /** Where the next line begins. */
  readonly end: number;
}

/** The whole lines of the bytes; what stands behind the last line feed is not among them. */
export function* linesOf(bytes: Buffer): Generator<Line> {
  for (let start = 0; ;) {
    const feed = bytes.indexOf(LINE_FEED, start);
    if (feed < 0) return;
    yield { payload: payloadOf(bytes.subarray(start, feed)), end: feed + 1 };
    start = feed + 1;
  }
}

function payloadOf(line: Buffer): Buffer | null {
  if (line.length <= CRC_DIGITS || line[CRC_DIGITS] !== SPACE) return null;
  const payload = line.subarray(CRC_DIGITS + 1);
  return line.toString('latin1', 0, CRC_DIGITS) === hex(crc32(payload)) ? payload : null;
}

function hex(crc: number): string {
  return crc.toString(16).padStart(CRC_DIGITS, '0');
}

/** Of numbers in order: [4, 5, 6, 9] is 4 to 6 and 9 to 9. */
export function runsOf(numbers: readonly number[]): readonly { readonly from: number; to: number }[] {
  const runs: { from: number; to: number }[] = [];
  for (const number of numbers) {
    const run = runs.at(-1);
    if (run !== undefined && run.to + 1 === number) run.to = number;
    else runs.push({ from: number, to: number });
  }
  return runs;
}
