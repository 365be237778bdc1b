// A JSON array of any size, cut into its elements without parsing them: brackets are counted and strings passed
// over. What stands in an element is the edge's to judge, which names its fault; only the array itself must be
// whole, since without its end nobody can tell whether the file is.
import { isSpace, trimmed } from './lines.ts';
import { FileFault, RECORD_BYTES_MAX, tooLarge, type Cutter, type FileRecord } from './record.ts';

const QUOTE = 34;
const COMMA = 44;
const OPEN_ARRAY = 91;
const BACKSLASH = 92;
const CLOSE_ARRAY = 93;
const OPEN_OBJECT = 123;
const CLOSE_OBJECT = 125;
const LINE_FEED = 10;
const CARRIAGE_RETURN = 13;
const SPACE = 32;

type Stage = 'before' | 'within' | 'behind';

export class ElementCutter implements Cutter {
  #stage: Stage = 'before';
  #parts: Buffer[] = [];
  #partBytes = 0;
  #isTooLarge = false;
  #place = 1;
  /** Brackets that are open within the element. */
  #depth = 0;
  #inText = false;
  #isEscaped = false;
  /** A text with a raw line break is no JSON, and on one line it could not be sent. */
  #hasBrokenText = false;
  #bytes = 0;

  push(chunk: Buffer): FileRecord[] {
    const records: FileRecord[] = [];
    let start = 0;
    for (let at = 0; at < chunk.length; at++) {
      const byte = chunk[at]!;
      if (this.#stage === 'within') {
        if (!this.#endsElement(byte)) continue;
        this.#add(chunk.subarray(start, at));
        this.#finish(records, byte === CLOSE_ARRAY);
        start = at + 1;
        if (byte === CLOSE_ARRAY) this.#stage = 'behind';
      } else if (this.#stage === 'before' && byte === OPEN_ARRAY) {
        this.#stage = 'within';
        start = at + 1;
      } else if (!isSpace(byte)) {
        const where = this.#stage === 'before' ? 'before' : 'behind';
        throw new FileFault(
          `byte ${this.#bytes + at + 1} stands ${where} the array and does not belong to it`,
        );
      }
    }
    if (this.#stage === 'within') this.#add(chunk.subarray(start));
    this.#bytes += chunk.length;
    return records;
  }

  end(): FileRecord[] {
    if (this.#stage === 'behind') return [];
    throw new FileFault(
      `the array does not end: the file is cut off at element ${this.#place}, or a bracket or quote before it is not closed`,
    );
  }

  #endsElement(byte: number): boolean {
    if (this.#inText) {
      if (this.#isEscaped) this.#isEscaped = false;
      else if (byte === BACKSLASH) this.#isEscaped = true;
      else if (byte === QUOTE) this.#inText = false;
      if (byte === LINE_FEED || byte === CARRIAGE_RETURN) this.#hasBrokenText = true;
      return false;
    }
    switch (byte) {
      case QUOTE:
        this.#inText = true;
        return false;
      case OPEN_ARRAY:
      case OPEN_OBJECT:
        this.#depth += 1;
        return false;
      case CLOSE_ARRAY:
        if (this.#depth === 0) return true;
        this.#depth -= 1;
        return false;
      case CLOSE_OBJECT:
        // One too many is the element's own fault, and must not take the end of the array for its end.
        if (this.#depth > 0) this.#depth -= 1;
        return false;
      case COMMA:
        return this.#depth === 0;
      default:
        return false;
    }
  }

  #add(part: Buffer): void {
    this.#partBytes += part.length;
    if (this.#partBytes > RECORD_BYTES_MAX) {
      this.#isTooLarge = true;
      this.#parts = [];
    } else if (part.length > 0) {
      this.#parts.push(part);
    }
  }

  #finish(records: FileRecord[], isLast: boolean): void {
    const place = this.#place++;
    const element = trimmed(this.#parts.length === 1 ? this.#parts[0]! : Buffer.concat(this.#parts));
    if (this.#isTooLarge) {
      records.push(tooLarge(place));
    } else if (this.#hasBrokenText) {
      const message = 'A text of the element holds a raw line break: write it as \\n.';
      records.push({ place, code: 'element_not_json', message });
    } else if (element.length > 0) {
      records.push({ place, event: onOneLine(element) });
    } else if (!isLast || place > 1) {
      records.push({ place, code: 'element_not_json', message: 'Nothing stands between the commas.' });
    }
    this.#parts = [];
    this.#partBytes = 0;
    this.#isTooLarge = false;
    this.#hasBrokenText = false;
  }
}

/** Line breaks outside of texts, of which there are no others here, mean the same as spaces. */
function onOneLine(element: Buffer): Buffer {
  if (!element.includes(LINE_FEED) && !element.includes(CARRIAGE_RETURN)) return element;
  const line = Buffer.from(element);
  for (let at = 0; at < line.length; at++)
    if (line[at] === LINE_FEED || line[at] === CARRIAGE_RETURN) line[at] = SPACE;
  return line;
}
