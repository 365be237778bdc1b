/**
 * The kernel of the dedupe index: the verdicts of a block's events. The reference is `decideOne` of verdict.ts with
 * dedupe/generation.ts; dedupe/kernel-memory.ts lays the memory out and asks.
 *
 * To decide an event costs the time that memory takes to answer. So events are taken 64 at a time: first their
 * buckets of the directories are touched, then the entries that these point at, and only then they are decided, in
 * order. The processor waits for many answers at once instead of for one after the other.
 *
 * What is decided here is what a block nearly always has. At anything else (an entry whose position is not in it, a
 * generation that is full) it stops, and says how far it came.
 */
import {
  FAR,
  Generation,
  NOTHING,
  add,
  candidateOf,
  find,
  fits,
  homeOf,
  identitiesOf,
  isCandidate,
  nextSlot,
  positionOf,
  write,
} from './dedupe/generation';

const TOGETHER: u32 = 64;
/** As in dedupe/kernel-memory.ts. */
const EVENTS_MAX: usize = 2_048;
const GENERATIONS_MAX: usize = 1_024;

/** As in contract/verdicts.ts. */
const COUNTED: u8 = 0;
const DUPLICATE: u8 = 1;
const CONFLICT: u8 = 2;
const REJECTED: u8 = 4;

// Columns of a block, or of some of its events.
const IDENTITY: usize = (__heap_base + 63) & ~63;
const PAYLOAD: usize = IDENTITY + EVENTS_MAX * 16;
const REFUSED: usize = PAYLOAD + EVENTS_MAX * 8;
const VERDICTS: usize = REFUSED + EVENTS_MAX;
/** Addresses of the generations, the newest first. */
const GENERATIONS: usize = VERDICTS + EVENTS_MAX;
// Of the events that are taken together: their buckets in a generation, those of them that have to be looked at more
// closely, and in which older generation they stand, at which entry (0 for none).
const HOMES: usize = GENERATIONS + GENERATIONS_MAX * 4;
const CLOSER: usize = HOMES + TOGETHER * 4;
const FOUND_IN: usize = CLOSER + TOGETHER * 4;
const FOUND: usize = FOUND_IN + TOGETHER * 4;
const END: usize = FOUND + TOGETHER * 4;

/** Where the columns begin, one behind the other. */
export function columns(): usize {
  return IDENTITY;
}
/** Where generations may begin. */
export function free(): usize {
  return (END + 63) & ~63;
}

/** Exported, or what is only touched would be optimized away. */
export let touched: u32 = 0;

/** Decides the events `[0, count)`, the first of which has the position; returns how many it decided. */
export function decide(generations: u32, count: u32, firstPosition: f64): u32 {
  const current = generationAt(0);
  const position = <i64>firstPosition;
  for (let begin: u32 = 0; begin < count; begin += TOGETHER) {
    const end = min(begin + TOGETHER, count);
    memory.fill(FOUND, 0, TOGETHER * 4);
    for (let number = generations - 1; number > 0; number--) searchOlder(generationAt(number), begin, end);
    touchEntries(current, touchBuckets(current, begin, end), begin);
    for (let at = begin; at < end; at++) {
      const identity = IDENTITY + (<usize>at << 4);
      const payload = load<u64>(PAYLOAD + (<usize>at << 3));
      const own = position + at;
      const row = <usize>(at - begin) << 2;
      const bucket = <usize>load<u32>(HOMES + row);
      let gen = current;
      // Not what touching found: an event before this one may have entered it since.
      let entry = find(gen, identity, bucket);
      if (entry == NOTHING) {
        gen = changetype<Generation>(<usize>load<u32>(FOUND_IN + row));
        entry = <usize>load<u32>(FOUND + row);
      }
      let isReplay = false;
      if (entry != NOTHING) {
        const known = positionOf(gen, entry);
        if (known == FAR) return at;
        if (known < own) {
          store<u8>(VERDICTS + at, load<u64>(entry) == payload ? DUPLICATE : CONFLICT);
          continue;
        }
        isReplay = known == own;
      }
      if (load<u8>(REFUSED + at) != 0) {
        store<u8>(VERDICTS + at, REJECTED);
        continue;
      }
      if (!isReplay) {
        if (!fits(current, own)) return at;
        if (entry == NOTHING || gen != current) entry = add(current, identity, bucket);
        if (entry == NOTHING) return at;
        write(current, entry, payload, own);
      }
      store<u8>(VERDICTS + at, COUNTED);
    }
  }
  return count;
}

