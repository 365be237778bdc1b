// Runs one statement in its session, and cancels it when its client goes away.
import { setTimeout as delay } from 'node:timers/promises';
import { answerBytes, answerError, answerRows } from './answer.ts';
import type { Exchange, RowsLimits } from './answer.ts';
import type { Chdb } from './chdb.ts';
import { refuse } from './error.ts';
import { insertFile, killQuery, startRows } from './session.ts';
import type { Session } from './sessions.ts';
import type { Statement } from './statement.ts';

const cancelIntervalMs = 250;
const nothing = new Uint8Array(0);

export interface RunOptions {
  readonly chdb: Chdb;
  readonly limits: RowsLimits;
  /** The named pipe of this statement's slot. */
  readonly pipe: string;
  /** The file with the data of an INSERT. */
  readonly spooled: string | null;
  readonly onError: (what: string, error: unknown) => void;
}

/**
 * Waits for a statement. When the exchange is aborted before it ends, the statement is cancelled, again and
 * again until it has ended: a cancel that comes before the engine has registered the statement finds nothing.
 */
async function cancellable<T>(
  exchange: Exchange,
  session: Session,
  options: RunOptions,
  statement: Promise<T>,
): Promise<T> {
  let ended = false;
  const cancel = async (): Promise<void> => {
    session.spoil();
    while (!ended) {
      await killQuery(options.chdb, session.comment);
      await delay(cancelIntervalMs);
    }
  };
  const onAbort = (): void => {
    cancel().catch((error: unknown) => options.onError('cancelling a statement', error));
  };
  if (exchange.aborted.aborted) onAbort();
  else exchange.aborted.addEventListener('abort', onAbort, { once: true });
  try {
    return await statement;
  } finally {
    ended = true;
    exchange.aborted.removeEventListener('abort', onAbort);
  }
}

async function runRows(
  exchange: Exchange,
  session: Session,
  statement: Extract<Statement, { kind: 'rows' }>,
  options: RunOptions,
): Promise<void> {
  const format = statement.format ?? exchange.request.defaultFormat;
  const rows = startRows(session, statement, format, options.pipe);
  const ended = cancellable(exchange, session, options, rows.outcome);
  try {
    await answerRows(exchange, rows, format, options.limits);
  } catch (error) {
    // Nobody takes the answer any more. Losing the response also cancels the statement.
    exchange.response.destroy();
    throw error;
  } finally {
    // The pipe is read to its end even when nobody wants the rows: without a reader the engine would wait for
    // ever to open it, or to write to it, and a cancel does not reach it there. The session must not close, nor
    // the pipe be used again, before the engine is through.
    await drain(rows.chunks);
    await ended;
    rows.pipe.close();
  }
}

async function drain(chunks: AsyncIterator<Buffer>): Promise<void> {
  for (let step = await chunks.next(); step.done !== true; step = await chunks.next());
}

/** Runs the statement and answers. Errors of the engine are thrown. */
export async function runStatement(
  exchange: Exchange,
  session: Session,
  statement: Statement,
  options: RunOptions,
): Promise<void> {
  exchange.aborted.throwIfAborted();
  switch (statement.kind) {
    case 'empty':
      throw refuse(62, 'Syntax error: the query is empty.');
    case 'refused':
      answerError(exchange.response, statement.error, exchange.version);
      return;
    case 'rows':
      await runRows(exchange, session, statement, options);
      return;
    case 'insert': {
      if (options.spooled === null) throw new Error('an INSERT without its data');
      // Not cancelled when the client goes away: all its data is here, and half an insert helps nobody.
      const { rowsWritten, bytesWritten } = await insertFile(session, statement, options.spooled);
      answerBytes(exchange, exchange.request.defaultFormat, nothing, {
        readRows: rowsWritten,
        readBytes: bytesWritten,
        writtenRows: rowsWritten,
        writtenBytes: bytesWritten,
      });
      return;
    }
    case 'command': {
      const format = statement.format ?? exchange.request.defaultFormat;
      if (statement.isInsert) {
        const done = await cancellable(exchange, session, options, session.insert(statement.sql));
        answerBytes(exchange, format, nothing, {
          writtenRows: done.rowsWritten,
          writtenBytes: done.bytesWritten,
        });
        return;
      }
      const { bytes } = await cancellable(exchange, session, options, session.query(statement.sql, format));
      answerBytes(exchange, format, bytes, {});
      return;
    }
    case 'answer': {
      const format = statement.format ?? exchange.request.defaultFormat;
      const result = await cancellable(exchange, session, options, session.query(statement.sql, format));
      answerBytes(exchange, format, result.bytes, { readRows: result.rowsRead, readBytes: result.bytesRead });
    }
  }
}
