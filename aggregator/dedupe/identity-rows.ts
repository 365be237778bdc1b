/**
 * Rows of identities as ClickHouse sends them in RowBinary: an identity (UUID, 16 bytes), or one with its position and
 * payload hash behind it (UInt64 each, 32 bytes). Chunks may end anywhere.
 */
import { EARLIER } from '../position-in-shard.ts';

export const IDENTITY_BYTES = 16;
export const ENTRY_ROW_BYTES = 32;

/** What a row said. One object is filled again and again. */
export interface IdentityRow {
  /** Four words. */
  readonly identity: Uint32Array;
  /** As seen from the incarnation; EARLIER where only the identity was asked for. */
  position: number;
  /** Two words. */
  readonly payloadHash: Uint32Array;
}

export class IdentityRows {
  /** Rows so far. */
  rows = 0;
  readonly #rowBytes: number;
  readonly #incarnation: number;
  readonly #row: IdentityRow = {
    identity: new Uint32Array(4),
    position: EARLIER,
    payloadHash: new Uint32Array(2),
  };
  #rest: Uint8Array = new Uint8Array(0);

  constructor(rowBytes: typeof IDENTITY_BYTES | typeof ENTRY_ROW_BYTES, incarnation: number) {
    this.#rowBytes = rowBytes;
    this.#incarnation = incarnation;
  }

  /** Whether the last chunk ended with a row. */
  get whole(): boolean {
    return this.#rest.length === 0;
  }

  take(chunk: Uint8Array, take: (row: IdentityRow) => void): void {
    const bytes = this.#rest.length === 0 ? chunk : joined(this.#rest, chunk);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const [row, rowBytes] = [this.#row, this.#rowBytes];
    const { identity } = row;
    let at = 0;
    for (; at + rowBytes <= bytes.length; at += rowBytes) {
      // A UUID is two numbers of 64 bits, the high one first, each little-endian.
      identity[0] = view.getUint32(at + 4, true);
      identity[1] = view.getUint32(at, true);
      identity[2] = view.getUint32(at + 12, true);
      identity[3] = view.getUint32(at + 8, true);
      if (rowBytes === ENTRY_ROW_BYTES) this.#entry(view, at + IDENTITY_BYTES);
      take(row);
      this.rows += 1;
    }
    this.#rest = bytes.subarray(at);
  }

  #entry(view: DataView, at: number): void {
    const high = view.getUint32(at + 4, true);
    const incarnation = high >>> 24;
    if (incarnation > this.#incarnation)
      throw new Error(`a position of incarnation ${incarnation} seen from ${this.#incarnation}`);
    const row = this.#row;
    row.position =
      incarnation < this.#incarnation ? EARLIER : (high & 0xff_ffff) * 2 ** 32 + view.getUint32(at, true);
    row.payloadHash[0] = view.getUint32(at + 8, true);
    row.payloadHash[1] = view.getUint32(at + 12, true);
  }
}

function joined(rest: Uint8Array, chunk: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(rest.length + chunk.length);
  bytes.set(rest);
  bytes.set(chunk, rest.length);
  return bytes;
}
