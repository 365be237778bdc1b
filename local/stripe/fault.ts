// Trouble on order, for tests: what the next requests run into, and whether before or after they took effect.
//
//   POST   /_test/faults    {"kind": "status", "status": 500, "when": "after", "count": 2, "method": "POST",
//                            "path": "/v1/invoices", "stored": true}
//                           kind: status (500, 429, 409, 503 …) | timeout | reset | cut (half of the body, then gone)
//   GET    /_test/faults    what is still to come
//   DELETE /_test/faults    none any more
//   POST   /_test/webhooks  {"delayMs": 50, "copies": 2, "paused": false}
//   POST   /_test/clock     {"advanceSeconds": 86400}
//
// `path` matches every path that begins with it. `stored` says whether a status is kept under the idempotency key
// and given again, as Stripe does with the 500s of requests that had begun; only 500 is stored by default.
// Faults are not journaled: a restart ends them.
import type { WebhookFaults } from './webhook.ts';

export interface Fault {
  kind: 'status' | 'timeout' | 'reset' | 'cut';
  status: number;
  when: 'before' | 'after';
  count: number;
  method: string | undefined;
  path: string;
  stored: boolean;
}

/** Thrown for an order that makes no sense; answered with 400. */
export class BadFault extends Error {}

export function readFault(order: unknown): Fault {
  const given = asObject(order, ['kind', 'status', 'when', 'count', 'method', 'path', 'stored']);
  const kind = given['kind'];
  if (kind !== 'status' && kind !== 'timeout' && kind !== 'reset' && kind !== 'cut') {
    throw new BadFault('kind must be status, timeout, reset or cut');
  }
  const when = given['when'] ?? 'before';
  if (when !== 'before' && when !== 'after') throw new BadFault('when must be before or after');
  if (kind === 'cut' && when === 'before') throw new BadFault('a cut answer comes after the effect');
  const status = readWhole(given, 'status', 500, 400, 599);
  const method = given['method'];
  const path = given['path'] ?? '/';
  if (method !== undefined && typeof method !== 'string') throw new BadFault('method must be a string');
  if (typeof path !== 'string') throw new BadFault('path must be a string');
  return {
    kind,
    status,
    when,
    count: readWhole(given, 'count', 1, 1, 1_000_000),
    method,
    path,
    stored: typeof given['stored'] === 'boolean' ? given['stored'] : status === 500,
  };
}

export function readWebhookFaults(order: unknown, current: WebhookFaults): WebhookFaults {
  const given = asObject(order, ['delayMs', 'copies', 'paused']);
  return {
    delayMs: readWhole(given, 'delayMs', current.delayMs, 0, 3_600_000),
    copies: readWhole(given, 'copies', current.copies, 1, 100),
    paused: typeof given['paused'] === 'boolean' ? given['paused'] : current.paused,
  };
}

export function readAdvance(order: unknown): number {
  return readWhole(asObject(order, ['advanceSeconds']), 'advanceSeconds', 0, 0, 10 * 366 * 86_400);
}

/** The orders still to come, oldest first. */
export class FaultPlan {
  private faults: Fault[] = [];

  add(fault: Fault): void {
    this.faults.push(fault);
  }

  list(): readonly Fault[] {
    return this.faults;
  }

  clear(): void {
    this.faults = [];
  }

  /** The fault that this request runs into, used up by one. */
  take(method: string, path: string): Fault | undefined {
    const index = this.faults.findIndex(
      (fault) => path.startsWith(fault.path) && (fault.method === undefined || fault.method === method),
    );
    const fault = this.faults[index];
    if (fault === undefined) return undefined;
    if (fault.count > 1) this.faults[index] = { ...fault, count: fault.count - 1 };
    else this.faults.splice(index, 1);
    return fault;
  }
}

function asObject(order: unknown, names: string[]): { [name: string]: unknown } {
  if (typeof order !== 'object' || order === null || Array.isArray(order))
    throw new BadFault('expected a JSON object');
  const unknown = Object.keys(order).find((name) => !names.includes(name));
  if (unknown !== undefined) throw new BadFault(`unknown field ${unknown}; known are ${names.join(', ')}`);
  return order as { [name: string]: unknown };
}

function readWhole(
  given: { [name: string]: unknown },
  name: string,
  fallback: number,
  min: number,
  max: number,
): number {
  const value = given[name] ?? fallback;
  if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
    throw new BadFault(`${name} must be a whole number from ${min} to ${max}`);
  }
  return value;
}
