/**
 * Quotas: what a tenant may send to this edge a second, in events and in body bytes.
 *
 * Each of the two is a token bucket that fills at the quota's rate up to its burst, some seconds' worth. A batch
 * is let through whenever both buckets hold something, whatever its size, and takes what it costs: the level may
 * go below zero, and then the tenant waits until the debt is filled up again. So a batch larger than the burst
 * gets through like any other, nobody is refused for ever, and no order of large and small batches starves the
 * large ones. In any T seconds at most rate · T + burst + one batch is let through.
 *
 * Waiting out a debt is cheap for the edge, since `exhausted` is asked before a body is read. `take` can refuse
 * as well, when other batches of the tenant came in while this one was read.
 *
 * Levels count thousandths. A rate a second is as many thousandths a millisecond, so everything is a whole
 * number: nothing is divided, and no rest is lost or gathered, however often and at whatever intervals it is
 * asked. All of it stays below 2^53 by RATE_MAX, BURST_SECONDS_MAX and COST_MAX.
 *
 * The buckets are this process's: with n edges behind a balancer a tenant can send up to n times its quota.
 */
import { parseQuota, type Quota } from '../../contract/quota.ts';

const SCALE = 1_000;
/** A second. A quota beyond it limits nothing: no process reads 100 GB a second. */
const RATE_MAX = 100_000_000_000;
const BURST_SECONDS_MAX = 60;
/** Of one batch, in events or bytes. */
const COST_MAX = 2 ** 40;
/** How many tenants are looked at to find one that can be forgotten. */
const FORGET_LOOKS_MAX = 16;

export interface QuotaOptions {
  /** Of tenants without a quota of their own. */
  readonly defaults: Quota;
  /** How many seconds' worth a tenant that sent nothing for a while can send at once: a whole number, 1 to 60. */
  readonly burstSeconds: number;
  /** Levels are kept of so many tenants; see `#makeRoom`. */
  readonly tenantsMax: number;
}

/** The quota of tenants without one of their own, from a configuration in which 0 stands for no limit. */
export function defaultQuota(config: {
  readonly tenantEventsPerSecond: number;
  readonly tenantBytesPerSecond: number;
}): Quota {
  return {
    eventsPerSecond: config.tenantEventsPerSecond || null,
    bytesPerSecond: config.tenantBytesPerSecond || null,
  };
}

/** One limit as the RateLimit header fields show it. */
export interface LimitState {
  /** What the bucket holds when it is full; it fills in `windowSeconds`. */
  readonly limit: number;
  readonly remaining: number;
  /** The seconds that `remaining` is meant for; when nothing remains: how long to wait. */
  readonly resetSeconds: number;
  readonly windowSeconds: number;
}

/** Null: no limit. */
export interface QuotaState {
  readonly events: LimitState | null;
  readonly bytes: LimitState | null;
}

const NO_LIMIT: QuotaState = { events: null, bytes: null };

export class Quotas {
  readonly #defaults: Quota;
  readonly #burstSeconds: number;
  readonly #tenantsMax: number;
  /** The quotas that tenants have of their own; as many as the bucket of NATS holds. */
  readonly #own = new Map<string, Quota>();
  /** The levels of tenants that sent something and have a limit. */
  readonly #levels = new Map<string, Levels>();

  constructor(o: QuotaOptions) {
    const sound = Number.isInteger(o.burstSeconds) && o.burstSeconds >= 1;
    if (!sound || o.burstSeconds > BURST_SECONDS_MAX) {
      throw new RangeError(`burstSeconds must be a whole number from 1 to ${BURST_SECONDS_MAX}`);
    }
    this.#defaults = o.defaults;
    this.#burstSeconds = o.burstSeconds;
    this.#tenantsMax = o.tenantsMax;
  }

  /** Tenants with a quota of their own. */
  get size(): number {
    return this.#own.size;
  }

