// Where everything stands. The owner of the memory lays it out (edge-memory.ts) and writes the addresses into one block of
// words, in this order.
export let bytes: usize = 0;
export let start: usize = 0;
export let end: usize = 0;
export let timeMs: usize = 0;
export let timeGiven: usize = 0;
export let fieldStart: usize = 0;
export let path: usize = 0;
export let code: usize = 0;
export let mantissa: usize = 0;
export let textStart: usize = 0;
export let textEnd: usize = 0;
/** Events and fields for which the columns of the batch have room. */
export let eventsMax: i32 = 0;
export let fieldsMax: i32 = 0;

/** By event of the batch: its identity, and its shard. */
export let identity: usize = 0;
export let shardOf: usize = 0;
/** Messages that are being hashed. */
export let prefix: usize = 0;
export let lanes: usize = 0;
/** The key of the identity and its two masks, four words each. */
export let key: usize = 0;

/** By number of a place: address and length of its dotted path, both halves of its hash. */
export let paths: usize = 0;
export let pathsMax: i32 = 0;

export let states: usize = 0;
export let stateBytes: usize = 0;
export let shards: i32 = 0;
export let blockEventsMax: i32 = 0;
export let blockBytesMax: i32 = 0;
export let out: usize = 0;
export let touched: usize = 0;

/** Words that are read by the caller: RESULT of the last call. */
export let result: usize = 0;

export let tenant: usize = 0;

export function setMemory(words: usize): void {
  bytes = load<u32>(words);
  start = load<u32>(words, 4);
  end = load<u32>(words, 8);
  timeMs = load<u32>(words, 12);
  timeGiven = load<u32>(words, 16);
  fieldStart = load<u32>(words, 20);
  path = load<u32>(words, 24);
  code = load<u32>(words, 28);
  mantissa = load<u32>(words, 32);
  textStart = load<u32>(words, 36);
  textEnd = load<u32>(words, 40);
  eventsMax = load<i32>(words, 44);
  fieldsMax = load<i32>(words, 48);
  identity = load<u32>(words, 52);
  shardOf = load<u32>(words, 56);
  prefix = load<u32>(words, 60);
  lanes = load<u32>(words, 64);
  key = load<u32>(words, 68);
  paths = load<u32>(words, 72);
  pathsMax = load<i32>(words, 76);
  states = load<u32>(words, 80);
  stateBytes = load<u32>(words, 84);
  shards = load<i32>(words, 88);
  blockEventsMax = load<i32>(words, 92);
  blockBytesMax = load<i32>(words, 96);
  out = load<u32>(words, 100);
  touched = load<u32>(words, 104);
  result = load<u32>(words, 108);
  tenant = load<u32>(words, 112);
}
