import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { FolderLockedError, lockFolder } from './journal-lock.ts';

const scratch = mkdtempSync(join(tmpdir(), 'tallyline-lock-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const newFolder = (): string => mkdtempSync(join(scratch, 'folder-'));

/** A process that listens on the folder's lock, as its owner does. */
async function owner(folder: string): Promise<{ kill(): Promise<void> }> {
  const program = `require('node:net').createServer().listen(process.argv[1], () => console.log('listening'))`;
  const child = spawn(process.execPath, ['-e', program, join(folder, 'lock.other')], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await new Promise((resolve) => child.stdout.once('data', resolve));
  return {
    async kill() {
      const closed = new Promise((resolve) => child.once('close', resolve));
      child.kill('SIGKILL');
      await closed;
    },
  };
}

test('a folder that a living process has is refused; once that was killed, it is taken over at once', async () => {
  const folder = newFolder();
  const other = await owner(folder);
  await expect(lockFolder(folder)).rejects.toThrow(FolderLockedError);
  await expect(lockFolder(folder)).rejects.toThrow(/every edge needs a journal folder of its own/);
  await other.kill();
  expect(readdirSync(folder)).toEqual(['lock.other']);
  const unlock = await lockFolder(folder);
  await expect(lockFolder(folder)).rejects.toThrow(FolderLockedError);
  await unlock();
  expect(readdirSync(folder)).toEqual([]);
});

test('of many that begin at the same time, beside a stale lock, one at most has the folder', async () => {
  for (let round = 0; round < 20; round++) {
    const folder = newFolder();
    writeFileSync(join(folder, 'lock.stale'), ''); // Nobody answers on it.
    const outcomes = await Promise.allSettled(Array.from({ length: 5 }, () => lockFolder(folder)));
    const unlocks = outcomes.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
    expect(unlocks.length).toBeLessThanOrEqual(1);
    for (const unlock of unlocks) await unlock();
    // Whatever came of the race, the folder can be had afterwards.
    await (
      await lockFolder(folder)
    )();
  }
});

test('a path that is too long for a socket is said to be so', async () => {
  await expect(lockFolder(`/${'x'.repeat(120)}`)).rejects.toThrow(/choose a shorter one/);
});
