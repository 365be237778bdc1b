// CPU and memory of all processes of a world over a stretch of a run.
import { peakBytes, residentBytes, treeCpuMs } from './processes.ts';

export const PARTS = ['load', 'edge', 'nats', 'aggregator', 'clickhouse', 'ledger', 'postgres'] as const;
export type Part = (typeof PARTS)[number];
export type ByPart = Readonly<Partial<Record<Part, number>>>;

/** Asks what the parts have used, and what of it fell into a stretch. */
export class Usage {
  readonly #pids: ReadonlyMap<Part, number>;
  readonly #peaks = new Map<Part, number>();

  constructor(pids: ReadonlyMap<Part, number>) {
    this.#pids = pids;
  }

  cpuMs(): ByPart {
    return this.#each(treeCpuMs);
  }

  /** Remembers the most of each; call it now and then. */
  residentBytes(): ByPart {
    return this.#each((pid, part) => {
      const bytes = residentBytes(pid);
      this.#peaks.set(part, Math.max(bytes, this.#peaks.get(part) ?? 0));
      return bytes;
    });
  }

  /** The kernel's own peak where a process has no children; what was seen of Postgres. */
  peakBytes(): ByPart {
    this.residentBytes();
    return this.#each((pid, part) =>
      part === 'postgres' ? this.#peaks.get(part)! : Math.max(peakBytes(pid), this.#peaks.get(part)!),
    );
  }

  #each(ask: (pid: number, part: Part) => number): ByPart {
    return Object.fromEntries([...this.#pids].map(([part, pid]) => [part, ask(pid, part)]));
  }
}

export function difference(after: ByPart, before: ByPart): ByPart {
  return mapParts(after, (value, part) => value - (before[part] ?? 0));
}

export function perEvent(cpuMs: ByPart, events: number): ByPart {
  return mapParts(cpuMs, (ms) => (ms * 1_000) / events);
}

export function sumOf(parts: ByPart): number {
  return Object.values(parts).reduce((sum, value) => sum + value, 0);
}

export function mapParts(parts: ByPart, map: (value: number, part: Part) => number): ByPart {
  return Object.fromEntries(
    PARTS.flatMap((part) => (parts[part] === undefined ? [] : [[part, map(parts[part], part)]])),
  );
}
