/** One line on a terminal that says where the rows are which run now; nothing where nobody watches. */
export class Progress {
  readonly #now = new Map<string, string>();
  #width = 0;

  tell(name: string, state: string | null): void {
    if (state === null) this.#now.delete(name);
    else this.#now.set(name, state);
    if (!process.stderr.isTTY) return;
    const line = [...this.#now].map(([row, text]) => `${row} ${text}`).join('   ');
    process.stderr.write(`\r${line.padEnd(this.#width)}`);
    this.#width = line.length;
  }

  clear(): void {
    if (process.stderr.isTTY) process.stderr.write(`\r${' '.repeat(this.#width)}\r`);
  }
}
