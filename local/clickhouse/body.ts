// The body of a request: decoded, bounded, and split into the statement and the data behind it.
import { createWriteStream } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { PassThrough, Readable, Transform, pipeline } from 'node:stream';
import { pipeline as pipelineOf } from 'node:stream/promises';
import { createBrotliDecompress, createGunzip, createInflate } from 'node:zlib';
import { refuse, Refusal } from './error.ts';
import { isWord, nextToken } from './lexer.ts';
import type { BodyEncoding } from './request.ts';
import { readStatement } from './statement.ts';
import type { Statement } from './statement.ts';

export interface BodyLimits {
  /** A statement without its data. */
  readonly statementBytesMax: number;
  /** Everything a request may carry, decompressed. */
  readonly bodyBytesMax: number;
}

function decoderOf(encoding: BodyEncoding): Transform {
  switch (encoding) {
    case 'gzip':
      return createGunzip();
    case 'deflate':
      return createInflate();
    case 'br':
      return createBrotliDecompress();
    case 'identity':
      return new PassThrough();
  }
}

function limiter(bytesMax: number): Transform {
  let bytes = 0;
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      bytes += chunk.length;
      if (bytes > bytesMax) done(refuse(229, `The body is larger than ${bytesMax} bytes; send it in parts.`));
      else done(null, chunk);
    },
  });
}

/** The decoded body. Its errors are Refusals where the client is at fault. */
export function openBody(request: IncomingMessage, encoding: BodyEncoding, bytesMax: number): Readable {
  const limited = limiter(bytesMax);
  // The outcome is seen by whoever reads `limited`.
  pipeline(request, decoderOf(encoding), limited, () => undefined);
  return limited;
}

export interface ReadResult {
  readonly statement: Statement;
  /** What follows the statement, for an INSERT; otherwise empty. */
  readonly data: AsyncIterable<Buffer>;
}

async function* chain(first: Buffer, rest: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  if (first.length > 0) yield first;
  yield* rest;
}

// eslint-disable-next-line require-yield
async function* nothing(): AsyncGenerator<Buffer> {
  return;
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function fromLatin1(text: string): string {
  try {
    return utf8.decode(Buffer.from(text, 'latin1'));
  } catch (error) {
    throw new Refusal(refuse(62, 'Syntax error: the statement is not UTF-8.').error, { cause: error });
  }
}

/** Statements are cut as bytes (latin1), so that positions are byte positions, and then read as UTF-8. */
function decodeStatement(statement: Statement): Statement {
  switch (statement.kind) {
    case 'empty':
    case 'refused':
      return statement;
    case 'rows':
      return { ...statement, head: fromLatin1(statement.head), tail: fromLatin1(statement.tail) };
    case 'answer':
    case 'command':
      return { ...statement, sql: fromLatin1(statement.sql) };
    case 'insert':
      return {
        ...statement,
        head: fromLatin1(statement.head),
        settings: fromLatin1(statement.settings),
        input:
          statement.input === null
            ? null
            : {
                structure: fromLatin1(statement.input.structure),
                rest: fromLatin1(statement.input.rest),
              },
      };
  }
}

/**
 * Reads the statement from the URL's query and the body, and as little more of the body as it can.
 *
 * @throws Refusal when the statement is too large.
 */
export async function readBody(query: string, body: Readable, limits: BodyLimits): Promise<ReadResult> {
  const source = (body as AsyncIterable<Buffer>)[Symbol.asyncIterator]();
  const rest: AsyncIterable<Buffer> = { [Symbol.asyncIterator]: () => source };
  const beginning = Buffer.from(query, 'utf8');
  const parts: Buffer[] = [beginning];
  let bytes = beginning.length;
  let tryAt = 0;

  const tryInsert = (whole: boolean): ReadResult | null => {
    const buffer = parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts);
    parts.splice(0, parts.length, buffer);
    const text = buffer.toString('latin1');
    if (!whole && !isWord(nextToken(text, 0), 'INSERT')) return null;
    const statement = readStatement(text);
    // Data must have begun: what is cut off before that could still be a longer word.
    if (!whole && (statement.kind !== 'insert' || statement.dataStart >= text.length)) return null;
    const data = statement.kind === 'insert' ? chain(buffer.subarray(statement.dataStart), rest) : nothing();
    return { statement: decodeStatement(statement), data };
  };

  // An INSERT in the URL is complete: the body is its data.
  if (query !== '') {
    const text = beginning.toString('latin1');
    const statement = readStatement(text);
    if (statement.kind === 'insert') return tryInsert(true) as ReadResult;
    parts.push(Buffer.from('\n'));
    bytes += 1;
  }
  for (let step = await source.next(); step.done !== true; step = await source.next()) {
    parts.push(step.value);
    bytes += step.value.length;
    if (bytes < tryAt) continue;
    tryAt = bytes * 2;
    const insert = tryInsert(false);
    if (insert !== null) return insert;
    if (bytes > limits.statementBytesMax) {
      throw refuse(229, `The statement is larger than ${limits.statementBytesMax} bytes.`);
    }
  }
  return tryInsert(true) as ReadResult;
}

/**
 * Writes the data into a file, whole: an insert begins only when its last byte has arrived, so a client that
 * goes away half way inserts nothing.
 *
 * @returns the number of bytes
 */
export async function spool(data: AsyncIterable<Buffer>, path: string): Promise<number> {
  let bytes = 0;
  const counted = async function* (): AsyncGenerator<Buffer> {
    for await (const chunk of data) {
      bytes += chunk.length;
      yield chunk;
    }
  };
  await pipelineOf(
    Readable.from(counted(), { objectMode: true }),
    createWriteStream(path, { flags: 'w', mode: 0o600 }),
  );
  return bytes;
}
