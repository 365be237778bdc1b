/**
 * Dense numbers for pairs of numbers: the same pair, the same number, 0 for the first. For what a block is made of,
 * where a Map with a number made of both costs five times as much.
 */
const PAIRS_FIRST = 1_024;

export class PairTable {
  count = 0;
  #first = new Uint32Array(PAIRS_FIRST);
  #second = new Uint32Array(PAIRS_FIRST);
  /** 1 + a number. */
  #slots = new Uint32Array(PAIRS_FIRST * 2);

  of(first: number, second: number): number {
    const mask = this.#slots.length - 1;
    let slot = slotOf(first, second) & mask;
    for (;;) {
      const number = this.#slots[slot]! - 1;
      if (number < 0) break;
      if (this.#first[number] === first && this.#second[number] === second) return number;
      slot = (slot + 1) & mask;
    }
    return this.#add(first, second, slot);
  }

  clear(): void {
    this.count = 0;
    this.#slots.fill(0);
  }

  #add(first: number, second: number, slot: number): number {
    const number = this.count++;
    this.#first[number] = first;
    this.#second[number] = second;
    this.#slots[slot] = number + 1;
    if (this.count === this.#first.length) this.#grow();
    return number;
  }

  #grow(): void {
    const capacity = this.#first.length * 2;
    const [first, second] = [new Uint32Array(capacity), new Uint32Array(capacity)];
    first.set(this.#first);
    second.set(this.#second);
    [this.#first, this.#second] = [first, second];
    this.#slots = new Uint32Array(capacity * 2);
    const mask = this.#slots.length - 1;
    for (let number = 0; number < this.count; number++) {
      let slot = slotOf(first[number]!, second[number]!) & mask;
      while (this.#slots[slot] !== 0) slot = (slot + 1) & mask;
      this.#slots[slot] = number + 1;
    }
  }
}

/** The numbers are dense and of our own making, so that this spreads them. */
function slotOf(first: number, second: number): number {
  const mixed = Math.imul(first ^ Math.imul(second, 0x85ebca6b), 0x9e3779b1);
  return mixed ^ (mixed >>> 15);
}
