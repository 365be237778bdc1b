// Opens a file of events, whatever it is: NDJSON, a JSON array or CSV, plain or gzip. It is read as a stream, so
// that its size does not matter, and only as fast as its records are taken.
import { createReadStream, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { createGunzip } from 'node:zlib';
import { readCsv } from '../csv.ts';
import { ElementCutter } from './elements.ts';
import { withId } from './event-id.ts';
import { isSpace, LineCutter } from './lines.ts';
import { BYTE_ORDER_MARK, isEvent, type Cutter, type FileRecord } from './record.ts';
import { rowReader, type Mapping } from './rows.ts';

export const PLACES = { ndjson: 'line', array: 'element', csv: 'row' } as const;
export type FileFormat = keyof typeof PLACES;

export interface SourceOptions {
  /** For a CSV; null for JSON. */
  readonly mapping: Mapping | null;
  /** Under which name ids are made for events without one; null: they are not. */
  readonly idsFor: string | null;
}

export interface Source {
  readonly format: FileFormat;
  readonly bytes: number;
  /** Of the file, as it lies on the disk. */
  readonly bytesRead: () => number;
  /** In the order of the file; reading them throws when the file is not what it should be. */
  readonly records: AsyncGenerator<FileRecord[], void, void>;
}

const CHUNK_BYTES = 262_144;
const HEAD_BYTES = 65_536;
/** Rows of a CSV that are given together. */
const ROWS_TOGETHER = 500;
const GZIP = [0x1f, 0x8b];
const OPEN_ARRAY = 91;

export async function openSource(path: string, options: SourceOptions): Promise<Source> {
  const { size } = statSync(path);
  const isGzip = await beginsWithGzip(path);
  const file = createReadStream(path, { highWaterMark: CHUNK_BYTES });
  const chunks = isGzip ? unzipped(file) : file;
  const iterator = (chunks as AsyncIterable<Buffer>)[Symbol.asyncIterator]();
  const head = await headOf(iterator);
  const all = chained(head, iterator);
  const format: FileFormat =
    options.mapping !== null ? 'csv' : firstByte(head) === OPEN_ARRAY ? 'array' : 'ndjson';
  const found = options.mapping === null ? cut(all, cutterOf(format)) : rows(all, options.mapping);
  const records = options.idsFor === null ? found : identified(found, options.idsFor);
  return { format, bytes: size, bytesRead: () => file.bytesRead, records };
}

const cutterOf = (format: FileFormat): Cutter =>
  format === 'array' ? new ElementCutter() : new LineCutter();

async function beginsWithGzip(path: string): Promise<boolean> {
  const handle = await open(path, 'r');
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(2), 0, 2, 0);
    return bytesRead === 2 && buffer[0] === GZIP[0] && buffer[1] === GZIP[1];
  } finally {
    await handle.close();
  }
}

/** A file that cannot be read on must end the unpacking, which otherwise waits for more for ever. */
function unzipped(file: NodeJS.ReadableStream): AsyncIterable<Buffer> {
  const gunzip = createGunzip({ chunkSize: CHUNK_BYTES });
  file.on('error', (error) => gunzip.destroy(error));
  return file.pipe(gunzip);
}

/** The beginning, up to something that is no white space, without the mark of UTF-8. */
async function headOf(chunks: AsyncIterator<Buffer>): Promise<Buffer> {
  let head = Buffer.alloc(0);
  while (head.length < HEAD_BYTES && (head.length < BYTE_ORDER_MARK.length || firstByte(head) === null)) {
    const next = await chunks.next();
    if (next.done === true) break;
    head = Buffer.concat([head, next.value]);
  }
  const hasMark = head.subarray(0, BYTE_ORDER_MARK.length).equals(BYTE_ORDER_MARK);
  return hasMark ? head.subarray(BYTE_ORDER_MARK.length) : head;
}

function firstByte(bytes: Buffer): number | null {
  return bytes.find((byte) => !isSpace(byte)) ?? null;
}

async function* chained(head: Buffer, rest: AsyncIterator<Buffer>): AsyncGenerator<Buffer, void, void> {
  yield head;
  for (let next = await rest.next(); next.done !== true; next = await rest.next()) yield next.value;
}

async function* cut(chunks: AsyncIterable<Buffer>, cutter: Cutter): AsyncGenerator<FileRecord[], void, void> {
  for await (const chunk of chunks) yield cutter.push(chunk);
  yield cutter.end();
}

async function* rows(
  chunks: AsyncIterable<Buffer>,
  mapping: Mapping,
): AsyncGenerator<FileRecord[], void, void> {
  let read: ReturnType<typeof rowReader> | null = null;
  let place = 0;
  let together: FileRecord[] = [];
  for await (const row of readCsv(chunks)) {
    if (read === null) {
      read = rowReader(mapping, row);
      continue;
    }
    together.push(read((place += 1), row));
    if (together.length < ROWS_TOGETHER) continue;
    yield together;
    together = [];
  }
  yield together;
}

async function* identified(
  records: AsyncGenerator<FileRecord[], void, void>,
  name: string,
): AsyncGenerator<FileRecord[], void, void> {
  for await (const some of records) {
    yield some.map((record) =>
      isEvent(record) ? { place: record.place, event: withId(name, record.place, record.event) } : record,
    );
  }
}
