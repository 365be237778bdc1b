// Where a command goes: to the stack that TALLYLINE_API, TALLYLINE_EDGE and TALLYLINE_KEY name, each for itself, or
// else to the one that runs here.
import { layoutOf } from './layout.ts';
import { readRunFile } from './run-file.ts';

export interface Target {
  readonly api: string | undefined;
  readonly edge: string | undefined;
  readonly key: string | undefined;
}

/** @param which of the keys of the stack that runs here. */
export function readTarget(which: 'key' | 'adminKey'): Target {
  const run = readRunFile(layoutOf(process.env));
  return {
    api: process.env['TALLYLINE_API'] || run?.api,
    edge: process.env['TALLYLINE_EDGE'] || run?.edge,
    key: process.env['TALLYLINE_KEY'] || run?.[which],
  };
}
