// ClickHouse's HTTP interface over the engine in this process.
//
// The life of a request:
// 1. Head: what is asked, and by whom. Wrong credentials end here, before a byte of the body is read.
// 2. Body: the statement; for an INSERT also its data, spooled to a file until its last byte has arrived.
// 3. A slot: statements run in a bounded number, and a bounded number waits.
// 4. A session: settings, then the statement, then nothing of it is left that another request could see.
// 5. Answer. The beginning of a result is held back until the statement has ended or the hold is full, so that
//    most errors still get a status of their own and most answers a summary. An error after that is written
//    into the body and cuts the connection, so that no client takes a part for the whole.
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { authenticate } from './access.ts';
import type { Role, User } from './access.ts';
import { answerError } from './answer.ts';
import type { Exchange, RowsLimits } from './answer.ts';
import { openBody } from './body.ts';
import type { Body } from './body.ts';
import type { Chdb } from './chdb.ts';
import { clickHouseError, Refusal, refuse } from './error.ts';
import type { ClickHouseError } from './error.ts';
import { readRequest } from './request.ts';
import type { QueryRequest } from './request.ts';
import { runStatement } from './run.ts';
import { engineError, restrictToReader } from './session.ts';
import { leavesSession, Sessions } from './sessions.ts';
import type { Preparation } from './sessions.ts';
import { composeSettings } from './settings.ts';
import type { ReaderLimits } from './settings.ts';
import { Slots } from './slots.ts';
import { splitStatement } from './split.ts';
import { Spool } from './spool.ts';
import type { Statement } from './statement.ts';

export interface FrontLimits extends RowsLimits {
  /** A statement without its data. */
  readonly statementBytesMax: number;
  /** Everything a request may carry, decompressed. */
  readonly bodyBytesMax: number;
  /** Statements that run at once. */
  readonly runningMax: number;
  /** Statements that wait for a slot. */
  readonly waitingMax: number;
  /** Requests whose head has been read and whose answer has not ended. */
  readonly requestsMax: number;
  readonly reader: ReaderLimits;
}

export interface FrontOptions {
  readonly chdb: Chdb;
  readonly version: string;
  /** Where a request is that names no database. */
  readonly database: string;
  readonly users: readonly User[];
  readonly limits: FrontLimits;
  /** Where bodies are spooled. */
  readonly spoolDir: string;
  /** The named pipes for results, one a slot. */
  readonly pipes: readonly string[];
  readonly forbiddenToReader: ReadonlySet<string>;
  /** Told about what nobody else will hear. */
  readonly onError: (what: string, error: unknown) => void;
}

export interface Front {
  readonly server: Server;
  /** Cancels what still runs, for a stop. */
  cancelAll(): void;
}

const sessionsIdleMax = 16;

// Typed parameters and settings come in the URL: a mebibyte of it, as ClickHouse allows.
const httpLimits = {
  maxHeaderSize: 1024 ** 2,
  headersTimeout: 30_000,
  requestTimeout: 600_000,
  keepAliveTimeout: 65_000,
};

/** What the file system or a decoder of the body said, in ClickHouse's words. */
function ioError(error: unknown): ClickHouseError | null {
  const code = (error as NodeJS.ErrnoException | null)?.code;
  if (code === 'ENOSPC') {
    return clickHouseError(243, 'There is no space left on the disk for the data of this request.');
  }
  if (typeof code === 'string' && code.startsWith('Z_')) {
    return clickHouseError(36, 'The body could not be decompressed.');
  }
  if (code === 'ERR_STREAM_PREMATURE_CLOSE' || code === 'ECONNRESET') {
    return clickHouseError(210, 'The request ended early.');
  }
  return null;
}

