// Idempotency keys as Stripe's v1 API keeps them: the first request under a key that got past validation decides
// the answer for 24 hours, whatever its status, a 500 included. The same key with other parameters is refused.
import { createHash } from 'node:crypto';
import { Refusal } from './error.ts';
import type { Json } from './operation.ts';
import type { KeptAnswer } from './state.ts';

const keyCharactersMax = 255;

/** A hash of what was asked: method, path, and the parameters whatever their order. */
export function fingerprint(method: string, path: string, params: Json): string {
  return createHash('sha256')
    .update(`${method} ${path} ${canonical(params)}`)
    .digest('hex');
}

function canonical(value: Json): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  const names = Object.keys(value).sort();
  return `{${names.map((name) => `${JSON.stringify(name)}:${canonical(value[name] ?? null)}`).join(',')}}`;
}

/** The kept answer to give again, or undefined when the key is new. Throws when the key was used for something else. */
export function replay(kept: KeptAnswer | undefined, asked: string): KeptAnswer | undefined {
  if (kept === undefined || kept.fingerprint === asked) return kept;
  throw new Refusal({
    status: 400,
    type: 'idempotency_error',
    message:
      'Keys for idempotent requests can only be used with the same parameters they were first used with. ' +
      `Try using a key other than '${kept.key}' if you meant to execute a different request.`,
  });
}

export function checkKey(key: string): void {
  if (key.length <= keyCharactersMax) return;
  throw new Refusal({
    status: 400,
    type: 'idempotency_error',
    message: `Idempotency keys can have up to ${keyCharactersMax} characters.`,
  });
}

/** The refusal of a key whose first request has not been answered yet. The SDK retries a 409. */
export function keyInUse(key: string): Refusal {
  return new Refusal({
    status: 409,
    type: 'invalid_request_error',
    code: 'idempotency_key_in_use',
    message: `There is currently another in-progress request using this Idempotent Key: ${key}. Please try again later.`,
  });
}
