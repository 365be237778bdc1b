// How far a replay is, in a small file beside the input, so that it can go on after it was stopped or killed.
//
// It says how many records from the beginning are dealt with, and the hash of what they were sent as: whoever goes
// on reads the file from its beginning, passes over so many records, and compares. Another file under the same name,
// a line changed in the part that is done, or other columns for a CSV are told instead of being mixed up. It also
// says how long the file of rejected events was then, so that what was written behind that and before the kill is
// cut off and written again. Being late with it costs some duplicates at the edge and nothing else.
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';

const VERSION = 1;

export interface ReplayState {
  readonly version: typeof VERSION;
  /** Of the file, from its beginning; blank lines are none. */
  readonly records: number;
  /** SHA-256 of what these were sent as. */
  readonly digest: string;
  readonly accepted: number;
  readonly rejected: number;
  /** Of the file of rejected events. */
  readonly rejectedBytes: number;
  readonly isFinished: boolean;
}

export const NOTHING_DONE: Omit<ReplayState, 'digest'> = {
  version: VERSION,
  records: 0,
  accepted: 0,
  rejected: 0,
  rejectedBytes: 0,
  isFinished: false,
};

/** The file is there and is not what it should be. */
export class StateError extends Error {
  override readonly name = 'StateError';
}

/** Null: nothing was begun. */
export function readState(path: string): ReplayState | null {
  if (!existsSync(path)) return null;
  let state: Partial<ReplayState>;
  try {
    state = JSON.parse(readFileSync(path, 'utf8')) as Partial<ReplayState>;
  } catch (error) {
    throw new StateError(`${path} cannot be read: replay without --resume`, { cause: error });
  }
  const counts = [state.records, state.accepted, state.rejected, state.rejectedBytes];
  const isSound =
    state.version === VERSION &&
    counts.every((count) => Number.isSafeInteger(count) && count! >= 0) &&
    typeof state.digest === 'string' &&
    typeof state.isFinished === 'boolean';
  if (!isSound) throw new StateError(`${path} is no state of a replay: replay without --resume`);
  return state as ReplayState;
}

/** Whole or not at all, whenever the process is killed. */
export function writeState(path: string, state: ReplayState): void {
  const staged = `${path}.new`;
  writeFileSync(staged, `${JSON.stringify(state)}\n`);
  renameSync(staged, path);
}
