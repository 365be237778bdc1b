// Contributions of blocks made by hand, for tests that are about something else than where they belong.
import type { BlockGroups, Contributions } from '../aggregator/prepare.ts';

const NO_GROUPS: BlockGroups = { meterHours: [], dimensions: [], hourOf: [], ofKey: new Uint32Array(0) };

/** With keys of no bucket. */
export function contributionsOf(
  given: Pick<Contributions, 'key' | 'mantissa' | 'scale'> & Partial<Contributions>,
): Contributions {
  return {
    buckets: {
      count: 0,
      tenant: new Uint32Array(0),
      start: new Uint32Array(1),
      bytes: new Uint8Array(3),
      hash: new Uint32Array(0),
    },
    meters: [],
    keyBucket: new Uint32Array(0),
    keyMeter: new Uint32Array(0),
    // One an event.
    start: Uint32Array.from({ length: given.key.length + 1 }, (_, at) => at),
    wide: [],
    groups: NO_GROUPS,
    ...given,
  };
}
