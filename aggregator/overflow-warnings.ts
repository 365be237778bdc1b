/** When to warn of a meter whose hours overflow: once an hour for each, or the log itself would overflow. */
import { HOUR_MS } from '../contract/window.ts';
import type { MeterHour } from './prepare.ts';

const METERS_MAX = 10_000;

export class OverflowWarnings {
  /** When each meter was warned of last, epoch milliseconds. */
  readonly #warnedMs = new Map<string, number>();

  isDue({ text }: MeterHour, nowMs: number): boolean {
    const [tenant, meter] = JSON.parse(text) as [string, string];
    const key = JSON.stringify([tenant, meter]);
    const lastMs = this.#warnedMs.get(key);
    if (lastMs !== undefined && nowMs < lastMs + HOUR_MS) return false;
    // Forgetting warns once more, which is no harm.
    if (this.#warnedMs.size >= METERS_MAX) this.#warnedMs.clear();
    this.#warnedMs.set(key, nowMs);
    return true;
  }
}
