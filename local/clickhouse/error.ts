/** An error as ClickHouse tells it: a code, a sentence and the code's name. */
export interface ClickHouseError {
  readonly code: number;
  /** Without the `Code: n. DB::Exception:` in front and the name behind. */
  readonly message: string;
  readonly name: string;
}

/** The codes that this process raises by itself, before or instead of the engine. */
export const errorNames = {
  36: 'BAD_ARGUMENTS',
  48: 'NOT_IMPLEMENTED',
  62: 'SYNTAX_ERROR',
  115: 'UNKNOWN_SETTING',
  159: 'TIMEOUT_EXCEEDED',
  160: 'TOO_SLOW',
  164: 'READONLY',
  202: 'TOO_MANY_SIMULTANEOUS_QUERIES',
  210: 'NETWORK_ERROR',
  229: 'QUERY_IS_TOO_LARGE',
  236: 'ABORTED',
  243: 'NOT_ENOUGH_SPACE',
  452: 'SETTING_CONSTRAINT_VIOLATION',
  516: 'AUTHENTICATION_FAILED',
  620: 'QUERY_NOT_ALLOWED',
  1002: 'UNKNOWN_EXCEPTION',
} as const;

export type ErrorCode = keyof typeof errorNames;

export function clickHouseError(code: ErrorCode, message: string): ClickHouseError {
  return { code, message, name: errorNames[code] };
}

/** A refusal that unwinds to the HTTP answer. */
export class Refusal extends Error {
  override readonly name = 'Refusal';
  readonly error: ClickHouseError;

  constructor(error: ClickHouseError, options?: ErrorOptions) {
    super(error.message, options);
    this.error = error;
  }
}

export function refuse(code: ErrorCode, message: string): Refusal {
  return new Refusal(clickHouseError(code, message));
}

const engineText = /^Code:\s*(\d+)\.\s*(?:DB::Exception:\s*)?([\s\S]*?)\s*(?:\(([A-Z][A-Z0-9_]*)\))?\s*$/;

// An insert's data lies in a file that the client knows nothing of.
const fileNotes = [
  /: \(in file\/uri [^)]*\)/g,
  /: While executing File: data for INSERT was parsed from file/g,
  /: data for INSERT was parsed from file/g,
];

/**
 * Reads the engine's text, `Code: 62. DB::Exception: Syntax error: … (SYNTAX_ERROR)`. The client half of the
 * engine wraps what the server half said in the same form once more; the inner one is told. A text without a
 * code becomes UNKNOWN_EXCEPTION.
 */
export function parseEngineError(text: string): ClickHouseError {
  const match = engineText.exec(text);
  if (match === null) return clickHouseError(1002, text.trim());
  const [, code, wrapped = '', name = 'UNKNOWN_EXCEPTION'] = match;
  const inner = engineText.exec(wrapped.replace(/\.?\s*\(version [^)]*\)\.?\s*$/, ''));
  const message = fileNotes.reduce((told, note) => told.replaceAll(note, ''), inner?.[2] ?? wrapped);
  return { code: Number(code), message: message.trim().replace(/\.$/, ''), name };
}

/** The body of an error answer, as ClickHouse words it. */
export function formatError(error: ClickHouseError, version: string): string {
  return `Code: ${error.code}. DB::Exception: ${error.message.replace(/\.$/, '')}. (${error.name}) (version ${version})\n`;
}

// ClickHouse's own table (HTTPHandler, exceptionCodeToHTTPStatus), as far as this process can meet it.
const statusOfCode: Readonly<Record<number, number>> = Object.fromEntries([
  ...[194].map((code) => [code, 401]),
  ...[192, 193, 497, 516].map((code) => [code, 403]),
  ...[6, 26, 27, 36, 38, 41, 53, 62, 69, 72, 117, 130, 131, 167, 168, 190, 306, 321, 456, 457].map((code) => [
    code,
    400,
  ]),
  ...[46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 336].map((code) => [code, 404]),
  ...[159].map((code) => [code, 408]),
  ...[229].map((code) => [code, 413]),
  ...[48].map((code) => [code, 501]),
  ...[202, 209, 236, 439].map((code) => [code, 503]),
]) as Record<number, number>;

/** The HTTP status of an error code; 500 for every code that is not the client's fault by name. */
export function httpStatusOf(code: number): number {
  return statusOfCode[code] ?? 500;
}
