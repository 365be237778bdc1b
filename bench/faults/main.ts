#!/usr/bin/env node
// `npm run faults -- --rounds N [--only NAME] [--seed S]`: crashes under load, counted afterwards.
import { parseArgs } from 'node:util';
import { seededRandom } from './random.ts';
import { runScenario, SCENARIOS } from './edge.ts';

const ROUNDS_DEFAULT = 200;

const usage = `usage: npm run faults -- [--rounds N] [--only NAME] [--seed S]

Kills parts of a real Tallyline under load and counts what is left: every acknowledged event exactly once.
N rounds in total (${ROUNDS_DEFAULT} by default) are spread over the scenarios:

${SCENARIOS.map(({ name, what }) => `  ${name.padEnd(20)} ${what}`).join('\n')}
`;

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: String(ROUNDS_DEFAULT) },
      only: { type: 'string' },
      seed: { type: 'string', default: String(Date.now() % 1_000_000) },
      help: { type: 'boolean', default: false },
    },
  });
  const rounds = Number(values.rounds);
  const seed = Number(values.seed);
  const chosen = SCENARIOS.filter(({ name }) => values.only === undefined || name === values.only);
  if (
    values.help ||
    chosen.length === 0 ||
    !Number.isSafeInteger(rounds) ||
    rounds < 1 ||
    !Number.isSafeInteger(seed)
  ) {
    (values.help ? process.stdout : process.stderr).write(usage);
    return values.help ? 0 : 64;
  }
  process.stdout.write(`seed ${seed}\n`);
  let left = rounds;
  for (const [at, scenario] of chosen.entries()) {
    const own = Math.ceil(left / (chosen.length - at));
    left -= own;
    if (own === 0) continue;
    try {
      const result = await runScenario(scenario, {
        rounds: own,
        random: seededRandom(seed + at),
        onRound: (round) => process.stderr.write(`\r${scenario.name}: round ${round} of ${own}  `),
      });
      process.stderr.write('\r');
      process.stdout.write(
        `${scenario.name.padEnd(20)} ${own} rounds, ${result.recorded} events recorded and acknowledged, ` +
          `${result.counted} counted, each once; ${result.seconds.toFixed(0)} s\n`,
      );
    } catch (error) {
      process.stderr.write(`\n${scenario.name} FAILED (seed ${seed}, --only ${scenario.name}):\n`);
      process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
      return 1;
    }
  }
  return 0;
}

process.exitCode = await main();
