/**
 * Dense numbers for pairs of numbers: the same pair, the same number, 0 for the first. For what a block is made of,
 * where a Map with a number made of both costs five times as much.
 *
 * A pair stands where it is looked for, with its number and the *turn* in which it was entered: one line of the cache a
 * look, and to clear the table is to begin another turn.
 */
const SLOTS_FIRST = 2_048;
/** Words of a slot: first, second, turn, number. */
const WORDS = 4;
const TURNS = 2 ** 32;

export class PairTable {
  count = 0;
  #slots = new Uint32Array(SLOTS_FIRST * WORDS);
  #mask = SLOTS_FIRST - 1;
  #turn = 1;

  of(first: number, second: number): number {
    const slots = this.#slots;
    const turn = this.#turn;
    for (let slot = slotOf(first, second) & this.#mask; ; slot = (slot + 1) & this.#mask) {
      const at = slot * WORDS;
      if (slots[at + 2] !== turn) return this.#add(first, second, at);
      if (slots[at] === first && slots[at + 1] === second) return slots[at + 3]!;
    }
  }

  clear(): void {
    this.count = 0;
    this.#turn += 1;
    if (this.#turn < TURNS) return;
    this.#turn = 1;
    this.#slots.fill(0);
  }

  #add(first: number, second: number, at: number): number {
    const number = this.count++;
    this.#set(first, second, number, at);
    if (this.count * 2 > this.#mask) this.#grow();
    return number;
  }

  #set(first: number, second: number, number: number, at: number): void {
    const slots = this.#slots;
    slots[at] = first;
    slots[at + 1] = second;
    slots[at + 2] = this.#turn;
    slots[at + 3] = number;
  }

  #grow(): void {
    const old = this.#slots;
    this.#slots = new Uint32Array(old.length * 2);
    this.#mask = this.#slots.length / WORDS - 1;
    for (let from = 0; from < old.length; from += WORDS) {
      if (old[from + 2] !== this.#turn) continue;
      let slot = slotOf(old[from]!, old[from + 1]!) & this.#mask;
      while (this.#slots[slot * WORDS + 2] === this.#turn) slot = (slot + 1) & this.#mask;
      this.#set(old[from]!, old[from + 1]!, old[from + 3]!, slot * WORDS);
    }
  }
}

/** The numbers are dense and of our own making, so that this spreads them. */
function slotOf(first: number, second: number): number {
  const mixed = Math.imul(first ^ Math.imul(second, 0x85ebca6b), 0x9e3779b1);
  return mixed ^ (mixed >>> 15);
}
