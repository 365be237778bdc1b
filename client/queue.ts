import type { EncodedEvent } from './encode.ts';

export interface Entry extends EncodedEvent {
  /** Counts from 1 in the order of `record`. */
  readonly number: number;
}

/** The events that wait to be sent, in the order in which they were recorded. */
export class EventQueue {
  #entries: Entry[] = [];
  #bytes = 0;

  get length(): number {
    return this.#entries.length;
  }

  get bytes(): number {
    return this.#bytes;
  }

  push(entry: Entry): void {
    this.#entries.push(entry);
    this.#bytes += entry.bytes;
  }

  /** The first ones that go into one request; an event larger than a request goes alone. */
  take(eventsMax: number, bytesMax: number): Entry[] {
    let count = 0;
    let bytes = 2;
    while (count < this.#entries.length && count < eventsMax) {
      const more = this.#entries[count]!.bytes + 1;
      if (count > 0 && bytes + more > bytesMax) break;
      bytes += more;
      count += 1;
    }
    const batch = this.#entries.splice(0, count);
    for (const entry of batch) this.#bytes -= entry.bytes;
    return batch;
  }

  /** To their places, not to the end: what is old goes first. */
  putBack(batch: readonly Entry[]): void {
    this.#entries = [...batch, ...this.#entries].sort((a, b) => a.number - b.number);
    for (const { bytes } of batch) this.#bytes += bytes;
  }

  takeAll(): Entry[] {
    const entries = this.#entries;
    this.#entries = [];
    this.#bytes = 0;
    return entries;
  }
}
