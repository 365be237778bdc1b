// What it costs to decide an event, one in twenty a repetition of any earlier one: by the kernel, by the TypeScript
// that is its reference, and by the plainest thing there is, a Set of strings, which holds neither position nor payload
// and ends at 16 million. The bound is one and a half times the keys, so that they fill two generations.
import { DedupeIndex } from '../aggregator/dedupe/index.ts';
import { COUNTED, decideBlock } from '../aggregator/verdict.ts';
import { formatIdentity } from '../contract/identity.ts';
import { RandomWords } from './random-words.ts';

export interface DedupeKind {
  readonly kind: 'kernel' | 'reference' | 'Set';
  readonly keys: number;
  /** CPU, that of collecting garbage included; over all events, and over those of the last fifth. */
  readonly nanosPerEvent: number;
  readonly nanosPerEventLast: number;
  /** Null of a Set, which does not tell. */
  readonly bytesPerKey: number | null;
}

const BLOCK_EVENTS = 2_000;
const REPEATED_OF = 20;
const SET_KEYS_MAX = 10_000_000;
/** Every so many-th key may be repeated. */
const KEPT_OF = 16;

export function benchDedupeKinds(keys: number): DedupeKind[] {
  const kinds: DedupeKind[] = [decideWith('kernel', keys), decideWith('reference', keys)];
  if (keys <= SET_KEYS_MAX) kinds.push(measureSet(keys));
  return kinds;
}

export function decideWith(kind: 'kernel' | 'reference', keys: number): DedupeKind {
  const kernelBytesMax = kind === 'kernel' ? undefined : 0;
  const index = new DedupeIndex(keys * 1.5, 0, undefined, kernelBytesMax);
  const payloadHash = new Uint32Array(BLOCK_EVENTS * 2);
  const refused = new Uint8Array(BLOCK_EVENTS);
  let sequence = 0;
  const took = run(keys, (identity) => {
    const block = { count: BLOCK_EVENTS, identity, payloadHash };
    return () => {
      const verdicts = decideBlock(index, block, refused, ++sequence);
      index.rotate(-1);
      return verdicts.reduce((sum, verdict) => sum + (verdict === COUNTED ? 1 : 0), 0);
    };
  });
  return { kind, keys, ...took, bytesPerKey: index.bytes / index.size };
}

function measureSet(keys: number): DedupeKind {
  const known = new Set<string>();
  const took = run(keys, (identity) => {
    // Texts as they come from a socket: put together from pieces they would take eight times the memory.
    const texts = Array.from({ length: BLOCK_EVENTS }, (_, at) =>
      Buffer.from(formatIdentity(identity, at * 4), 'latin1').toString('latin1'),
    );
    return () => {
      const size = known.size;
      for (const text of texts) if (!known.has(text)) known.add(text);
      return known.size - size;
    };
  });
  return { kind: 'Set', keys, ...took, bytesPerKey: null };
}

/** `prepare` is not measured, what it returns is: it decides a block and says how many were new. */
function run(
  keys: number,
  prepare: (identity: Uint32Array) => () => number,
): { nanosPerEvent: number; nanosPerEventLast: number } {
  const random = new RandomWords(1);
  const chance = new RandomWords(2);
  const kept = new Uint32Array(Math.ceil(keys / KEPT_OF) * 4);
  const identity = new Uint32Array(BLOCK_EVENTS * 4);
  let [made, events, eventsLast, micros, microsLast] = [0, 0, 0, 0, 0];
  while (made < keys) {
    const isLast = made >= keys * 0.8;
    const before = made;
    for (let at = 0; at < BLOCK_EVENTS; at++) {
      const some = Math.ceil(before / KEPT_OF);
      if (some > 0 && chance.word() % REPEATED_OF === 0) {
        const key = Math.floor((chance.word() / 2 ** 32) * some) * 4;
        identity.set(kept.subarray(key, key + 4), at * 4);
        continue;
      }
      random.identity(identity, at * 4);
      if (made % KEPT_OF === 0 && made < keys)
        kept.set(identity.subarray(at * 4, at * 4 + 4), (made / KEPT_OF) * 4);
      made += 1;
    }
    const decide = prepare(identity);
    const began = process.cpuUsage();
    const fresh = decide();
    const { user, system } = process.cpuUsage(began);
    if (fresh !== made - before)
      throw new Error(`${fresh} of ${made - before} new keys were found to be new`);
    events += BLOCK_EVENTS;
    micros += user + system;
    if (!isLast) continue;
    eventsLast += BLOCK_EVENTS;
    microsLast += user + system;
  }
  return { nanosPerEvent: (micros * 1_000) / events, nanosPerEventLast: (microsLast * 1_000) / eventsLast };
}
