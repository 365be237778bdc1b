// One process of Tallyline in a world of faults: it can be killed, frozen and asked how much memory it took, and what
// it prints is kept in a file beside the world's data.
import { appendFileSync, readFileSync } from 'node:fs';
import { start, type Running } from '../process.ts';

export interface StageOptions {
  readonly name: string;
  /** Relative to the folder above bench, in the build. */
  readonly file: string;
  readonly env: Record<string, string>;
  readonly logFile: string;
}

export class StageProcess {
  readonly name: string;
  readonly #running: Running;
  readonly #ready: Promise<Record<string, unknown>>;
  /** Whoever kills or stops it says so first: any other end is a finding. */
  #endWanted = false;
  #ended: number | null | undefined;
  #ops = '';

  constructor({ name, file, env, logFile }: StageOptions) {
    this.name = name;
    this.#running = start(file, [], env);
    const keep = (text: string): void => appendFileSync(logFile, text);
    keep(`--- ${name} starts as ${this.#running.pid}\n`);
    this.#running.onLine((line) => keep(`${JSON.stringify(line)}\n`));
    this.#running.child.stderr?.on('data', (chunk: Buffer) => keep(chunk.toString()));
    this.#ready = this.#running.line((line) => line['ready'] === true);
    // Met by whoever waits for it; a process that is killed while it starts is no mistake.
    this.#ready.catch(() => {});
    void this.#running.exited.then((code) => {
      this.#ended = code;
      keep(`--- ${name} (${this.#running.pid}) ended with ${code ?? 'a signal'}\n`);
    });
  }

  get pid(): number {
    return this.#running.pid;
  }

  /** Resolves when it says that it is ready; rejects when it ends before. */
  async ready(): Promise<this> {
    this.#ops = String((await this.#ready)['ops']);
    return this;
  }

  /** What the process says that ended without being asked to; null while it runs, or when it was. */
  get unexpectedEnd(): string | null {
    if (this.#ended === undefined || this.#endWanted) return null;
    return `${this.name} (pid ${this.pid}) ended by itself with ${this.#ended ?? 'a signal'}`;
  }

  /** The sum of a metric's series; NaN when there are none. */
  async metric(name: string): Promise<number> {
    const text = await (await fetch(`${this.#ops}/metrics`)).text();
    const values = [...text.matchAll(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, 'gm'))].map((match) =>
      Number(match[1]),
    );
    return values.length === 0 ? NaN : values.reduce((sum, value) => sum + value, 0);
  }

  /** Why it says that it is not ready; '' when it is. */
  async unreadyBecause(): Promise<string> {
    const answer = await fetch(`${this.#ops}/readyz`);
    return answer.ok ? '' : await answer.text();
  }

  /** The most resident memory that it ever had, in bytes; null where the system does not tell. */
  get peakBytes(): number | null {
    try {
      const kibibytes = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${this.pid}/status`, 'utf8'))?.[1];
      return kibibytes === undefined ? null : Number(kibibytes) * 1_024;
    } catch {
      return null;
    }
  }

  freeze(): void {
    this.#running.child.kill('SIGSTOP');
  }

  thaw(): void {
    this.#running.child.kill('SIGCONT');
  }

  async kill(): Promise<void> {
    this.#endWanted = true;
    this.#running.child.kill('SIGKILL');
    await this.#running.exited;
  }

  async stop(): Promise<void> {
    this.#endWanted = true;
    if (this.#ended === undefined) this.thaw();
    await this.#running.stop();
  }
}
