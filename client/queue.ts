import type { EncodedEvent } from './encode.ts';

export interface Entry extends EncodedEvent {
  /** Counts from 1 in the order of `record`. */
  readonly number: number;
}

/**
 * Whether an event corrects another one, from its JSON: an event that came from disk is nothing else. A key of `data`
 * with one of these names is taken for it too, and costs nothing but its batch's turn.
 */
function isCorrection(json: string): boolean {
  return json.includes('"voids":') || json.includes('"amends":');
}

/** The events that wait to be sent, in the order in which they were recorded. */
export class EventQueue {
  #entries: Entry[] = [];
  #bytes = 0;
  /** Numbers of the corrections among them. */
  #corrections = new Set<number>();

  get length(): number {
    return this.#entries.length;
  }

  get bytes(): number {
    return this.#bytes;
  }

  push(entry: Entry): void {
    this.#entries.push(entry);
    this.#count(entry);
  }

  /** Whether one of the next `eventsMax` is a correction. */
  correctsWithin(eventsMax: number): boolean {
    if (this.#corrections.size === 0) return false;
    const last = this.#entries[Math.min(eventsMax, this.#entries.length) - 1]?.number ?? 0;
    for (const number of this.#corrections) if (number <= last) return true;
    return false;
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
    for (const { bytes, number } of batch) {
      this.#bytes -= bytes;
      this.#corrections.delete(number);
    }
    return batch;
  }

  /** To their places, not to the end: what is old goes first. */
  putBack(batch: readonly Entry[]): void {
    this.#entries = [...batch, ...this.#entries].sort((a, b) => a.number - b.number);
    for (const entry of batch) this.#count(entry);
  }

  takeAll(): Entry[] {
    const entries = this.#entries;
    this.#entries = [];
    this.#bytes = 0;
    this.#corrections.clear();
    return entries;
  }

  #count({ bytes, number, json }: Entry): void {
    this.#bytes += bytes;
    if (isCorrection(json)) this.#corrections.add(number);
  }
}
