// Loads operations.json, which derive.ts writes beside the compiled code at build time. Where it is absent (the
// sources under a test runner) or belongs to another version of the SDK, it is derived anew, once a process.
import { readFile } from 'node:fs/promises';
import type { Operations } from './operation.ts';
import { findSdk } from './sdk.ts';

let loading: Promise<Operations> | undefined;

export function loadOperations(): Promise<Operations> {
  return (loading ??= load());
}

async function load(): Promise<Operations> {
  const written = await readFile(new URL('./operations.json', import.meta.url), 'utf8').catch(
    () => undefined,
  );
  if (written !== undefined) {
    const operations = JSON.parse(written) as Operations;
    if (operations.sdkVersion === findSdk().version) return operations;
  }
  // Only now, because it loads the TypeScript compiler.
  const { deriveOperations } = await import('./derive.ts');
  return deriveOperations();
}