@inline
function generationAt(number: u32): Generation {
  return changetype<Generation>(<usize>load<u32>(GENERATIONS + (<usize>number << 2)));
}

/** Says of the events that a generation which is not written any more has their identity, and where. */
function searchOlder(gen: Generation, begin: u32, end: u32): void {
  const closer = touchBuckets(gen, begin, end);
  touchEntries(gen, closer, begin);
  for (let number: u32 = 0; number < closer; number++) {
    const row = <usize>load<u32>(CLOSER + (<usize>number << 2)) << 2;
    const identity = IDENTITY + (<usize>begin << 4) + (row << 2);
    const entry = find(gen, identity, <usize>load<u32>(HOMES + row));
    if (entry == NOTHING) continue;
    store<u32>(FOUND_IN + row, <u32>changetype<usize>(gen));
    store<u32>(FOUND + row, <u32>entry);
  }
}

/** Notes the buckets of the events, and which of them have to be looked at more closely; returns how many do. */
function touchBuckets(gen: Generation, begin: u32, end: u32): u32 {
  const identity = IDENTITY + (<usize>begin << 4);
  const count = end - begin;
  let sum: u32 = 0;
  for (let row: u32 = 0; row < count; row++) {
    const at = identity + (<usize>row << 4);
    const bucket = homeOf(gen, load<u32>(at), load<u32>(at, 4));
    store<u32>(HOMES + (<usize>row << 2), <u32>bucket);
    sum += load<u8>(bucket);
  }
  touched = sum;
  let closer: u32 = 0;
  for (let row: u32 = 0; row < count; row++) {
    const bucket = <usize>load<u32>(HOMES + (<usize>row << 2));
    store<u32>(CLOSER + (<usize>closer << 2), row);
    // Added and not branched upon, because one in four comes out otherwise and no predictor knows which.
    closer += isCandidate(bucket, load<u32>(identity + (<usize>row << 4))) ? 1 : 0;
  }
  return closer;
}

/** Touches what those events will be compared with first. */
function touchEntries(gen: Generation, closer: u32, begin: u32): void {
  let sum: u32 = 0;
  for (let number: u32 = 0; number < closer; number++) {
    const row = <usize>load<u32>(CLOSER + (<usize>number << 2)) << 2;
    const first = load<u32>(IDENTITY + (<usize>begin << 4) + (row << 2));
    sum += load<u8>(candidateOf(gen, first, <usize>load<u32>(HOMES + row)));
  }
  touched = sum;
}

// One key alone: it stands in the first row of the columns.

@inline
function home(gen: Generation): usize {
  return homeOf(gen, load<u32>(IDENTITY), load<u32>(IDENTITY, 4));
}

/** Its entry, 0 for none. */
export function findOne(generation: u32): u32 {
  const gen = changetype<Generation>(<usize>generation);
  return <u32>find(gen, IDENTITY, home(gen));
}

/** EARLIER, which is -1, or FAR, which is -3, too. */
export function position(generation: u32, entry: u32): f64 {
  return <f64>positionOf(changetype<Generation>(<usize>generation), <usize>entry);
}

/** Whether the entry's payload is that of the first row. */
export function samePayload(entry: u32): bool {
  return load<u64>(<usize>entry) == load<u64>(PAYLOAD);
}

export function isNear(generation: u32, own: f64): bool {
  return fits(changetype<Generation>(<usize>generation), <i64>own);
}

/** Adds the key, which is not there; 0 when there is no room. */
export function addOne(generation: u32, own: f64): u32 {
  const gen = changetype<Generation>(<usize>generation);
  const entry = add(gen, IDENTITY, home(gen));
  if (entry != NOTHING) write(gen, entry, load<u64>(PAYLOAD), <i64>own);
  return <u32>entry;
}

export function writeOne(generation: u32, entry: u32, own: f64): void {
  write(changetype<Generation>(<usize>generation), <usize>entry, load<u64>(PAYLOAD), <i64>own);
}

/** Identities of up to so many slots from one on, into the column; `next` is where to go on. */
export function identities(generation: u32, from: u32, most: u32): u32 {
  return identitiesOf(changetype<Generation>(<usize>generation), from, most, IDENTITY);
}
export function next(): u32 {
  return nextSlot;
}
