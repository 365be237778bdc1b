/**
 * What this edge has answered with yes, by tenant, for the first line of the conservation report.
 *
 * A tenant's total is told under an entry of its own. An entry that was told and has rested for an hour ends: its
 * tenant takes no memory any more, and with its next event begins another entry. So nobody who adds up entries
 * need wait for long to know that one rises no more.
 */
import type { Acknowledged } from '../../contract/acknowledged.ts';

interface Entry {
  readonly tenant: string;
  readonly name: string;
  events: number;
  /** The `events` that were told last; -1 for never. */
  told: number;
  isToldLogged: boolean;
  changedAtMs: number;
}

export const ENTRY_RESTS_MS = 3_600_000;

export class AcknowledgedTotals {
  readonly #instance: string;
  readonly #entries = new Map<string, Entry>();
  #begun = 0;

  /** @param instance a name that no other process and no other time has. */
  constructor(instance: string) {
    this.#instance = instance;
  }

  get tenants(): number {
    return this.#entries.size;
  }

  add(tenant: string, events: number, nowMs: number): void {
    if (events === 0) return;
    let entry = this.#entries.get(tenant);
    if (entry === undefined) {
      const name = `${this.#instance}-${(this.#begun += 1)}`;
      entry = { tenant, name, events: 0, told: -1, isToldLogged: true, changedAtMs: nowMs };
      this.#entries.set(tenant, entry);
    }
    entry.events += events;
    entry.changedAtMs = nowMs;
  }

  /**
   * What has to be told, at most so many, those first that wait longest; and forgets what has rested.
   * @param isLogged whether all of it was acknowledged by the log.
   */
  untold(isLogged: boolean, nowMs: number, most: number): Acknowledged[] {
    const untold: Acknowledged[] = [];
    for (const [tenant, entry] of this.#entries) {
      const { name, events, told, isToldLogged, changedAtMs } = entry;
      if (told === events && isToldLogged === isLogged) {
        if (isLogged && nowMs - changedAtMs >= ENTRY_RESTS_MS) this.#entries.delete(tenant);
      } else if (untold.length < most) {
        untold.push({ tenant, entry: name, events, isLogged, toldAtMs: nowMs });
      }
    }
    return untold;
  }

  /** It was told. */
  told({ tenant, entry: name, events, isLogged }: Acknowledged): void {
    const entry = this.#entries.get(tenant);
    if (entry?.name !== name) return;
    entry.told = events;
    entry.isToldLogged = isLogged;
    // To the end of the order, so that with very many tenants everybody has a turn.
    this.#entries.delete(tenant);
    this.#entries.set(tenant, entry);
  }
}
