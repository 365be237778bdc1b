import { expect, test } from 'vitest';
import { runScenario, SCENARIOS } from '../bench/faults/edge.ts';
import { seededRandom } from '../bench/faults/random.ts';

// `npm run faults` in short: a few rounds of each crash, over HTTP and WebSocket at once. Everything that was
// acknowledged must be counted exactly once at the end of each scenario; runScenario throws when it is not.

const ROUNDS = 2;
const SEED = Number(process.env['TALLYLINE_FAULTS_SEED'] ?? Date.now() % 1_000_000);

test.each(SCENARIOS.map((scenario, at) => [scenario.what, scenario, SEED + at] as const))(
  `after %s every acknowledged event is counted once (seed ${SEED})`,
  async (_, scenario, seed) => {
    const result = await runScenario(scenario, { rounds: ROUNDS, random: seededRandom(seed) });
    expect(result.recorded).toBeGreaterThan(0);
    expect(result.counted).toBe(result.recorded);
  },
  120_000,
);
