import { parseObject } from './record.ts';

/**
 * How many events of a tenant one edge has answered with yes since it began the entry. JSON in the bucket of
 * acknowledged totals, under {@link acknowledgedKey}. The number is absolute and only rises, so telling it twice,
 * late or not at all changes nothing but how much is known: what an edge had not told yet when it died is missing.
 *
 * Every one of these events was acknowledged by the log, except where `isLogged` is false: then some are in the
 * edge's journal alone, and the log may have fewer.
 */
export interface Acknowledged {
  readonly tenant: string;
  /** A name that no other process and no other time has. */
  readonly entry: string;
  readonly events: number;
  readonly isLogged: boolean;
  /** By the edge's clock, epoch milliseconds. */
  readonly toldAtMs: number;
}

export const acknowledgedKey = ({ entry, tenant }: Pick<Acknowledged, 'entry' | 'tenant'>): string =>
  `${entry}/${tenant}`;

/** Null when it is not sound. */
export function parseAcknowledged(text: string): Acknowledged | null {
  const value = parseObject(text);
  if (value === null) return null;
  const { tenant, entry, events, isLogged, toldAtMs } = value as Partial<Record<keyof Acknowledged, unknown>>;
  if (typeof tenant !== 'string' || typeof entry !== 'string' || entry === '') return null;
  if (!isCount(events) || !isCount(toldAtMs) || typeof isLogged !== 'boolean') return null;
  return { tenant, entry, events, isLogged, toldAtMs };
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
