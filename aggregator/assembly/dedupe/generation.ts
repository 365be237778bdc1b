/**
 * A generation of exact keys in memory. The header stands at its address; all else is found through it.
 *
 * A generation is cut into segments by the first bits of the identity. Each has its own directory and its own entries,
 * which lie one behind the other in the order in which they came and never move. All is laid out for the generation's
 * keys at once, so nothing ever grows; what no entry reached was never touched, and takes no memory.
 *
 * The directory: buckets of 64 bytes, a cache line: 21 tags of 8 bits, 21 entry numbers of 14 bits with two more bits
 * of tag above them, and in the last byte how many are in use. A key that finds its bucket full goes into the next of
 * its segment, and one of the last byte's three other bits, by the key's class, says of a bucket that this happened; so
 * a search ends in the first bucket that no key of its class has passed. At 17 keys a bucket 12 % of searches go on
 * behind their first bucket, without the classes 18 %; at 18.5 keys 27 and 37 %.
 *
 * An entry: the payload hash (8 bytes), the identity's third and fourth word (8), its second (4), the middle half of
 * its first (2), and the position (5). The last byte of the first word is the tag, which stands in the directory; its
 * first byte is that of the segment, or with fewer than 256 segments a 28th byte. So all 128 bits are compared.
 *
 * A position is kept as its distance from the generation's base plus one, 24 bits of sequence and 16 of index. 0 is
 * what an earlier incarnation counted. A distance that does not fit is FAR, and whoever asks knows it by the entry.
 */

export const BUCKET_BYTES: usize = 64;
export const BUCKET_SLOTS: u32 = 21;
const NUMBERS: usize = 21;
const NUMBER_MASK: u32 = 0x3fff;
const USED: usize = 63;
const USED_MASK: u32 = 31;

/** No entry: none is at the address 0. */
export const NOTHING: usize = 0;

const EARLIER_CODE: u64 = 0;
const FAR_CODE: u64 = 0xff_ffff_ffff;
/** How far before its first entry a generation's base lies: half of the sequences that fit. */
const BEFORE_FIRST: i64 = 1 << 39;
const IDENTITY_MASK: u64 = 0xffff_ffff_ffff;

/** A generation's header, the same as in dedupe/kernel-generation.ts. */
@unmanaged
export class Generation {
  size: u32;
  /** Segments are told apart by so many first bits. */
  segmentBits: u32;
  /** Of each segment. */
  buckets: u32;
  entriesMax: u32;
  entryBytes: u32;
  /** Addresses: how many entries each segment has (u32), the directory, the entries. */
  fills: u32;
  directory: u32;
  entries: u32;
  /** The highest position in it. */
  newest: f64;
  base: i64;
  hasBase: u32;
}

@inline
function segmentOf(gen: Generation, word: u32): u32 {
  // A shift by 32 is a shift by 0.
  return gen.segmentBits == 0 ? 0 : word >>> (32 - gen.segmentBits);
}

/** The bucket in which a search begins. */
@inline
export function homeOf(gen: Generation, first: u32, second: u32): usize {
  const bucket = <u32>((<u64>second * gen.buckets) >>> 32);
  return <usize>gen.directory + <usize>(segmentOf(gen, first) * gen.buckets + bucket) * BUCKET_BYTES;
}

@inline
function nextBucket(gen: Generation, first: u32, bucket: usize): usize {
  const begin = <usize>gen.directory + <usize>(segmentOf(gen, first) * gen.buckets) * BUCKET_BYTES;
  const next = bucket + BUCKET_BYTES;
  return next == begin + <usize>gen.buckets * BUCKET_BYTES ? begin : next;
}

@inline
function usedOf(bucket: usize): u32 {
  return load<u8>(bucket, USED);
}

/** The bit that says that keys of this one's class went on behind a bucket. */
@inline
function passedBit(first: u32): u32 {
  return 32 << ((((first >>> 10) & 63) * 3) >>> 6);
}

/** The two bits of tag above an entry's number. */
@inline
function tagAbove(first: u32): u32 {
  return (first << 6) & ~NUMBER_MASK & 0xffff;
}

/** Of the bucket's slots in use, those whose 8 bits of tag are those of the word, as bits. */
@inline
function matchesOf(bucket: usize, first: u32): u32 {
  const tag = i8x16.splat(<i8>first);
  const low = <u32>i8x16.bitmask(i8x16.eq(v128.load(bucket), tag));
  const high = <u32>i8x16.bitmask(i8x16.eq(v128.load(bucket, 16), tag));
  return (low | (high << 16)) & ((1 << (usedOf(bucket) & USED_MASK)) - 1);
}

@inline
function slotOf(bucket: usize, slot: u32): u32 {
  return load<u16>(bucket + (<usize>slot << 1), NUMBERS);
}

@inline
function entryAt(gen: Generation, segment: u32, number: u32): usize {
  return <usize>gen.entries + <usize>(segment * gen.entriesMax + number) * gen.entryBytes;
}

/** Whether more than this bucket has to be seen to know that an identity with the word is not there. */
@inline
export function isCandidate(bucket: usize, first: u32): bool {
  return (matchesOf(bucket, first) | (usedOf(bucket) & passedBit(first))) != 0;
}

/** What will be read first then: an entry, or the next bucket. */
@inline
export function candidateOf(gen: Generation, first: u32, bucket: usize): usize {
  const matches = matchesOf(bucket, first);
  if (matches == 0) return nextBucket(gen, first, bucket);
  return entryAt(gen, segmentOf(gen, first), slotOf(bucket, ctz(matches)) & NUMBER_MASK);
}