export function createFront(options: FrontOptions): Front {
  const { chdb, version, limits, onError } = options;
  const slots = new Slots(limits.runningMax, limits.waitingMax);
  const sessions = new Sessions(chdb, sessionsIdleMax, randomUUID);
  const spool = new Spool(options.spoolDir, limits.runningMax);
  const running = new Set<AbortController>();
  let requests = 0;

  /** Steps 3 to 5. */
  const runInSlot = async (
    exchange: Exchange,
    statement: Statement,
    preparation: Preparation,
    spooled: string | null,
  ): Promise<void> => {
    const slot = await slots.acquire(exchange.aborted);
    try {
      await sessions.use(preparation, async (session) => {
        const allowed =
          exchange.role === 'reader'
            ? await restrictToReader(session, statement, options.forbiddenToReader)
            : statement;
        if (!leavesSession(allowed)) session.spoil();
        const pipe = options.pipes[slot.index] as string;
        await runStatement(exchange, session, allowed, { chdb, limits, pipe, spooled, onError });
      });
    } finally {
      slots.release(slot);
    }
  };

  const runQuery = async (exchange: Exchange, statement: Statement, body: Body): Promise<void> => {
    const { request, role } = exchange;
    const preparation = composeSettings({
      settings: request.settings,
      parameters: request.parameters,
      database: request.database ?? options.database,
      reader: role === 'reader' ? limits.reader : null,
      isGet: request.isGet,
    });
    if (preparation.kind === 'refused') throw new Refusal(preparation.error);
    if (statement.kind !== 'insert') {
      await runInSlot(exchange, statement, preparation, null);
      return;
    }
    if (role === 'reader') throw refuse(164, 'The read-only user may not insert.');
    const file = spool.take();
    try {
      await file.fill(body);
      await runInSlot(exchange, statement, preparation, file.path);
    } finally {
      await spool.giveBack(file);
    }
  };

  const handleQuery = async (
    message: IncomingMessage,
    response: ServerResponse,
    request: QueryRequest,
    role: Role,
  ): Promise<void> => {
    const abort = new AbortController();
    response.setHeader('X-ClickHouse-Query-Id', request.queryId ?? randomUUID());
    response.once('close', () => {
      if (!response.writableFinished) abort.abort(refuse(210, 'The client is gone.'));
    });
    running.add(abort);
    const body = openBody(message, request.bodyEncoding, limits.bodyBytesMax);
    try {
      const statement = await splitStatement(request.query, body, limits.statementBytesMax);
      const startedAt = performance.now();
      await runQuery({ request, response, role, aborted: abort.signal, startedAt, version }, statement, body);
    } finally {
      running.delete(abort);
      body.discard();
    }
  };

  const handle = (message: IncomingMessage, response: ServerResponse): void => {
    // A write to a client that has gone is an error here; the response's `close` tells us of it.
    response.on('error', () => undefined);
    response.setHeader('X-ClickHouse-Server-Display-Name', 'tallyline-local');
    response.setHeader('X-ClickHouse-Timezone', 'UTC');
    const { method = 'GET', url: target = '/', headers } = message;
    const request = readRequest({ method, target, headers });
    if (request.kind === 'ping') {
      response.writeHead(200, { 'Content-Type': 'text/plain; charset=UTF-8', 'Content-Length': 4 });
      response.end('Ok.\n');
      return;
    }
    /** Refused before its body was read: the rest of the body is not worth receiving. */
    const turnAway = (error: ClickHouseError, status?: number): void => {
      response.setHeader('Connection', 'close');
      message.resume();
      answerError(response, error, version, status);
    };
    if (request.kind === 'refused') {
      turnAway(request.error, request.status);
      return;
    }
    const role = authenticate(options.users, request.credentials);
    if (role === null) {
      const user = request.credentials.user.slice(0, 64);
      turnAway(
        clickHouseError(
          516,
          `${user}: Authentication failed: password is incorrect, or there is no such user.`,
        ),
      );
      return;
    }
    if (requests >= limits.requestsMax) {
      turnAway(clickHouseError(202, `Too many simultaneous queries: ${requests} requests are under way.`));
      return;
    }
    requests += 1;
    handleQuery(message, response, request, role)
      .catch((error: unknown) => {
        if (response.destroyed) return;
        if (!message.complete && !response.headersSent) response.setHeader('Connection', 'close');
        answerError(response, ioError(error) ?? engineError(error), version);
      })
      .catch((error: unknown) => onError('answering a request', error))
      .finally(() => {
        requests -= 1;
      });
  };

  return {
    server: createServer(httpLimits, handle),
    cancelAll: () => {
      for (const abort of running) abort.abort(refuse(236, 'The server is stopping.'));
    },
  };
}
