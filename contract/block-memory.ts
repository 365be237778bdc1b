/**
 * Memory for finished blocks, cut from larger pieces: at low load a block holds one event, and an allocation and
 * four views of its own would be much of its cost. A piece lives as long as one of its blocks.
 */
const PIECE_BYTES = 65_536;

export class BlockMemory {
  // One piece, as what blocks are made of.
  u8 = new Uint8Array(0);
  u32 = new Uint32Array(0);
  f64 = new Float64Array(0);
  #used = 0;

  /** Room for a block, at a multiple of 8: its offset in the piece. What stands in it is anything. */
  take(bytes: number): number {
    if (this.#used + bytes > this.u8.length) this.#begin(bytes);
    const start = this.#used;
    this.#used = (start + bytes + 7) & ~7;
    return start;
  }

  /** Not zeroed, which would be a third of what it costs to write a full block. */
  #begin(least: number): void {
    const { buffer } = Buffer.allocUnsafeSlow(Math.max(PIECE_BYTES, (least + 7) & ~7));
    this.u8 = new Uint8Array(buffer);
    this.u32 = new Uint32Array(buffer);
    this.f64 = new Float64Array(buffer);
    this.#used = 0;
  }
}
