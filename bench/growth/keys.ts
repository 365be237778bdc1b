// The dedupe index at one size: all keys kept exactly, and a tenth of them with the others in filters.
import { start } from '../process.ts';
import type { ExactKeys, FilteredKeys, KeysFigure } from './figures.ts';

export async function runKeys(
  keys: number,
  onProgress: (text: string) => void,
  /** What ends the process before its time. */
  onStop: (stop: () => Promise<void>) => void,
): Promise<KeysFigure> {
  onProgress('all kept exactly');
  const exact = (await answerOf('exact', keys, onStop)) as unknown as ExactKeys;
  onProgress('a tenth kept exactly');
  const filtered = (await answerOf('filtered', keys, onStop)) as unknown as FilteredKeys;
  return { keys, exact, filtered };
}

async function answerOf(
  kind: 'exact' | 'filtered',
  keys: number,
  onStop: (stop: () => Promise<void>) => void,
): Promise<Record<string, unknown>> {
  const running = start('bench/growth/keys-process.js', [kind, String(keys)]);
  onStop(() => running.stop());
  try {
    return await running.line(() => true);
  } finally {
    await running.stop();
  }
}
