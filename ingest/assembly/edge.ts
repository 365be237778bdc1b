// The hot loops of the edge, from the bytes of a body to the bytes of blocks: reading events that look like one seen
// before (edge/scan.ts), their identities (edge/identity.ts), and writing blocks (edge/block.ts). Each is what a TypeScript
// file says, to the byte; whatever is unusual is left to that, event by event. Memory is laid out by edge-memory.ts.
import { setTenant } from './edge/block';
import { setShards, turnTo } from './edge/identity';
import { setMemory } from './edge/memory';

export { addRun, finishBlock } from './edge/block';
export { forgetPlaces } from './edge/dictionaries';
export { identify } from './edge/identity';
export { begin, scan, setTemplates } from './edge/scan';

/** Where memory is free. */
export function base(): usize {
  return __heap_base;
}

export function setUp(words: usize): void {
  setMemory(words);
  setShards();
}

/** The events are those of the tenant whose name, so many bytes, stands in its place. */
export function setTenantOf(length: i32): void {
  setTenant(length);
  turnTo(length);
}
