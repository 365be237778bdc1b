import type { Intent } from './store.ts';

/** https://docs.stripe.com/api/idempotent_requests: up to 255 characters. */
const KEY_CHARACTERS_MAX = 255;

/**
 * The idempotency key of one write: `<outbox key>/customer`, `/invoice`, `/line/<id>`, `/finalize`, with the
 * generation behind it from the second on. Equal for every attempt at the same thing.
 */
export function idempotencyKey(base: string, step: string, generation: number): string {
  const key = generation === 1 ? `${base}/${step}` : `${base}/${step}/${generation}`;
  if (key.length > KEY_CHARACTERS_MAX)
    throw new Error(`idempotency key of ${key.length} characters: ${key.slice(0, 80)}…`);
  return key;
}

/**
 * Whether Stripe must be searched before anything is created under the key of this intent: because the key
 * answers with a stored failure, because Stripe may have forgotten it, or because nobody here remembers an
 * attempt although there was time for one (a database restored from a backup).
 */
export function mustSearch(
  intent: Intent,
  o: { issuedAtMs: number; nowMs: number; keyLifeMs: number },
): boolean {
  if (intent.fresh) return o.nowMs - o.issuedAtMs >= o.keyLifeMs;
  return intent.keySpent || o.nowMs - intent.generationAtMs >= o.keyLifeMs;
}
