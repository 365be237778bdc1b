// The one reader of CSV files: a stream of rows with bounded memory, and what a cell means as a time or a number.
//
// Nothing is repaired by guessing. Bytes that are not UTF-8, and quotes that do not fit together, end the reading
// with an error that says where. Spaces around a cell that is not quoted are cut, and empty lines are passed over.
import { Readable, pipeline } from 'node:stream';
import { CsvError as ParseError, parse } from 'csv-parse';
import { parseInstant } from '../contract/window.ts';

/** A file that is no CSV; the message says where and why. */
export class CsvError extends Error {
  override readonly name = 'CsvError';
}

/** One row may take so many characters, so that a quote that is never closed does not take the file into memory. */
const rowCharactersMax = 1_048_576;

/** The rows, the header among them. They may differ in length: whoever reads them says what that means. */
export async function* readCsv(
  chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
): AsyncGenerator<readonly string[], void, void> {
  const parser = parse({
    bom: true,
    skip_empty_lines: true,
    trim: true,
    // Otherwise the end of the first line would be the only one that is known.
    record_delimiter: ['\r\n', '\n', '\r'],
    relax_column_count: true,
    max_record_size: rowCharactersMax,
  });
  // The callback is not needed: what fails on the way ends the parser, and with it the loop below.
  pipeline(Readable.from(wellFormed(chunks), { objectMode: true }), parser, () => undefined);
  try {
    for await (const row of parser) yield row as string[];
  } catch (error) {
    if (error instanceof ParseError) throw new CsvError(error.message, { cause: error });
    throw error;
  }
}

/** The parser would put U+FFFD in the place of bytes that are no text, and two ids could become one. */
async function* wellFormed(
  chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
): AsyncGenerator<Uint8Array, void, void> {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  let bytes = 0;
  const check = (chunk?: Uint8Array): void => {
    try {
      decoder.decode(chunk, { stream: chunk !== undefined });
    } catch (error) {
      throw new CsvError(`it is not UTF-8: a fault stands behind byte ${bytes}`, { cause: error });
    }
  };
  for await (const chunk of chunks) {
    check(chunk);
    bytes += chunk.length;
    yield chunk;
  }
  check();
}

/** A cell with a time as RFC 3339. Exports write "2023-11-16 18:17:03.9799600" and mean UTC. */
export function instantOfCell(cell: string): { readonly text: string; readonly ms: number } | null {
  const text = /[Zz]|[+-]\d{2}:\d{2}$/.test(cell) ? cell : `${cell.replace(' ', 'T')}Z`;
  const ms = parseInstant(text);
  return ms === null ? null : { text, ms };
}

/**
 * A cell as JSON: a number where that is the very same text (whole, at most 15 digits, no zero before it), and a
 * text otherwise. A meter reads both as the same quantity; a text keeps every digit, and the zeros of "007".
 */
export function jsonOfCell(cell: string): string {
  return /^(?:0|-?[1-9]\d{0,14})$/.test(cell) ? cell : JSON.stringify(cell);
}
