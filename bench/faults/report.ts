// What `npm run faults` prints: a line for each row, and in the end which of them failed and how to see it again.
import { FaultFailure, type RowResult } from './run.ts';

/** A row that did not come to its end. */
export interface RowFailure {
  readonly row: string;
  /** The round that failed; null when it was none of them, such as a world that did not start. */
  readonly round: number | null;
  readonly message: string;
  /** The command that does it again. */
  readonly again: string;
}

export function failureOf(
  error: unknown,
  { row, seed, from, rounds }: { row: string; seed: number; from: number; rounds: number },
): RowFailure {
  if (error instanceof FaultFailure) {
    const { round, again, message } = error;
    return { row, round, again, message };
  }
  const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { row, round: null, message, again: commandOf(row, { seed, from, rounds }) };
}

export function commandOf(row: string, o: { seed: number; from: number; rounds: number }): string {
  return `npm run faults -- --only ${row} --seed ${o.seed} --from ${o.from} --rounds ${o.rounds}`;
}

export function titleOf(nameWidth: number): string {
  return `${'row'.padEnd(nameWidth)}  rounds     events  seconds\n`;
}

export function lineOf({ name, rounds, events, seconds, skipped }: RowResult, nameWidth: number): string {
  const cells = [
    name.padEnd(nameWidth),
    String(rounds).padStart(6),
    String(events).padStart(9),
    seconds.toFixed(0).padStart(7),
  ];
  return `${cells.join('  ')}  ${skipped === null ? 'each counted once' : `SKIPPED: ${skipped}`}\n`;
}

export interface Totals {
  readonly rounds: number;
  readonly events: number;
  readonly seconds: number;
}

export function totalsOf(results: readonly RowResult[], seconds: number): Totals {
  const sum = (of: (result: RowResult) => number): number =>
    results.reduce((total, one) => total + of(one), 0);
  return { rounds: sum(({ rounds }) => rounds), events: sum(({ events }) => events), seconds };
}

export function summaryOf(
  total: Totals,
  results: readonly RowResult[],
  failures: readonly RowFailure[],
): string {
  const skipped = results.filter((one) => one.skipped !== null).length;
  const held = failures.length === 0 ? 'all held' : `${results.length - skipped} rows held`;
  const lines = [
    `${held}: ${total.rounds} rounds, ${total.events} events, ${total.seconds.toFixed(0)} s` +
      (skipped > 0 ? `; ${skipped} rows were SKIPPED` : ''),
  ];
  if (failures.length > 0) lines.push(`FAILED: ${failures.length} rows`);
  for (const { row, round, message, again } of failures) {
    const [first = ''] = message.split('\n');
    lines.push(`  ${row}${round === null ? '' : `, round ${round}`}: ${first}`, `    again: ${again}`);
  }
  return `${lines.join('\n')}\n`;
}
