// Results leave the engine through a named pipe: SELECT … INTO OUTFILE '<pipe>' runs on a thread of its own and
// blocks when the pipe is full, so a result of any size and any format is streamed with the memory of one pipe,
// and a slow client slows the query down.
import { execFileSync } from 'node:child_process';
import { closeSync, constants, openSync, rmSync } from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';

/** Makes the pipes of all slots, anew. */
export function makePipes(folder: string, count: number): string[] {
  const paths = Array.from({ length: count }, (_, index) => join(folder, `result-${index}`));
  for (const path of paths) rmSync(path, { force: true });
  execFileSync('mkfifo', ['-m', '600', ...paths]);
  return paths;
}

export interface ResultPipe {
  /** Ends when the engine has closed its side and `finish` was called. */
  readonly stream: Socket;
  /** Says that nothing more will be written. Idempotent. */
  finish(): void;
  /** Only when the engine is through: it waits for ever on a pipe without a reader. Idempotent. */
  close(): void;
}

/**
 * Opens the reading side, and a writing side that is only held: without it the pipe would be at its end before
 * the engine opens it, or would never be when the statement fails first.
 */
export function openPipe(path: string): ResultPipe {
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const writer = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
  const stream = new Socket({ fd: reader, readable: true, writable: false });
  let finished = false;
  const finish = (): void => {
    if (finished) return;
    finished = true;
    closeSync(writer);
  };
  const close = (): void => {
    finish();
    stream.destroy();
  };
  stream.on('error', () => undefined);
  return { stream, finish, close };
}
