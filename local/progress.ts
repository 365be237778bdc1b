// Shows what starts: one line a part, its time when it is ready. On a terminal the waiting parts are shown in
// a line that is redrawn; elsewhere only finished lines are printed.

const redrawIntervalMs = 100;
const nameWidth = 13;

export class Progress {
  readonly #out: NodeJS.WriteStream;
  readonly #startedAt = performance.now();
  readonly #waiting = new Map<string, number>();
  #timer: NodeJS.Timeout | undefined;

  constructor(out: NodeJS.WriteStream) {
    this.#out = out;
    if (out.isTTY) {
      this.#timer = setInterval(() => this.#redraw(), redrawIntervalMs);
      this.#timer.unref();
    }
  }

  /** Runs `work` under a name; prints a line when it is done. `detail` turns its result into what the line says. */
  async step<T>(name: string, work: () => Promise<T>, detail: (result: T) => string): Promise<T> {
    const begun = performance.now();
    this.#waiting.set(name, begun);
    try {
      const result = await work();
      this.#waiting.delete(name);
      const seconds = ((performance.now() - begun) / 1_000).toFixed(1).padStart(5);
      this.note(`  ${name.padEnd(nameWidth)}${seconds} s  ${detail(result)}`);
      return result;
    } catch (error) {
      this.#waiting.delete(name);
      throw error;
    }
  }

  note(line: string): void {
    this.#clear();
    this.#out.write(`${line}\n`);
  }

  elapsedSeconds(): string {
    return ((performance.now() - this.#startedAt) / 1_000).toFixed(1);
  }

  end(): void {
    clearInterval(this.#timer);
    this.#clear();
  }

  #redraw(): void {
    if (this.#waiting.size === 0) return;
    this.#clear();
    this.#out.write(`  ${this.elapsedSeconds()} s  starting ${[...this.#waiting.keys()].join(', ')} …`);
  }

  #clear(): void {
    if (this.#out.isTTY) this.#out.write('\r\x1b[K');
  }
}
