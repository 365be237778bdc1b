import { clickHouseError } from './error.ts';
import type { ClickHouseError } from './error.ts';
import { interfaceParameters } from './settings.ts';

/** The parts of an HTTP request that say what is asked, apart from its body. */
export interface HttpHead {
  readonly method: string;
  /** Path and query string, as in the request line. */
  readonly target: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
}

export type BodyEncoding = 'identity' | 'gzip' | 'deflate' | 'br';

export interface QueryRequest {
  readonly kind: 'query';
  readonly isGet: boolean;
  /** The statement, or its beginning, from the URL; '' when it comes in the body. */
  readonly query: string;
  readonly database: string | null;
  readonly defaultFormat: string;
  readonly queryId: string | null;
  readonly settings: ReadonlyMap<string, string>;
  readonly parameters: ReadonlyMap<string, string>;
  readonly credentials: Credentials;
  readonly bodyEncoding: BodyEncoding;
  readonly acceptsGzip: boolean;
}

export interface Credentials {
  readonly user: string;
  readonly password: string;
}

export type HttpRequest =
  | { readonly kind: 'ping' }
  | QueryRequest
  | { readonly kind: 'refused'; readonly status: number; readonly error: ClickHouseError };

const formatName = /^[A-Za-z][A-Za-z0-9]{0,63}$/;
const queryIdMax = 256;

function header(head: HttpHead, name: string): string | undefined {
  const value = head.headers[name];
  return Array.isArray(value) ? value[0] : value;
}

function refused(status: number, code: 36 | 48 | 516, message: string): HttpRequest {
  return { kind: 'refused', status, error: clickHouseError(code, message) };
}

/** User and password from the Authorization header, ClickHouse's own headers or the URL, in this order. */
function readCredentials(head: HttpHead, url: URLSearchParams): Credentials | null {
  const authorization = header(head, 'authorization');
  if (authorization !== undefined) {
    const encoded = /^Basic\s+([A-Za-z0-9+/=_-]+)\s*$/i.exec(authorization)?.[1];
    if (encoded === undefined) return null;
    const decoded = Buffer.from(encoded, 'base64').toString('utf8');
    const colon = decoded.indexOf(':');
    if (colon === -1) return null;
    return { user: decoded.slice(0, colon), password: decoded.slice(colon + 1) };
  }
  const user = header(head, 'x-clickhouse-user') ?? url.get('user');
  const password = header(head, 'x-clickhouse-key') ?? url.get('password');
  return user === null ? null : { user, password: password ?? '' };
}

function readEncoding(name: string | undefined): BodyEncoding | null {
  switch ((name ?? 'identity').trim().toLowerCase()) {
    case '':
    case 'identity':
      return 'identity';
    case 'gzip':
    case 'x-gzip':
      return 'gzip';
    case 'deflate':
      return 'deflate';
    case 'br':
      return 'br';
    default:
      return null;
  }
}

function acceptsGzip(accepted: string | undefined): boolean {
  return (accepted ?? '').split(',').some((part) => {
    const [name = '', ...options] = part.split(';').map((piece) => piece.trim().toLowerCase());
    return name === 'gzip' && !options.some((option) => /^q=0(\.0*)?$/.test(option));
  });
}

/** What a request asks for. Pure; the body is read later. */
export function readRequest(head: HttpHead): HttpRequest {
  const [path = '/', ...rest] = head.target.split('?');
  const url = new URLSearchParams(rest.join('?'));
  if (head.method !== 'GET' && head.method !== 'POST' && head.method !== 'HEAD') {
    return refused(405, 48, `Method ${head.method} is not supported; use GET or POST.`);
  }
  const isGet = head.method !== 'POST';
  if (path === '/ping' || path === '/replicas_status') return { kind: 'ping' };
  if (path !== '/' && path !== '/query') {
    return refused(404, 36, `There is no handle ${path.slice(0, 200)}. Use / or /ping for health checks.`);
  }
  if (isGet && url.get('query') === null) return { kind: 'ping' };

  const credentials = readCredentials(head, url);
  if (credentials === null) {
    return refused(401, 516, 'Authentication failed: name a user and its password (basic authentication).');
  }
  if (url.get('session_id') !== null) {
    return refused(501, 48, 'Sessions (session_id) are not supported: every request stands alone.');
  }
  for (const name of ['compress', 'decompress']) {
    if (url.get(name) === '1') {
      return refused(
        501,
        48,
        `${name}=1 is not supported; use Accept-Encoding and Content-Encoding with gzip.`,
      );
    }
  }
  const bodyEncoding = readEncoding(header(head, 'content-encoding'));
  if (bodyEncoding === null)
    return refused(415, 48, 'Content-Encoding must be gzip, deflate, br or identity.');
  const defaultFormat = url.get('default_format') ?? header(head, 'x-clickhouse-format') ?? 'TabSeparated';
  if (!formatName.test(defaultFormat)) return refused(400, 36, 'default_format is not the name of a format.');
  const queryId = url.get('query_id') ?? header(head, 'x-clickhouse-query-id') ?? null;
  if (queryId !== null && (queryId.length > queryIdMax || !/^[\x20-\x7e]*$/.test(queryId))) {
    return refused(400, 36, `query_id must be at most ${queryIdMax} printable ASCII characters.`);
  }

  const settings = new Map<string, string>();
  const parameters = new Map<string, string>();
  for (const [name, value] of url) {
    if (name.startsWith('param_')) parameters.set(name.slice('param_'.length), value);
    else if (!interfaceParameters.has(name)) settings.set(name, value);
  }
  return {
    kind: 'query',
    isGet,
    query: url.get('query') ?? '',
    database: url.get('database') ?? header(head, 'x-clickhouse-database') ?? null,
    defaultFormat,
    queryId: queryId === '' ? null : queryId,
    settings,
    parameters,
    credentials,
    bodyEncoding,
    acceptsGzip: acceptsGzip(header(head, 'accept-encoding')) && url.get('enable_http_compression') !== '0',
  };
}

const contentTypes: ReadonlyArray<readonly [RegExp, string]> = [
  [/^(Tab|TSV)/i, 'text/tab-separated-values; charset=UTF-8'],
  [/^CSV/i, 'text/csv; charset=UTF-8; header=present'],
  [
    /^(JSONEachRow|JSONLines|NDJSON|JSONCompactEachRow|JSONStringsEachRow)/i,
    'application/x-ndjson; charset=UTF-8',
  ],
  [/^(JSON|PrettyJSON)/i, 'application/json; charset=UTF-8'],
  [/^(Pretty|Vertical|Values|Markdown|LineAsString|SQLInsert)/i, 'text/plain; charset=UTF-8'],
  [/^XML/i, 'application/xml; charset=UTF-8'],
];

/** The Content-Type of an answer in this format. */
export function contentTypeOf(format: string): string {
  return contentTypes.find(([pattern]) => pattern.test(format))?.[1] ?? 'application/octet-stream';
}
