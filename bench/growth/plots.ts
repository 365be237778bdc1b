// Which plots are drawn from the figures: none of a part that was not measured.
import { PARTS as PROCESSES } from '../canonical/usage.ts';
import type { CanonicalFigure, Growth, Measured, QueriesFigure } from './figures.ts';
import type { Line, Plot } from './plot.ts';

export interface NamedPlot {
  /** Of its file, without the ending. */
  readonly name: string;
  readonly plot: Plot;
}

export function plotsOf({ subjects, keys, shards, queries }: Growth): NamedPlot[] {
  const plots: NamedPlot[] = [];
  if (subjects.length > 0)
    plots.push({
      name: 'subjects',
      plot: cpuPlot('CPU an event by number of subjects', 'subjects', subjects),
    });
  if (keys.length > 0) {
    const points = (of: (figure: (typeof keys)[number]['figure']) => number): Line['points'] =>
      keys.map(({ size, figure }) => [size, of(figure)]);
    plots.push({
      name: 'keys',
      plot: {
        title: 'Dedupe index by number of keys',
        x: 'keys',
        y: 'nanoseconds an event, or bytes a key',
        yScale: 'log',
        lines: [
          { name: 'exact: ns/event', points: points(({ exact }) => exact.nanosPerEvent) },
          { name: 'exact: ns/event, last fifth', points: points(({ exact }) => exact.nanosPerEventLast) },
          { name: 'exact: bytes/key', points: points(({ exact }) => exact.bytesPerKey) },
          { name: 'filtered: bytes/key', points: points(({ filtered }) => filtered.coldBytesPerKey) },
        ],
      },
    });
  }
  if (shards.length > 0)
    plots.push({ name: 'shards', plot: cpuPlot('CPU an event by number of shards', 'shards', shards) });
  if (queries.length > 0) plots.push({ name: 'queries', plot: queryPlot(queries) });
  return plots;
}

function cpuPlot(title: string, x: string, measured: readonly Measured<CanonicalFigure>[]): Plot {
  const parts = [...PROCESSES, 'total'] as const;
  const lines = parts.flatMap((part): Line[] => {
    const points = measured.map(({ size, figure }): readonly [number, number] => [
      size,
      figure.cpuMicrosPerEvent[part] ?? 0,
    ]);
    return points.every(([, micros]) => micros < 0.005) ? [] : [{ name: part, points }];
  });
  return { title, x, y: 'CPU µs an event', yScale: 'linear', lines };
}

/** What is promised over a month of 100 million events, milliseconds. */
export const BOUNDS_MS = [
  { name: 'a month of a subject', ms: 20 },
  { name: 'a month of the 100 largest subjects', ms: 100 },
] as const;

function queryPlot(measured: readonly Measured<QueriesFigure>[]): Plot {
  const kinds = measured.flatMap(({ figure }) => figure.queries.map(({ name, reads }) => ({ name, reads })));
  const names = [...new Set(kinds.map(({ name, reads }) => `${name}, ${reads}`))];
  const lines = names.flatMap((name): Line[] => {
    const points = measured.flatMap(({ size, figure }) => {
      const found = figure.queries.find((one) => `${one.name}, ${one.reads}` === name);
      return found === undefined || found.p50Ms === null ? [] : [[size, found.p50Ms] as const];
    });
    return points.length === 0 ? [] : [{ name, points }];
  });
  const sizes = measured.map(({ size }) => size);
  const bounds = BOUNDS_MS.map(({ name, ms }): Line => ({
    name: `bound: ${name}`,
    isBound: true,
    points: [
      [Math.min(...sizes), ms],
      [Math.max(...sizes), ms],
    ],
  }));
  return {
    title: 'Usage queries by number of raw events in the month, p50',
    x: 'raw events',
    y: 'milliseconds',
    yScale: 'log',
    lines: [...lines, ...bounds],
  };
}
