#!/usr/bin/env node
// `npm run faults`: everything that we know how to break, under load, counted afterwards.
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Progress } from './progress.ts';
import { failureOf, lineOf, summaryOf, titleOf, totalsOf, type RowFailure } from './report.ts';
import { ROWS, runRow, type RowResult } from './run.ts';
import type { Row } from './row.ts';

const ROUNDS_DEFAULT = 300;
/** Rounds of kill -9 for one round of every other row. */
const KILLS_PER_ROUND = 15;
const PARALLEL_DEFAULT = 2;
const NAME_WIDTH = Math.max(...ROWS.map(({ name }) => name.length));

const usage = `usage: npm run faults -- [--rounds N] [--only NAME[,NAME]] [--seed S] [--from R] [--parallel P] [--short] [--list] [--json]

Breaks parts of a real Tallyline under load and counts what is left: every acknowledged event exactly once. A row that
fails ends, and the others go on; what failed is said once more at the end, and the exit code is 1.

  --rounds N     rounds of kill -9, over the rows that only kill (${ROUNDS_DEFAULT} by default); every other row has one round
                 for each ${KILLS_PER_ROUND} of them. With --only: rounds of each row that is named
  --only NAMES   these rows alone
  --seed S       decides what each round draws, by its row and number
  --from R       begin with round R of each row: to see a failed round again
  --parallel P   worlds at a time (${PARALLEL_DEFAULT} by default), each with engines of its own
  --short        no round of minutes: without it the first round of a row about time takes up to two
  --list         the rows, and what each of them says must hold
  --json         the results as JSON on stdout
`;

const list = ROWS.map(({ name, holds }) => `${name.padEnd(NAME_WIDTH)}  ${holds}\n`).join('');

interface Plan {
  readonly row: Row;
  readonly rounds: number;
}

interface Settings {
  readonly plans: readonly Plan[];
  readonly seed: number;
  readonly from: number;
  readonly parallel: number;
  readonly short: boolean;
  readonly json: boolean;
}

/** Kills are spread evenly, the rest to the first rows. */
function planAll(rounds: number): Plan[] {
  const kills = ROWS.filter((row) => row.kills);
  return ROWS.map((row) => {
    if (!row.kills) return { row, rounds: Math.max(1, Math.floor(rounds / KILLS_PER_ROUND)) };
    const own = Math.floor(rounds / kills.length);
    return { row, rounds: own + (kills.indexOf(row) < rounds % kills.length ? 1 : 0) };
  }).filter(({ rounds: own }) => own > 0);
}

/** A number is what is wrong: the exit code, after the reason was printed. */
function readSettings(): Settings | number {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: String(ROUNDS_DEFAULT) },
      only: { type: 'string' },
      seed: { type: 'string', default: String(Date.now() % 1_000_000) },
      from: { type: 'string', default: '1' },
      parallel: { type: 'string', default: String(PARALLEL_DEFAULT) },
      short: { type: 'boolean', default: false },
      list: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help || values.list) {
    process.stdout.write(values.help ? usage : list);
    return 0;
  }
  const [rounds, seed, from, parallel] = [values.rounds, values.seed, values.from, values.parallel].map(
    Number,
  );
  for (const [name, value, least] of [
    ['rounds', rounds!, 1],
    ['seed', seed!, 0],
    ['from', from!, 1],
    ['parallel', parallel!, 1],
  ] as const) {
    if (Number.isSafeInteger(value) && value >= least) continue;
    process.stderr.write(`--${name} must be a whole number from ${least} on\n\n${usage}`);
    return 64;
  }
  const names = values.only?.split(',');
  const unknown = names?.filter((name) => !ROWS.some((row) => row.name === name)) ?? [];
  if (unknown.length > 0) {
    process.stderr.write(`there is no row ${unknown.join(', ')}; there are:\n${list}`);
    return 64;
  }
  const plans =
    names === undefined
      ? planAll(rounds!)
      : ROWS.filter(({ name }) => names.includes(name)).map((row) => ({ row, rounds: rounds! }));
  return { plans, seed: seed!, from: from!, parallel: parallel!, short: values.short, json: values.json };
}

async function main(): Promise<number> {
  const settings = readSettings();
  if (typeof settings === 'number') return settings;
  const { plans, seed, from, parallel, short, json } = settings;
  const say = (text: string): void => void (json ? process.stderr : process.stdout).write(text);
  say(`seed ${seed}\n${titleOf(NAME_WIDTH)}`);

  const keepFolder = join(process.cwd(), '.tallyline', 'faults');
  const progress = new Progress();
  const results: RowResult[] = [];
  const failures: RowFailure[] = [];
  const waiting = [...plans];
  // A row that failed ends there, since its world is kept as it is; the others go on.
  const work = async (): Promise<void> => {
    for (let plan = waiting.shift(); plan !== undefined; plan = waiting.shift()) {
      const { row, rounds } = plan;
      try {
        const result = await runRow(row, {
          seed,
          from,
          rounds,
          keepFolder,
          longFirst: !short,
          onRound: ({ number }) => progress.tell(row.name, `${number - from + 1}/${rounds}`),
        });
        results.push(result);
        progress.clear();
        say(lineOf(result, NAME_WIDTH));
      } catch (error) {
        const failure = failureOf(error, { row: row.name, seed, from, rounds });
        failures.push(failure);
        progress.clear();
        process.stderr.write(`FAILED ${failure.message}\n`);
      } finally {
        progress.tell(row.name, null);
      }
    }
  };
  const startedMs = performance.now();
  await Promise.all(Array.from({ length: parallel }, work));
  progress.clear();

  const total = totalsOf(results, (performance.now() - startedMs) / 1_000);
  if (json) {
    const errors = failures.map(({ message }) => message);
    process.stdout.write(
      `${JSON.stringify({ seed, ok: errors.length === 0, total, rows: results, failures, errors })}\n`,
    );
  }
  say(summaryOf(total, results, failures));
  return failures.length === 0 ? 0 : 1;
}

// What was begun ends with this process: engines by the kernel, mounts by their `exit` listeners.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130));

// A client that still tries for a world that has failed would keep the process for ever.
process.exit(await main());
