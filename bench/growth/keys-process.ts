// The dedupe index at one size, in a process of its own, so that the memory of one size is gone before the next:
// `keys-process.js exact|filtered KEYS` prints one line of JSON.
import { measureIndex } from '../dedupe.ts';
import { decideWith } from '../dedupe-kinds.ts';
import type { ExactKeys, FilteredKeys } from './figures.ts';

const peakRssBytes = (): number => process.resourceUsage().maxRSS * 1_024;

function exact(keys: number): ExactKeys {
  const { nanosPerEvent, nanosPerEventLast, bytesPerKey } = decideWith('kernel', keys);
  return { nanosPerEvent, nanosPerEventLast, bytesPerKey: bytesPerKey ?? 0, peakRssBytes: peakRssBytes() };
}

function filtered(keys: number): FilteredKeys {
  const { hotKeys, hotBytesPerKey, coldBytesPerKey, putNs, missNs, falseShare } = measureIndex(
    keys,
    keys / 10,
  );
  return {
    hotKeys,
    hotBytesPerKey,
    coldBytesPerKey,
    putNs,
    missNs,
    falseShare,
    peakRssBytes: peakRssBytes(),
  };
}

const [kind, keys] = process.argv.slice(2);
const found = kind === 'exact' ? exact(Number(keys)) : filtered(Number(keys));
process.stdout.write(`${JSON.stringify(found)}\n`);
