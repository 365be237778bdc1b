// One stack on one data folder. The lock file is made with O_EXCL and holds the pid of its owner; the lock
// of an owner that is gone is taken over.
import { closeSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { EngineError } from './engines/engine.ts';
import { isAlive } from './engines/process.ts';
import type { Layout } from './layout.ts';

/** @throws EngineError when another stack runs on this data. Returns what gives the lock back. */
export function takeLock(layout: Layout): () => void {
  for (let attempt = 0; attempt < 2; attempt++) {
    try {
      const file = openSync(layout.lockFile, 'wx', 0o600);
      writeSync(file, String(process.pid));
      closeSync(file);
      return () => rmSync(layout.lockFile, { force: true });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    const owner = Number(readFileSync(layout.lockFile, 'utf8'));
    if (Number.isSafeInteger(owner) && owner > 0 && owner !== process.pid && isAlive(owner)) {
      throw new EngineError(
        `Tallyline already runs on ${layout.root} (pid ${owner}). Use it as it is, see ${layout.runFile}; stop it with: kill ${owner}`,
      );
    }
    rmSync(layout.lockFile, { force: true });
  }
  throw new EngineError(
    `The lock ${layout.lockFile} could not be taken: another start is under way. Try again.`,
  );
}
