/**
 * Whether the process is ready, from several that each know a reason why it is not. It becomes ready for the first time
 * when the start is done, and not when the first reason against it has gone.
 */
export class Readiness {
  readonly #tell: (ready: boolean, reason?: string) => void;
  /** By who said it. */
  readonly #reasons = new Map<string, string>();
  #started = false;
  #told = '';

  constructor(tell: (ready: boolean, reason?: string) => void) {
    this.#tell = tell;
  }

  started(): void {
    this.#started = true;
    if (this.#reasons.size === 0) this.#tell(true);
    else this.#say();
  }

  /** Null: nothing speaks against it any more. */
  set(who: string, reason: string | null): void {
    if (reason === null) this.#reasons.delete(who);
    else this.#reasons.set(who, reason);
    if (this.#reasons.size > 0) return this.#say();
    if (this.#told === '') return;
    this.#told = '';
    if (this.#started) this.#tell(true);
  }

  #say(): void {
    const reasons = [...this.#reasons.values()].join('; ');
    if (reasons === this.#told) return;
    this.#told = reasons;
    this.#tell(false, reasons);
  }
}
