/**
 * Reads ClickHouse's Native format back, as far as our encoders write it: the simulated tables hold what stands in the
 * bodies and not what was meant to. Shares no code with the encoders.
 */
export type Cell = string | number | bigint | readonly string[] | Readonly<Record<string, string>>;
export type NativeRow = Readonly<Record<string, Cell>>;

export function decodeNative(body: Uint8Array): NativeRow[] {
  const reader = new Reader(body);
  const columns = reader.varint();
  const count = reader.varint();
  const rows = Array.from({ length: count }, (): Record<string, Cell> => ({}));
  for (let column = 0; column < columns; column++) {
    const name = reader.text();
    const cells = reader.cells(reader.text(), count);
    for (let row = 0; row < count; row++) rows[row]![name] = cells[row]!;
  }
  if (!reader.atEnd) throw new Error('bytes behind a Native block');
  return rows;
}

class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(body: Uint8Array) {
    this.#bytes = Buffer.from(body.buffer, body.byteOffset, body.byteLength);
  }

  get atEnd(): boolean {
    return this.#at === this.#bytes.length;
  }

  varint(): number {
    let value = 0;
    for (let shift = 1; ; shift *= 128) {
      const byte = this.#bytes[this.#at++]!;
      value += (byte & 127) * shift;
      if (byte < 128) return value;
    }
  }

  text(): string {
    const length = this.varint();
    this.#at += length;
    if (this.#at > this.#bytes.length) throw new Error('a text beyond the end of a Native block');
    return this.#bytes.toString('utf8', this.#at - length, this.#at);
  }

  cells(type: string, rows: number): Cell[] {
    switch (type) {
      case 'String':
        return this.#texts(rows);
      case 'LowCardinality(String)':
        return this.#dictionary(rows);
      case 'Array(String)':
        return this.#lists(rows, this.#ends(rows));
      case 'UInt8':
        return this.#each(rows, 1, (at) => this.#bytes[at]!);
      case 'UInt16':
        return this.#each(rows, 2, (at) => this.#bytes.readUInt16LE(at));
      case 'UInt32':
      case "DateTime('UTC')":
        return this.#each(rows, 4, (at) => this.#bytes.readUInt32LE(at));
      case 'UInt64':
        return this.#each(rows, 8, (at) => this.#bytes.readBigUInt64LE(at));
      case "DateTime64(3, 'UTC')":
        return this.#each(rows, 8, (at) => Number(this.#bytes.readBigInt64LE(at)));
      case 'Decimal(38, 9)':
        return this.#each(
          rows,
          16,
          (at) => (this.#bytes.readBigInt64LE(at + 8) << 64n) + this.#bytes.readBigUInt64LE(at),
        );
      case 'UUID':
        return this.#each(rows, 16, (at) => {
          const half = (from: number): string =>
            this.#bytes.readBigUInt64LE(from).toString(16).padStart(16, '0');
          return half(at) + half(at + 8);
        });
      default:
        throw new Error(`a column of type ${type}: teach bench/simulate/native-rows.ts to read it`);
    }
  }

  #each(rows: number, bytes: number, read: (at: number) => Cell): Cell[] {
    const start = this.#at;
    this.#at += rows * bytes;
    return Array.from({ length: rows }, (_, row) => read(start + row * bytes));
  }

  #texts(count: number): string[] {
    return Array.from({ length: count }, () => this.text());
  }

  #u64(): number {
    this.#at += 8;
    return Number(this.#bytes.readBigUInt64LE(this.#at - 8));
  }

  #dictionary(rows: number): string[] {
    if (this.#u64() !== 1 || this.#u64() !== 0x602) throw new Error('a dictionary of another kind');
    const texts = this.#texts(this.#u64());
    if (this.#u64() !== rows) throw new Error('a dictionary for another number of rows');
    return this.#each(rows, 4, (at) => texts[this.#bytes.readUInt32LE(at)]!) as string[];
  }

  #ends(rows: number): number[] {
    return Array.from({ length: rows }, () => this.#u64());
  }

  #lists(rows: number, ends: readonly number[]): string[][] {
    const texts = this.#texts(ends.at(-1) ?? 0);
    return Array.from({ length: rows }, (_, row) => texts.slice(row === 0 ? 0 : ends[row - 1], ends[row]));
  }
}
