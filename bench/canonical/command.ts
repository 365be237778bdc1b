// The command line of the canonical benchmark: defaults, what is printed, how it ends.
import { keepResult, resultLine } from './results.ts';
import { printMemory, printReport } from './report-table.ts';
import { benchCanonical, type CanonicalOptions } from './run.ts';
import { SUBJECTS } from './workload.ts';
import type { World } from './world.ts';

export interface CanonicalCommand {
  /** Of the sustained phase; 20 by default. */
  readonly seconds: number;
  /** Events a second of the steady phase; 0 for half of what was sustained. */
  readonly rate: number;
  readonly seed: number;
  /** How long the steady phase goes on; 0 for as long as the sustained one. */
  readonly soakMinutes: number;
  readonly profileFolder: string | null;
  /** Without it nothing is posted, and the stages before it have the machine to themselves. */
  readonly withLedger: boolean;
  readonly json: boolean;
  /** Whether the result is appended to bench/results. */
  readonly keep: boolean;
}

const CUSTOMERS = 1_000;
const WARMUP_SECONDS = 3;
const CEILING_SECONDS = 3;
const SINGLE_SECONDS = 10;
const SINGLE_RATE = 10_000;
const EXIT_INTERRUPTED = 130;

export async function canonical(command: CanonicalCommand): Promise<number> {
  const { seconds, seed, rate, soakMinutes, profileFolder, withLedger } = command;
  const startMs = performance.now();
  let world: World | null = null;
  const interrupted = (): void => {
    process.stderr.write('stopping; nothing is left running\n');
    void (world?.stop() ?? Promise.resolve()).finally(() => process.exit(EXIT_INTERRUPTED));
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, interrupted);
  const options: CanonicalOptions = {
    seed,
    rate,
    seconds,
    profileFolder,
    subjects: SUBJECTS,
    customers: CUSTOMERS,
    eventsMax: 0,
    warmupSeconds: WARMUP_SECONDS,
    ceilingSeconds: CEILING_SECONDS,
    halfSeconds: soakMinutes > 0 ? soakMinutes * 60 : seconds,
    singleSeconds: Math.min(seconds, SINGLE_SECONDS),
    singleRate: SINGLE_RATE,
    withLedger,
    onProgress: (text) => process.stderr.write(`${elapsed(startMs)} ${text}\n`),
    onWorld: (one) => (world = one),
  };
  const report = await benchCanonical(options);
  if (command.keep) process.stderr.write(`kept in ${keepResult(resultLine(report, Date.now()))}\n`);
  process.stdout.write(command.json ? `${JSON.stringify(report, null, 2)}\n` : `\n${printReport(report)}`);
  if (soakMinutes > 0 && !command.json) process.stdout.write(`\n${printMemory(report)}`);
  if (report.totalsExact) return 0;
  process.stderr.write(`totals differ:\n${report.differences.map((text) => `  ${text}\n`).join('')}`);
  return 1;
}

const elapsed = (startMs: number): string =>
  `${Math.round((performance.now() - startMs) / 1_000)} s`.padStart(5);