/** The entry of the identity at the address, or NOTHING. `home` is its home. */
@inline
export function find(gen: Generation, identity: usize, home: usize): usize {
  const first = load<u32>(identity);
  let bucket = home;
  while (true) {
    let matches = matchesOf(bucket, first);
    while (matches != 0) {
      const slot = slotOf(bucket, ctz(matches));
      if ((slot & ~NUMBER_MASK) == tagAbove(first)) {
        const entry = entryAt(gen, segmentOf(gen, first), slot & NUMBER_MASK);
        if (isOf(gen, entry, identity, first)) return entry;
      }
      matches &= matches - 1;
    }
    if ((usedOf(bucket) & passedBit(first)) == 0) return NOTHING;
    bucket = nextBucket(gen, first, bucket);
  }
}

/** Whether an entry of the identity's segment and tag is its entry. */
@inline
function isOf(gen: Generation, entry: usize, identity: usize, first: u32): bool {
  const key = <u64>load<u32>(identity, 4) | (<u64>((first >>> 8) & 0xffff) << 32);
  return (
    load<u64>(entry, 8) == load<u64>(identity, 8) &&
    (load<u64>(entry, 16) & IDENTITY_MASK) == key &&
    (gen.segmentBits >= 8 || load<u8>(entry, 27) == first >>> 24)
  );
}

/** Adds the identity, which is not there, without position and payload; NOTHING when its segment is full. */
@inline
export function add(gen: Generation, identity: usize, home: usize): usize {
  const first = load<u32>(identity);
  const segment = segmentOf(gen, first);
  const fill = <usize>gen.fills + (<usize>segment << 2);
  const number = load<u32>(fill);
  if (number >= gen.entriesMax) return NOTHING;
  store<u32>(fill, number + 1);
  gen.size += 1;
  let bucket = home;
  let used = usedOf(bucket);
  while ((used & USED_MASK) == BUCKET_SLOTS) {
    store<u8>(bucket, used | passedBit(first), USED);
    bucket = nextBucket(gen, first, bucket);
    used = usedOf(bucket);
  }
  const slot = <usize>(used & USED_MASK);
  store<u8>(bucket + slot, first);
  store<u16>(bucket + (slot << 1), number | tagAbove(first), NUMBERS);
  store<u8>(bucket, used + 1, USED);
  const entry = entryAt(gen, segment, number);
  store<u64>(entry, load<u64>(identity, 8), 8);
  store<u32>(entry, load<u32>(identity, 4), 16);
  store<u16>(entry, first >>> 8, 20);
  if (gen.segmentBits < 8) store<u8>(entry, first >>> 24, 27);
  return entry;
}

/** Whether the position is near enough to the base. The first one is: the base follows from it. */
@inline
export function fits(gen: Generation, position: i64): bool {
  const distance = position - gen.base + 1;
  return position < 0 || !gen.hasBase || (distance > 0 && distance < <i64>FAR_CODE);
}

/** Writes payload and position of an entry, FAR where that does not fit. */
@inline
export function write(gen: Generation, entry: usize, payload: u64, position: i64): void {
  if (!gen.hasBase && position >= 0) {
    gen.base = (position & ~0xffff) - BEFORE_FIRST;
    gen.hasBase = 1;
  }
  if (<f64>position > gen.newest) gen.newest = <f64>position;
  const code =
    position < 0 ? EARLIER_CODE : fits(gen, position) ? <u64>(position - gen.base + 1) : FAR_CODE;
  store<u64>(entry, payload);
  store<u16>(entry, <u32>code, 22);
  store<u16>(entry, <u32>(code >>> 16), 24);
  store<u8>(entry, <u32>(code >>> 32), 26);
}

export const EARLIER: i64 = -1;
export const FAR: i64 = -3;

/** The entry's position, EARLIER, or FAR. */
@inline
export function positionOf(gen: Generation, entry: usize): i64 {
  const code = <u64>load<u16>(entry, 22) | (<u64>load<u16>(entry, 24) << 16) | (<u64>load<u8>(entry, 26) << 32);
  if (code == EARLIER_CODE) return EARLIER;
  if (code == FAR_CODE) return FAR;
  return gen.base + <i64>code - 1;
}

/**
 * Writes the identities of up to `most` slots to `out`, from the slot `from` on, counted through the whole directory
 * with 32 for each bucket; returns how many. `nextSlot` says where to go on.
 */
export let nextSlot: u32 = 0;
export function identitiesOf(gen: Generation, from: u32, most: u32, out: usize): u32 {
  const end = (gen.buckets << gen.segmentBits) << 5;
  let slot = from;
  let count: u32 = 0;
  while (count < most && slot < end) {
    const bucket = <usize>gen.directory + <usize>(slot >>> 5) * BUCKET_BYTES;
    if ((slot & 31) >= (usedOf(bucket) & USED_MASK)) {
      slot = (slot | 31) + 1;
      continue;
    }
    const tag = <u32>load<u8>(bucket + (slot & 31));
    const segment = (slot >>> 5) / gen.buckets;
    const entry = entryAt(gen, segment, slotOf(bucket, slot & 31) & NUMBER_MASK);
    const top = gen.segmentBits < 8 ? <u32>load<u8>(entry, 27) : segment >>> (gen.segmentBits - 8);
    store<u32>(out, tag | (<u32>load<u16>(entry, 20) << 8) | (top << 24));
    store<u32>(out, load<u32>(entry, 16), 4);
    store<u64>(out, load<u64>(entry, 8), 8);
    out += 16;
    count += 1;
    slot += 1;
  }
  nextSlot = slot;
  return count;
}
