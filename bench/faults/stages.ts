// The processes of a world, by name. A name outlives its process: what is killed is started again under it.
import { join } from 'node:path';
import { StageProcess } from './stage.ts';

export class Stages {
  readonly #logFolder: string;
  readonly #running = new Map<string, StageProcess>();
  /** Those that ended by themselves, and were started again. */
  readonly #ended: StageProcess[] = [];

  constructor(logFolder: string) {
    this.#logFolder = logFolder;
  }

  get running(): readonly StageProcess[] {
    return [...this.#running.values()];
  }

  get all(): readonly StageProcess[] {
    return [...this.running, ...this.#ended];
  }

  get(name: string): StageProcess {
    const stage = this.#running.get(name);
    if (stage === undefined) throw new Error(`no ${name} was started`);
    return stage;
  }

  /** Resolves when it says that it is ready. `file` is relative to the build. */
  async start(name: string, file: string, env: Record<string, string>): Promise<StageProcess> {
    const before = this.#running.get(name);
    if (before !== undefined && before.unexpectedEnd !== null) this.#ended.push(before);
    const stage = new StageProcess({ name, file, env, logFile: join(this.#logFolder, `${name}.log`) });
    this.#running.set(name, stage);
    return stage.ready();
  }

  /** kill -9. One that has ended by itself before is a finding. */
  async kill(name: string): Promise<void> {
    const stage = this.get(name);
    const unexpected = stage.unexpectedEnd;
    if (unexpected !== null) throw new Error(unexpected);
    await stage.kill();
  }

  /** The process `from` is known as `to` from now on, instead of the one that was. */
  rename(from: string, to: string): void {
    this.#running.set(to, this.get(from));
    this.#running.delete(from);
  }
}
