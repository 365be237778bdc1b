import { RECORD_BYTES_MAX, tooLarge, type Cutter, type FileRecord } from './record.ts';

const LINE_FEED = 10;

/** NDJSON: an event a line. Empty lines count as places and hold nothing; a last line needs no end. */
export class LineCutter implements Cutter {
  /** Chunks of a line that goes on in the next one. */
  #parts: Buffer[] = [];
  #partBytes = 0;
  #isTooLarge = false;
  #place = 1;

  push(chunk: Buffer): FileRecord[] {
    const records: FileRecord[] = [];
    let start = 0;
    for (;;) {
      const end = chunk.indexOf(LINE_FEED, start);
      if (end < 0) break;
      this.#add(chunk.subarray(start, end));
      this.#finish(records);
      start = end + 1;
    }
    if (start < chunk.length) this.#add(chunk.subarray(start));
    return records;
  }

  end(): FileRecord[] {
    const records: FileRecord[] = [];
    this.#finish(records);
    return records;
  }

  #add(part: Buffer): void {
    this.#partBytes += part.length;
    if (this.#partBytes > RECORD_BYTES_MAX) {
      this.#isTooLarge = true;
      this.#parts = [];
    } else {
      this.#parts.push(part);
    }
  }

  #finish(records: FileRecord[]): void {
    const place = this.#place++;
    if (this.#isTooLarge) {
      records.push(tooLarge(place));
    } else {
      const line = this.#parts.length === 1 ? this.#parts[0]! : Buffer.concat(this.#parts);
      const event = trimmed(line);
      if (event.length > 0) records.push({ place, event });
    }
    this.#parts = [];
    this.#partBytes = 0;
    this.#isTooLarge = false;
  }
}

/** Without the white space of JSON around it; the carriage return of Windows among it. */
export function trimmed(bytes: Buffer): Buffer {
  let start = 0;
  let end = bytes.length;
  while (start < end && isSpace(bytes[start]!)) start += 1;
  while (end > start && isSpace(bytes[end - 1]!)) end -= 1;
  return bytes.subarray(start, end);
}

export const isSpace = (byte: number): boolean => byte === 32 || byte === 10 || byte === 13 || byte === 9;
