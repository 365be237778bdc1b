// Calls the HTTP API of a running stack. An answer other than 2xx is an error that carries the problem's own
// words (RFC 9457), because those say what to do. An API that is away for a moment is waited for: everything
// called here may be called again.
import { retry } from '../runtime/retry.ts';

const attempts = 60;
const pause = { baseMs: 50, maxMs: 1_000 };

export interface ApiAnswer<T> {
  readonly status: number;
  readonly body: T;
}

export class ApiError extends Error {
  override readonly name = 'ApiError';
  readonly status: number;
  readonly code: string;

  constructor(status: number, code: string, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export class ApiClient {
  readonly #url: string;
  readonly #key: string;

  constructor(url: string, key: string) {
    this.#url = url;
    this.#key = key;
  }

  get<T>(path: string): Promise<ApiAnswer<T>> {
    return this.#call('GET', path);
  }

  post<T>(path: string, body: unknown): Promise<ApiAnswer<T>> {
    return this.#call('POST', path, body);
  }

  put<T>(path: string, body: unknown): Promise<ApiAnswer<T>> {
    return this.#call('PUT', path, body);
  }

  #call<T>(method: string, path: string, body?: unknown): Promise<ApiAnswer<T>> {
    return retry(() => this.#callOnce<T>(method, path, body), { attempts, ...pause, retryable: isTransient });
  }

  async #callOnce<T>(method: string, path: string, body?: unknown): Promise<ApiAnswer<T>> {
    const response = await fetch(new URL(path, this.#url), {
      method,
      headers: {
        authorization: `Bearer ${this.#key}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(60_000),
    });
    const text = await response.text();
    const parsed = parseJson(text);
    if (response.ok) return { status: response.status, body: parsed as T };
    const problem = (parsed ?? {}) as { code?: string; title?: string; detail?: string; errors?: unknown };
    const words = [problem.title, problem.detail].filter(Boolean).join(': ') || text.slice(0, 500);
    const errors = problem.errors === undefined ? '' : ` ${JSON.stringify(problem.errors)}`;
    throw new ApiError(
      response.status,
      problem.code ?? '',
      `${method} ${path} answered ${response.status}: ${words}${errors}`,
    );
  }
}

/** `behind` is the ledger catching up; fetch reports an unreachable server as a TypeError. */
function isTransient(error: unknown): boolean {
  if (error instanceof ApiError) return error.status === 503 || error.code === 'behind';
  return error instanceof TypeError;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
