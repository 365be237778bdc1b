/** The names of an event's top-level fields, as keys of msgpack: told by their length and four bytes at a time. */
import { ID, SOURCE, SUBJECT, TYPE } from '../../contract/event-batch.ts';
import { TIME } from './draft.ts';
import { DATA, UNKNOWN, nameOf } from './json-names.ts';
import type { MsgpackScan } from './msgpack-scan.ts';

// The first byte lowest.
const WORD_ID = 0x6469;
const WORD_TYPE = 0x65707974;
const WORD_TIME = 0x656d6974;
const WORD_DATA = 0x61746164;
const WORD_SOUR = 0x72756f73;
const WORD_CE = 0x6563;
const WORD_SUBJ = 0x6a627573;
const WORD_JECT = 0x7463656a;

/** The number of the name in `[start, stop)`. */
export function nameIn(scan: MsgpackScan, start: number, stop: number): number {
  const { view } = scan;
  switch (stop - start) {
    case 2:
      return view.getInt16(start, true) === WORD_ID ? ID : UNKNOWN;
    case 4: {
      const word = view.getInt32(start, true);
      if (word === WORD_TYPE) return TYPE;
      if (word === WORD_TIME) return TIME;
      return word === WORD_DATA ? DATA : UNKNOWN;
    }
    case 6: {
      const isSource = view.getInt32(start, true) === WORD_SOUR && view.getInt16(start + 4, true) === WORD_CE;
      return isSource ? SOURCE : nameOf(scan.bytes, start, stop);
    }
    case 7: {
      const isSubject =
        view.getInt32(start, true) === WORD_SUBJ && view.getInt32(start + 3, true) === WORD_JECT;
      return isSubject ? SUBJECT : UNKNOWN;
    }
    default:
      return nameOf(scan.bytes, start, stop);
  }
}
