// Runs the load process to its end.
import type { Running } from '../process.ts';
import type { LoadPlan, LoadProgress, LoadResult } from './load-plan.ts';
import type { World } from './world.ts';

export interface LoadHooks {
  /** Its connections stand, and nothing was sent yet. */
  readonly onBegin?: (load: Running) => void;
  readonly onProgress?: (answered: number) => void;
}

/** Throws when an answer was not the expected one, with what came instead. */
export async function loadUntilDone(
  world: World,
  plan: LoadPlan,
  hooks: LoadHooks = {},
): Promise<LoadResult> {
  const load = world.spawn('bench/canonical/load.js', [JSON.stringify(plan)], 'load');
  await load.line((line) => line['ready'] === true);
  hooks.onBegin?.(load);
  load.onLine((line) => {
    if ('answered' in line) hooks.onProgress?.((line as unknown as LoadProgress).answered);
  });
  load.child.stdin?.write('begin\n');
  const result = await load.line((line) => 'requests' in line);
  await load.exited;
  return result as unknown as LoadResult;
}
