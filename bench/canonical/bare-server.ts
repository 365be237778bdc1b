// What a server on uWebSockets.js costs that only reads the same requests (bench/baseline-server.ts): nothing done with
// them, and JSON.parse.
import { loadUntilDone } from './load-process.ts';
import { treeCpuMs } from './processes.ts';
import type { Ceiling } from './ceiling.ts';
import type { LoadPlan } from './load-plan.ts';
import type { World } from './world.ts';

export async function bareServers(world: World, plan: Omit<LoadPlan, 'port'>): Promise<Ceiling[]> {
  const found: Ceiling[] = [];
  for (const [name, mode] of [
    ['empty server', 'empty'],
    ['JSON.parse server', 'parse'],
  ] as const) {
    const server = world.spawn('bench/baseline-server.js', [mode]);
    const port = Number((await server.line((line) => 'port' in line))['port']);
    let before = 0;
    const result = await loadUntilDone(
      world,
      { ...plan, port },
      { onBegin: () => (before = treeCpuMs(server.pid)) },
    );
    const used = treeCpuMs(server.pid) - before;
    await server.stop();
    const seconds = (result.lastAnswerMs - result.firstAnswerMs) / 1_000;
    found.push({
      name,
      events: result.events,
      eventsPerSecond: result.events / seconds,
      cpuMicrosPerEvent: {
        load: (result.cpuMs * 1_000) / result.events,
        server: (used * 1_000) / result.events,
      },
    });
  }
  return found;
}
