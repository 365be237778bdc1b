// One shard's open block: offsets of its words, as edge-memory.ts writes them. Counts first, then addresses.
export const COUNT: usize = 0;
export const CELLS: usize = 4;
export const IDS: usize = 8;
export const TEXTS: usize = 12;
export const TEXT_BYTES: usize = 16;
export const SHAPES: usize = 20;
export const SHAPE_FIELDS: usize = 24;
/** The request that was told of the block last. */
export const MARK: usize = 28;
/** Texts and shapes of the blocks before: what is remembered as not above it is forgotten. */
export const TEXT_BASE: usize = 32;
export const TEXT_CAPACITY: usize = 36;
export const SHAPE_BASE: usize = 40;
export const SHAPE_CAPACITY: usize = 44;
/** The shape of the last event, -1 for none, and its number of fields. */
export const LAST_SHAPE: usize = 48;
export const LAST_FIELDS: usize = 52;
export const TENANT_TEXT: usize = 56;
/** The body whose tenant it is. */
export const BODY: usize = 60;

export const AT_IDENTITY: usize = 64;
export const AT_TIME: usize = 68;
export const AT_FLAGS: usize = 72;
export const AT_TENANT: usize = 76;
export const AT_SOURCE: usize = 80;
export const AT_TYPE: usize = 84;
export const AT_SUBJECT: usize = 88;
export const AT_SHAPE: usize = 92;
export const AT_CELL_START: usize = 96;
export const AT_ID_START: usize = 100;
export const AT_CELLS: usize = 104;
export const AT_IDS: usize = 108;
export const AT_TEXT_START: usize = 112;
/** Both halves of the hash, by text. */
export const AT_TEXT_HASH: usize = 116;
export const AT_TEXT_BYTES: usize = 120;
export const AT_TEXT_SLOTS: usize = 124;
export const AT_SHAPE_START: usize = 128;
export const AT_SHAPE_FIELDS: usize = 132;
/** Both halves of what a field's payload hash begins with. */
export const AT_SHAPE_SEEDS: usize = 136;
export const AT_SHAPE_HASH: usize = 140;
export const AT_SHAPE_SLOTS: usize = 144;
/** By place: the serial number of its path's text. */
export const AT_PATH_TEXT: usize = 148;
/** Places and codes of the last shape, as pairs; and the pairs that are looked for. */
export const AT_LAST: usize = 152;
export const AT_WANTED: usize = 156;
export const AT_GUESSES: usize = 160;
