// Answers in ClickHouse's form: bytes with a summary, rows as they come, or an error.
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { finished } from 'node:stream/promises';
import { constants as zlib, createGzip, gzipSync } from 'node:zlib';
import type { Role } from './access.ts';
import { formatError, httpStatusOf } from './error.ts';
import type { ClickHouseError } from './error.ts';
import { contentTypeOf } from './request.ts';
import type { QueryRequest } from './request.ts';
import type { RunningRows } from './session.ts';

/** One request on its way through the steps of server.ts. */
export interface Exchange {
  readonly request: QueryRequest;
  readonly response: ServerResponse;
  readonly role: Role;
  /** Aborts when the client has gone, or the process stops. */
  readonly aborted: AbortSignal;
  /** Of performance.now(). */
  readonly startedAt: number;
  /** The engine's version, which every error names. */
  readonly version: string;
}

export interface Counts {
  readonly readRows?: number;
  readonly readBytes?: number;
  readonly writtenRows?: number;
  readonly writtenBytes?: number;
}

export interface RowsLimits {
  /** Of a result, what is held back for a status and a summary. */
  readonly holdBytesMax: number;
  /** A client that takes nothing of its answer for so long is cut off. */
  readonly idleMs: number;
}

function summaryOf(counts: Counts, startedAt: number): string {
  return JSON.stringify({
    read_rows: String(counts.readRows ?? 0),
    read_bytes: String(counts.readBytes ?? 0),
    written_rows: String(counts.writtenRows ?? 0),
    written_bytes: String(counts.writtenBytes ?? 0),
    total_rows_to_read: '0',
    result_rows: String(counts.readRows ?? 0),
    result_bytes: String(counts.readBytes ?? 0),
    elapsed_ns: String(Math.round((performance.now() - startedAt) * 1e6)),
  });
}

/** Once a part of an answer has gone, an error can only cut it off. */
export function answerError(
  response: ServerResponse,
  error: ClickHouseError,
  version: string,
  status = httpStatusOf(error.code),
): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const body = Buffer.from(formatError(error, version));
  response.writeHead(status, {
    'Content-Type': 'text/plain; charset=UTF-8',
    'Content-Length': body.length,
    'X-ClickHouse-Exception-Code': String(error.code),
    ...(status === 401 ? { 'WWW-Authenticate': 'Basic realm="ClickHouse server HTTP API"' } : {}),
    ...(status === 503 ? { 'Retry-After': '1' } : {}),
  });
  response.end(body);
}

/** Everything at once, with a summary that is true. */
export function answerBytes(exchange: Exchange, format: string, bytes: Uint8Array, counts: Counts): void {
  const { request, response } = exchange;
  const zip = request.acceptsGzip && bytes.length > 0;
  const body = zip ? gzipSync(bytes, { level: zlib.Z_BEST_SPEED }) : bytes;
  response.writeHead(200, {
    'Content-Type': contentTypeOf(format),
    'Content-Length': body.length,
    'X-ClickHouse-Format': format,
    'X-ClickHouse-Summary': summaryOf(counts, exchange.startedAt),
    ...(zip ? { 'Content-Encoding': 'gzip' } : {}),
  });
  response.end(body);
}

/** Sends a result as it comes. Returns when it has gone, or nobody takes it any more. */
async function streamRows(
  exchange: Exchange,
  rows: RunningRows,
  format: string,
  held: Buffer[],
  idleMs: number,
): Promise<void> {
  const { request, response, aborted } = exchange;
  response.writeHead(200, {
    'Content-Type': contentTypeOf(format),
    'X-ClickHouse-Format': format,
    'X-ClickHouse-Summary': summaryOf({}, exchange.startedAt),
    ...(request.acceptsGzip ? { 'Content-Encoding': 'gzip' } : {}),
  });
  const gzip = request.acceptsGzip ? createGzip({ level: zlib.Z_BEST_SPEED }) : null;
  gzip?.pipe(response);
  const out = gzip ?? response;
  const patience = (): AbortSignal => AbortSignal.any([aborted, AbortSignal.timeout(idleMs)]);
  const write = async (chunk: Buffer): Promise<void> => {
    if (!out.write(chunk)) await once(out, 'drain', { signal: patience() });
  };
  for (const chunk of held.splice(0)) await write(chunk);
  for (let step = await rows.chunks.next(); step.done !== true; step = await rows.chunks.next())
    await write(step.value);
  const outcome = await rows.outcome;
  if (outcome.kind === 'failed') {
    await write(Buffer.from(`\n${formatError(outcome.error, exchange.version)}`));
    // Without a last chunk the client knows that this is not the whole.
    response.destroy();
    return;
  }
  out.end();
  await finished(response, { signal: patience() });
}

/**
 * Answers with the rows of a running statement. Their beginning is held back until the statement has ended or
 * the hold is full.
 */
export async function answerRows(
  exchange: Exchange,
  rows: RunningRows,
  format: string,
  limits: RowsLimits,
): Promise<void> {
  const held: Buffer[] = [];
  let bytes = 0;
  while (bytes <= limits.holdBytesMax) {
    const step = await rows.chunks.next();
    if (step.done !== true) {
      held.push(step.value);
      bytes += step.value.length;
      continue;
    }
    const outcome = await rows.outcome;
    if (outcome.kind === 'failed') {
      answerError(exchange.response, outcome.error, exchange.version);
      return;
    }
    const { rowsRead, bytesRead } = outcome.result;
    answerBytes(exchange, format, Buffer.concat(held), { readRows: rowsRead, readBytes: bytesRead });
    return;
  }
  await streamRows(exchange, rows, format, held, limits.idleMs);
}
