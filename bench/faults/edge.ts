// Crashes on the way of an event, under load, over and over: kill -9 of the edge, kill -9 of NATS, and a NATS
// whose storage is cut back to an earlier state, with products sending over HTTP and WebSocket all the while. At
// the end of each scenario every event that was recorded must be counted exactly once, in the raw rows and in the
// rollups, and every check of the aggregator must hold.
import { readFile } from 'node:fs/promises';
import { CHECKS, checkFile } from '../../aggregator/checks.ts';
import { until } from '../../test/until.ts';
import { Product, type Transport } from './load.ts';
import { METER, TENANT, World } from './world.ts';

export interface Scenario {
  readonly name: string;
  readonly what: string;
  readonly journal: boolean;
  crash(world: World, random: () => number, flowing: () => Promise<void>): Promise<void>;
}

const PAUSE_MS_MAX = 150;
const EVENTS_BETWEEN = 400;
const FLOW_DEADLINE_MS = 60_000;
const COUNT_DEADLINE_MS = 120_000;

/** In which an aggregator reads and flushes what the log has. */
const COUNTED_MS = 1_000;

const pauseFor = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const pause = (random: () => number): Promise<void> => pauseFor(random() * PAUSE_MS_MAX);

async function killEdge(world: World, random: () => number): Promise<void> {
  await world.killEdge();
  await pause(random);
  await world.startEdge();
}

async function killNats(world: World, random: () => number): Promise<void> {
  await world.engines.nats.kill();
  await pause(random);
  await world.engines.nats.restart();
}

export const SCENARIOS: readonly Scenario[] = [
  { name: 'edge-kill', what: 'kill -9 of the edge', journal: false, crash: killEdge },
  { name: 'edge-kill-journal', what: 'kill -9 of the edge, journal on', journal: true, crash: killEdge },
  { name: 'nats-kill', what: 'kill -9 of NATS', journal: false, crash: killNats },
  { name: 'nats-kill-journal', what: 'kill -9 of NATS, journal on', journal: true, crash: killNats },
  {
    name: 'nats-cut-back',
    what: 'the storage of NATS cut back to an earlier state, journal on',
    journal: true,
    async crash(world, random, flowing) {
      await world.engines.nats.kill();
      await world.keepStore();
      await world.engines.nats.restart();
      // What is cut off must have been in the log, and some of it counted.
      await until('the log has what the journal has', () => world.isSettled(), FLOW_DEADLINE_MS);
      await flowing();
      await until('the log has what the journal has', () => world.isSettled(), FLOW_DEADLINE_MS);
      await pauseFor(COUNTED_MS + random() * PAUSE_MS_MAX);
      await world.engines.nats.kill();
      await world.cutBack();
      await world.engines.nats.restart();
    },
  },
];

export interface ScenarioResult {
  readonly name: string;
  readonly rounds: number;
  readonly recorded: number;
  readonly counted: number;
  readonly seconds: number;
}

/** Throws at the first promise that is broken. `random` decides when the crashes come. */
export async function runScenario(
  scenario: Scenario,
  o: { rounds: number; random: () => number; onRound?: (round: number) => void },
): Promise<ScenarioResult> {
  const startMs = performance.now();
  const world = await World.start({ journal: scenario.journal });
  try {
    const transports: Transport[] = ['http', 'websocket', 'http', 'websocket'];
    const products = transports.map(
      (transport, at) =>
        new Product({ url: world.url, key: world.key, transport, prefix: `${transport}-${at}` }),
    );
    // Every product must get on after a crash: a transport that never recovers is no success of the others.
    const flowing = async (): Promise<void> => {
      const before = products.map(({ accepted }) => accepted);
      await until(
        `events of every product are taken after ${scenario.what}`,
        () => products.every(({ accepted }, at) => accepted >= before[at]! + EVENTS_BETWEEN / 4),
        FLOW_DEADLINE_MS,
      );
    };
    for (let round = 1; round <= o.rounds; round++) {
      await flowing();
      await pause(o.random);
      await scenario.crash(world, o.random, flowing);
      o.onRound?.(round);
    }
    await flowing();
    for (const product of products) await product.stop();
    const recorded = products.reduce((sum, product) => sum + product.recorded, 0);
    const sum = products.reduce((total, product) => total + product.sum, 0n);
    const counted = await countOnce(world, recorded, sum);
    return {
      name: scenario.name,
      rounds: o.rounds,
      recorded,
      counted,
      seconds: (performance.now() - startMs) / 1_000,
    };
  } finally {
    await world.stop();
  }
}

async function countOnce(world: World, recorded: number, sum: bigint): Promise<number> {
  const count = async (): Promise<{ events: string; identities: string }> => {
    const [row] = await world.ch.rows<{ events: string; identities: string }>(
      `SELECT toString(count()) AS events, toString(uniqExact(identity)) AS identities FROM events FINAL
       WHERE tenant = '${TENANT}'`,
    );
    return row!;
  };
  const rollup = async (): Promise<{ events: string; total: string }> => {
    const [row] = await world.ch.rows<{ events: string; total: string }>(
      `SELECT toString(sum(value_count)) AS events, toString(sum(value_sum)) AS total FROM rollup_hour FINAL
       WHERE tenant = '${TENANT}' AND meter = '${METER}'`,
    );
    return row!;
  };
  const said = async (): Promise<string> => JSON.stringify({ raw: await count(), rollup: await rollup() });
  const wanted = JSON.stringify({
    raw: { events: String(recorded), identities: String(recorded) },
    rollup: { events: String(recorded), total: String(sum) },
  });
  let last = '';
  await until(
    'every recorded event is counted',
    async () => (last = await said()) === wanted,
    COUNT_DEADLINE_MS,
  ).catch((error: unknown) => {
    throw new Error(`counted ${last}, wanted ${wanted}`, { cause: error });
  });
  for (const check of CHECKS) {
    const findings = await world.ch.rows<object>(
      (await readFile(checkFile(check), 'utf8')).trim().replace(/;$/, ''),
    );
    if (findings.length > 0) throw new Error(`${check}: ${JSON.stringify(findings.slice(0, 3))}`);
  }
  return Number((await count()).events);
}
