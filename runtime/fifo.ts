/**
 * First in, first out. What was taken is let go at once, also when something always waits behind it: a plain array that
 * is read by an index and emptied when all of it was read keeps everything for as long as its reader lags, and
 * `Array.shift` moves all that waits.
 */
const COMPACT_MIN = 1_024;

export class Fifo<T> {
  #items: (T | undefined)[] = [];
  #first = 0;

  get length(): number {
    return this.#items.length - this.#first;
  }

  push(item: T): void {
    this.#items.push(item);
  }

  /** The oldest; undefined when nothing waits. */
  take(): T | undefined {
    if (this.length === 0) return undefined;
    const item = this.#items[this.#first];
    this.#items[this.#first++] = undefined;
    // Each item is moved once on average.
    if (this.#first >= COMPACT_MIN && this.#first * 2 >= this.#items.length) {
      this.#items = this.#items.slice(this.#first);
      this.#first = 0;
    }
    return item;
  }
}
