#!/usr/bin/env node
// `npm run simulate -- --seeds N`: histories of a world that loses, repeats, delays and crashes, against a model.
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { GUARDS, mutate, type Guard } from './guards.ts';
import { tellSeed } from './seeds.ts';
import { spread, type Spread } from './processes.ts';

const usage = `usage: npm run simulate -- [--seeds N] [--from FIRST] [--processes N] [--break GUARD|all] [--json]

  --seeds     how many histories; 2,000 by default
  --from      the first seed; a wrong one is run again with --from SEED --seeds 1, and tells its whole story
  --processes one for each processor by default
  --break     takes a guard out, and fails if nobody notices: ${GUARDS.map(({ name }) => name).join(', ')}
  --json      the result as JSON
`;

const dist = fileURLToPath(new URL('../../', import.meta.url));
const workerFile = fileURLToPath(new URL('./worker.js', import.meta.url));
/** Of a wrong seed's story, the end: what is not there is told by running it alone. */
const STORY_LINES = 60;
const TELL_EVERY_S = 5;

interface Arguments {
  readonly seeds: number;
  readonly from: number;
  readonly processes: number;
  readonly json: boolean;
}

async function simulate({ seeds, from, processes, json }: Arguments): Promise<boolean> {
  const began = performance.now();
  const seconds = (): number => (performance.now() - began) / 1_000;
  let toldAt = 0;
  const result = await spread({
    workerFile,
    from,
    count: seeds,
    processes,
    guards: {},
    stopAtFirst: false,
    // At once: a run may take hours, and somebody may end it.
    onWrong: (seed, violation) =>
      process.stderr.write(`seed ${seed} is WRONG: ${violation.split('\n')[0]}\n`),
    onProgress({ done, wrong, doneTo }) {
      if (seconds() - toldAt < TELL_EVERY_S) return;
      toldAt = seconds();
      const rate = done / toldAt;
      const left = Math.round((seeds - done) / rate);
      process.stderr.write(
        `${done} of ${seeds} seeds, ${wrong} wrong, ${Math.round(rate)} a second, ${left} s left; ` +
          `to go on later: --from ${doneTo} --seeds ${from + seeds - doneTo}\n`,
      );
    },
  });
  const rate = Math.round(result.done / seconds());
  const { done, steps, cpuSeconds, memoryBytes, wrong } = result;
  if (json) {
    const told = {
      from,
      seeds: done,
      steps,
      seconds: seconds(),
      seedsPerSecond: rate,
      cpuSeconds,
      memoryBytes,
    };
    console.log(JSON.stringify({ ...told, wrong }));
  } else {
    await printWrong(result, seeds === 1);
    console.log(
      `${done} seeds from ${from}, ${steps} steps, ${seconds().toFixed(1)} s, ${rate} a second, ` +
        `${((cpuSeconds * 1_000) / done).toFixed(2)} ms of a processor and at most ` +
        `${Math.round(memoryBytes / 2 ** 20)} MiB each: ` +
        `${wrong.length === 0 ? 'no wrong total' : `${wrong.length} WRONG`}`,
    );
  }
  return result.wrong.length === 0;
}

async function printWrong({ wrong }: Spread, all: boolean): Promise<void> {
  for (const { seed, violation } of wrong.slice(0, 3)) {
    const { story } = await tellSeed(seed);
    const at = story.findIndex((line) => line.includes('VIOLATION'));
    const told = all ? story : story.slice(Math.max(0, at - STORY_LINES), at + 1);
    console.log(`seed ${seed}: ${violation}\n  ${told.join('\n  ')}\n`);
    console.log(`again: npm run simulate -- --from ${seed} --seeds 1\n`);
  }
  const more = wrong.slice(3).map(({ seed }) => seed);
  if (more.length > 0) console.log(`and the seeds ${more.slice(0, 100).join(' ')}\n`);
}

interface Caught {
  readonly guard: string;
  /** The first seed that was wrong without the guard; null for none. */
  readonly seed: number | null;
  readonly violation: string | null;
}

async function breakGuard(
  guard: Guard,
  directory: string,
  { seeds, from, processes }: Arguments,
): Promise<Caught> {
  const copy = join(directory, guard.name);
  mutate(guard, dist, copy);
  const { wrong } = await spread({
    workerFile: join(copy, 'bench/simulate/worker.js'),
    from,
    count: seeds,
    processes,
    guards: guard.tables ?? {},
    stopAtFirst: true,
  });
  const first = wrong[0];
  return { guard: guard.name, seed: first?.seed ?? null, violation: first?.violation ?? null };
}

async function breakGuards(which: string, args: Arguments): Promise<boolean> {
  const guards = which === 'all' ? GUARDS : GUARDS.filter(({ name }) => name === which);
  if (guards.length === 0) throw new Error(`no guard ${which}\n${usage}`);
  // Beside the code, where what it imports is found.
  const parent = join(dist, '../.tallyline/simulate');
  mkdirSync(parent, { recursive: true });
  const directory = mkdtempSync(join(parent, 'without-'));
  try {
    const caught: Caught[] = [];
    for (const guard of guards) {
      const one = await breakGuard(guard, directory, args);
      caught.push(one);
      if (args.json) continue;
      const told = one.seed === null ? 'NOT NOTICED' : `seed ${one.seed}: ${one.violation!.split('\n')[0]}`;
      console.log(`without ${guard.name} (${guard.without}):\n  ${told}`);
    }
    if (args.json) console.log(JSON.stringify(caught));
    return caught.every(({ seed }) => seed !== null);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function whole(text: string | undefined, otherwise: number, least: number): number {
  const value = text === undefined ? otherwise : Number(text);
  if (!Number.isSafeInteger(value) || value < least) throw new Error(`${text} is no such number\n${usage}`);
  return value;
}

async function main(): Promise<boolean> {
  const { values } = parseArgs({
    options: {
      seeds: { type: 'string' },
      from: { type: 'string' },
      processes: { type: 'string' },
      break: { type: 'string' },
      json: { type: 'boolean' },
      help: { type: 'boolean' },
    },
  });
  if (values.help === true) {
    console.log(usage);
    return true;
  }
  const args: Arguments = {
    seeds: whole(values.seeds, 2_000, 1),
    from: whole(values.from, 0, 0),
    processes: whole(values.processes, availableParallelism(), 1),
    json: values.json === true,
  };
  return values.break === undefined ? simulate(args) : breakGuards(values.break, args);
}

try {
  if (!(await main())) process.exitCode = 1;
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 2;
}
