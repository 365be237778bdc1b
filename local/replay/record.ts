// What a file of events is cut into. A record that can be sent is its bytes as they stand in the file, on one line:
// nothing is parsed and written anew on the way, so a number keeps its digits and a text its escapes.

/** The event that stands at `place`, counted from 1: a line, an element of the array, or a row below the header. */
export interface FoundEvent {
  readonly place: number;
  readonly event: Buffer;
}

/** What stands at `place` cannot be sent. */
export interface Unreadable {
  readonly place: number;
  readonly code: UnreadableCode;
  readonly message: string;
}

export type UnreadableCode = 'event_too_large' | 'element_not_json' | 'row_not_like_header';

export type FileRecord = FoundEvent | Unreadable;

export const isEvent = (record: FileRecord): record is FoundEvent => 'event' in record;

/** Cuts what comes in by chunks; a chunk may be changed by nobody afterwards, since records are views of it. */
export interface Cutter {
  push(chunk: Buffer): FileRecord[];
  /** Nothing comes any more. */
  end(): FileRecord[];
}

/** A file that is not what it should be as a whole; the message says where. What came before is sent. */
export class FileFault extends Error {
  override readonly name = 'FileFault';
}

/**
 * Bytes of one record. An event has 64 KiB at most, of which each byte can stand as six in JSON (`\u0041`), and
 * white space between: what is larger than this is passed over without being kept.
 */
export const RECORD_BYTES_MAX = 1_048_576;

export function tooLarge(place: number): Unreadable {
  return { place, code: 'event_too_large', message: `It has more than ${RECORD_BYTES_MAX} bytes.` };
}

/** Of a text file that says by its first bytes that it is UTF-8. */
export const BYTE_ORDER_MARK = Buffer.from([0xef, 0xbb, 0xbf]);