  /**
   * Takes an entry of the bucket of NATS: JSON, or null for a tenant that has no quota of its own any more. False
   * when it is not sound: the default holds then. A tenant's debt stays.
   */
  set(tenant: string, json: string | null): boolean {
    const quota = json === null ? null : parseQuota(json);
    if (quota === null) this.#own.delete(tenant);
    else this.#own.set(tenant, quota);
    const levels = this.#levels.get(tenant);
    if (levels !== undefined) {
      const changed = levelsOf(quota ?? this.#defaults, this.#burstSeconds, levels);
      if (changed === null) this.#levels.delete(tenant);
      else this.#levels.set(tenant, changed);
    }
    return json === null || quota !== null;
  }

  /** For how many milliseconds the tenant must wait before a batch is let through; 0: one is, now. Takes nothing. */
  exhausted(tenant: string, nowMs: number): number {
    const levels = this.#of(tenant, nowMs);
    return levels === null ? 0 : waitMs(levels, nowMs);
  }

  /** Takes what a batch costs, or nothing, and then says when to send it again. Null: it is let through. */
  take(tenant: string, events: number, bytes: number, nowMs: number): { retryAfterMs: number } | null {
    const levels = this.#of(tenant, nowMs);
    if (levels === null) return null;
    const retryAfterMs = waitMs(levels, nowMs);
    if (retryAfterMs > 0) return { retryAfterMs };
    levels.events?.take(events);
    levels.bytes?.take(bytes);
    return null;
  }

  /** For the header fields of an answer. */
  state(tenant: string, nowMs: number): QuotaState {
    const levels = this.#of(tenant, nowMs);
    if (levels === null) return NO_LIMIT;
    const waitSeconds = retryAfterSeconds(waitMs(levels, nowMs));
    return {
      events: stateOf(levels.events, this.#burstSeconds, waitSeconds),
      bytes: stateOf(levels.bytes, this.#burstSeconds, waitSeconds),
    };
  }

  /** Null when nothing limits the tenant, which costs two lookups. */
  #of(tenant: string, nowMs: number): Levels | null {
    const known = this.#levels.get(tenant);
    if (known !== undefined) return known;
    const levels = levelsOf(this.#own.get(tenant) ?? this.#defaults, this.#burstSeconds, null);
    if (levels === null) return null;
    if (this.#levels.size >= this.#tenantsMax) this.#makeRoom(nowMs);
    this.#levels.set(tenant, levels);
    return levels;
  }

  /**
   * Forgets one tenant. A full bucket is as good as a new one, so of the tenants looked at one with full buckets
   * goes. When none has, one is let off its debt; that takes more tenants at their limits than are remembered.
   */
  #makeRoom(nowMs: number): void {
    let looks = 0;
    for (const [tenant, levels] of this.#levels) {
      this.#levels.delete(tenant);
      looks += 1;
      if (looks >= FORGET_LOOKS_MAX || looks >= this.#tenantsMax) return;
      if (isFull(levels.events, nowMs) && isFull(levels.bytes, nowMs)) return;
      // To the end, so that the next look begins after it.
      this.#levels.set(tenant, levels);
    }
  }
}

interface Levels {
  readonly events: TokenBucket | null;
  readonly bytes: TokenBucket | null;
}

class TokenBucket {
  /** Units a second, which are thousandths a millisecond. */
  readonly rate: number;
  /** Thousandths, as the level. */
  readonly capacity: number;
  level: number;
  #filledMs: number;

  constructor(rate: number, burstSeconds: number, before: TokenBucket | null) {
    this.rate = rate;
    this.capacity = rate * burstSeconds * SCALE;
    this.level = Math.min(before?.level ?? this.capacity, this.capacity);
    this.#filledMs = before === null ? 0 : before.#filledMs;
  }

  fill(nowMs: number): void {
    const now = Math.floor(nowMs);
    const elapsedMs = now - this.#filledMs;
    this.#filledMs = now;
    // A clock that was set back gives nothing and takes nothing; it fills from there on.
    if (elapsedMs <= 0) return;
    const missing = this.capacity - this.level;
    // The quotient is rounded, but never across a whole number while both are below 2^53.
    this.level = elapsedMs > missing / this.rate ? this.capacity : this.level + elapsedMs * this.rate;
  }

  take(cost: number): void {
    if (!Number.isInteger(cost) || cost < 0 || cost > COST_MAX) throw new RangeError(`a batch of ${cost}`);
    this.level -= cost * SCALE;
  }

  /** Milliseconds until it holds something: the first one in which the level is above zero. */
  waitMs(): number {
    return this.level > 0 ? 0 : Math.floor(-this.level / this.rate) + 1;
  }
}

/** Null when nothing is limited. What is in the buckets of `before` stays, up to the new burst. */
function levelsOf(quota: Quota, burstSeconds: number, before: Levels | null): Levels | null {
  const bucketOf = (rate: number | null, old: TokenBucket | null | undefined) =>
    rate === null || rate > RATE_MAX ? null : new TokenBucket(rate, burstSeconds, old ?? null);
  const events = bucketOf(quota.eventsPerSecond, before?.events);
  const bytes = bucketOf(quota.bytesPerSecond, before?.bytes);
  return events === null && bytes === null ? null : { events, bytes };
}

function waitMs({ events, bytes }: Levels, nowMs: number): number {
  events?.fill(nowMs);
  bytes?.fill(nowMs);
  return Math.max(events?.waitMs() ?? 0, bytes?.waitMs() ?? 0);
}

function isFull(bucket: TokenBucket | null, nowMs: number): boolean {
  bucket?.fill(nowMs);
  return bucket === null || bucket.level === bucket.capacity;
}

/** `waitSeconds`: how long the tenant has to wait, be it for this limit or for the other. */
function stateOf(bucket: TokenBucket | null, windowSeconds: number, waitSeconds: number): LimitState | null {
  if (bucket === null) return null;
  const remaining = Math.max(0, Math.floor(bucket.level / SCALE));
  // Who spreads what remains over these seconds sends at the rate of the quota and is not refused.
  const spreadSeconds = Math.max(1, Math.ceil(remaining / bucket.rate));
  const ownWaitSeconds = retryAfterSeconds(bucket.waitMs());
  const limit = bucket.capacity / SCALE;
  let resetSeconds = spreadSeconds;
  if (ownWaitSeconds > 0) resetSeconds = ownWaitSeconds;
  // Retry-After must not come before the end of any of these windows, says the draft.
  else if (waitSeconds > 0) resetSeconds = Math.min(spreadSeconds, waitSeconds);
  return { limit, remaining, resetSeconds, windowSeconds };
}

/** Whole seconds, as Retry-After wants them, never too early. */
export function retryAfterSeconds(retryAfterMs: number): number {
  return Math.ceil(retryAfterMs / 1_000);
}

/**
 * The values of the header fields RateLimit-Policy and RateLimit, or null when nothing limits the tenant.
 *
 * They follow an Internet-Draft, which may change before it is a standard, or never become one:
 * draft-ietf-httpapi-ratelimit-headers-11 of May 2026. `q` is what a full bucket holds and `w` the seconds in
 * which it fills, so that q / w is the quota's rate; `r` is what is left, `t` the seconds that it is meant for.
 * Of the units, "content-bytes" is one of the draft's; it has none for events, but without a unit they would
 * count as requests. They are hints for a client that paces itself, and
 * promise nothing.
 */
export function rateLimitFields(state: QuotaState): { policy: string; limit: string } | null {
  const { events, bytes } = state;
  if (events === null && bytes === null) return null;
  const policies: string[] = [];
  const limits: string[] = [];
  if (events !== null) {
    policies.push(`"events";q=${events.limit};qu="events";w=${events.windowSeconds}`);
    limits.push(`"events";r=${events.remaining};t=${events.resetSeconds}`);
  }
  if (bytes !== null) {
    policies.push(`"bytes";q=${bytes.limit};qu="content-bytes";w=${bytes.windowSeconds}`);
    limits.push(`"bytes";r=${bytes.remaining};t=${bytes.resetSeconds}`);
  }
  return { policy: policies.join(', '), limit: limits.join(', ') };
}
