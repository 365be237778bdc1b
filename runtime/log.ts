import { pino, type Logger } from 'pino';

/**
 * One JSON object a line on stdout. The rules that no field list can enforce: never log an event, its
 * data or a request body; log counts, ids of batches and reasons. What can be enforced is: fields with the
 * names below are starred out wherever they appear in the first two levels, and errors lose the password
 * of any connection string in their text.
 */
export type Log = Logger;

const SECRET_FIELDS = [
  'authorization',
  'Authorization',
  'key',
  'apiKey',
  'secret',
  'password',
  'token',
  'cookie',
  'connectionString',
  'databaseUrl',
  'natsUrl',
  'clickhouseUrl',
];

/** A password between `//user:` and `@host`, in any text. */
const PASSWORD_IN_URL = /(\b[a-z][a-z0-9+.-]*:\/\/[^\s:@/]*):[^\s@/]+@/gi;

export function starPasswords(message: string): string {
  return message.replace(PASSWORD_IN_URL, '$1:***@');
}

export function createLog(stage: string, level: string): Log {
  return pino(
    {
      level,
      base: { stage, pid: process.pid },
      timestamp: pino.stdTimeFunctions.isoTime,
      messageKey: 'message',
      errorKey: 'error',
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: SECRET_FIELDS.flatMap((name) => [name, `*.${name}`]), censor: '***' },
      serializers: { error: describeError, err: describeError },
      hooks: {
        logMethod(args, method) {
          for (let i = 0; i < args.length; i++) {
            const part: unknown = args[i];
            if (typeof part === 'string') (args as unknown[])[i] = starPasswords(part);
          }
          return method.apply(this, args);
        },
      },
    },
    destination(),
  );
}

/** What waits for a log that cannot be written now. */
const WAITING_BYTES_MAX = 1024 * 1024;

function destination(): ReturnType<typeof pino.destination> {
  // Synchronous, so that the last lines before an exit are on their way when the process ends.
  const stdout = pino.destination({ dest: 1, sync: true, maxLength: WAITING_BYTES_MAX });
  // Whoever reads the log is gone, or its disk is full. Work goes on, and a line is no reason to fail.
  stdout.on('error', () => {});
  return stdout;
}

/**
 * The parts of an error that help, and only those: drivers hang whole requests, and so bodies and
 * credentials, on their errors.
 */
export function describeError(error: unknown): unknown {
  return describe(error, 0);
}

const CAUSES_MAX = 5;

function describe(error: unknown, depth: number): unknown {
  if (!(error instanceof Error)) return typeof error === 'string' ? starPasswords(error) : error;
  const { code } = error as { code?: unknown };
  return {
    type: error.name,
    message: starPasswords(error.message),
    ...(typeof code === 'string' || typeof code === 'number' ? { code } : {}),
    stack: starPasswords(error.stack ?? ''),
    ...(error.cause !== undefined && depth < CAUSES_MAX ? { cause: describe(error.cause, depth + 1) } : {}),
  };
}
