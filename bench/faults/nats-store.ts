// The folder in which NATS keeps its streams, for what is done to it while NATS does not run.
import { rmSync } from 'node:fs';
import { cp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { streamFolder } from './storage.ts';

export class NatsStore {
  readonly folder: string;
  readonly #kept: string;

  /** `dir` is the folder of the world's engines. */
  constructor(dir: string) {
    this.folder = join(dir, 'nats', 'store');
    this.#kept = join(dir, 'nats-kept');
  }

  /** Remembers it as it is now. */
  async keep(): Promise<void> {
    await rm(this.#kept, { recursive: true, force: true });
    await cp(this.folder, this.#kept, { recursive: true });
  }

  /** Cuts it back to what was kept. */
  async cutBack(): Promise<void> {
    await rm(this.folder, { recursive: true, force: true });
    await cp(this.#kept, this.folder, { recursive: true });
  }

  /** The streams of these shards are gone. */
  takeAway(shards: readonly number[]): void {
    for (const shard of shards) rmSync(streamFolder(this.folder, shard), { recursive: true, force: true });
  }
}
