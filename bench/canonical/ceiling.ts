// One of the figures that nobody can go beyond on this machine, measured in the same run.
import { cpuMs } from '../cpu.ts';

export interface Ceiling {
  readonly name: string;
  readonly events: number;
  readonly eventsPerSecond: number;
  /** By process, microseconds; `own` is whoever sends or reads. */
  readonly cpuMicrosPerEvent: Readonly<Record<string, number>>;
}

/** `work` resolves with the number of its events. */
export async function measured(
  name: string,
  pids: Readonly<Record<string, number>>,
  work: () => Promise<number>,
): Promise<Ceiling> {
  const names = Object.keys(pids);
  const before = names.map((one) => cpuMs(pids[one]!));
  const startMs = performance.now();
  const events = await work();
  const seconds = (performance.now() - startMs) / 1_000;
  const used = names.map((one, at) => [one, ((cpuMs(pids[one]!) - before[at]!) * 1_000) / events]);
  return { name, events, eventsPerSecond: events / seconds, cpuMicrosPerEvent: Object.fromEntries(used) };
}
