/**
 * Which grant pays for what. Pure.
 *
 * Grants burn by priority (the lower number first), then the earlier expiry (one without expiry last), then
 * creation, then id. What is given back, because usage shrank, goes to the grants that were burned last first,
 * so that burning and giving back in any steps ends where one step would have.
 */
import type { Amount } from '../contract/money.ts';

export interface BurnableGrant {
  readonly id: string;
  readonly priority: number;
  readonly expiresAtMs: number | null;
  readonly createdAtMs: number;
  readonly remaining: Amount;
}

export interface GrantUse {
  readonly grantId: string;
  /** Positive burns, negative gives back. */
  readonly amount: Amount;
}

export function compareGrants(a: BurnableGrant, b: BurnableGrant): number {
  return (
    a.priority - b.priority ||
    (a.expiresAtMs ?? Infinity) - (b.expiresAtMs ?? Infinity) ||
    a.createdAtMs - b.createdAtMs ||
    (a.id < b.id ? -1 : a.id > b.id ? 1 : 0)
  );
}

/** Covers up to `wanted` (positive) from the grants that have not expired at `nowMs`. */
export function burn(grants: readonly BurnableGrant[], wanted: Amount, nowMs: number): GrantUse[] {
  let rest = wanted;
  const uses: GrantUse[] = [];
  const usable = grants.filter((grant) => grant.expiresAtMs === null || grant.expiresAtMs > nowMs);
  for (const grant of [...usable].sort(compareGrants)) {
    if (rest <= 0n) break;
    const amount = grant.remaining < rest ? grant.remaining : rest;
    if (amount <= 0n) continue;
    uses.push({ grantId: grant.id, amount });
    rest -= amount;
  }
  return uses;
}

/** Gives back up to `wanted` (positive) of earlier uses, listed oldest first, each grant's net use at most. */
export function giveBack(uses: readonly GrantUse[], wanted: Amount): GrantUse[] {
  const net = new Map<string, Amount>();
  for (const use of uses) net.set(use.grantId, (net.get(use.grantId) ?? 0n) + use.amount);
  const lastFirst = [...new Set([...uses].reverse().map((use) => use.grantId))];
  let rest = wanted;
  const returns: GrantUse[] = [];
  for (const grantId of lastFirst) {
    if (rest <= 0n) break;
    const used = net.get(grantId) ?? 0n;
    const amount = used < rest ? used : rest;
    if (amount <= 0n) continue;
    returns.push({ grantId, amount: -amount });
    rest -= amount;
  }
  return returns;
}
