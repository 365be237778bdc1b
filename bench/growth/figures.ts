/**
 * What `npm run bench -- growth` has measured: figures by part and size, kept as JSON beside the document that is drawn
 * from them. Each figure says when, of which sources and on which machine it was taken, so that a part, or one size of
 * it, can be measured again while the others stay. A figure of a size stands in the place of the one before.
 */
import type { Origin } from '../canonical/results.ts';
import type { ByPart } from '../canonical/usage.ts';

export const GROWTH_PARTS = ['subjects', 'keys', 'shards', 'queries'] as const;
export type GrowthPart = (typeof GROWTH_PARTS)[number];

/** A canonical run without the ledger: its sustained phase. */
export interface CanonicalFigure {
  readonly subjects: number;
  readonly shards: number;
  readonly seconds: number;
  readonly events: number;
  readonly eventsPerSecond: number;
  /** The load's own is not in `total`. */
  readonly cpuMicrosPerEvent: ByPart & { readonly total: number };
  readonly peakRssBytes: ByPart;
  /** In the end, of all hours and shards, warm-up included. */
  readonly rollupRows: number;
  /** That a flush of the largest size writes. */
  readonly rollupRowsPerEvent: number;
  /** On disk, an event: in the logs, and in ClickHouse with all tables. */
  readonly logBytesPerEvent: number;
  readonly clickhouseBytesPerEvent: number;
  readonly received: number;
}

export interface KeysFigure {
  readonly keys: number;
  /** The bound within which all are kept exactly, and the one of a tenth of them; the rest is in filters. */
  readonly exact: ExactKeys;
  readonly filtered: FilteredKeys;
}

export interface ExactKeys {
  /** Deciding an event, one in twenty a repetition, CPU; over all, and over the last fifth. */
  readonly nanosPerEvent: number;
  readonly nanosPerEventLast: number;
  readonly bytesPerKey: number;
  /** Of the process, everything included. */
  readonly peakRssBytes: number;
}

export interface FilteredKeys {
  readonly hotKeys: number;
  readonly hotBytesPerKey: number;
  readonly coldBytesPerKey: number;
  /** Entering a key and moving an older one on. */
  readonly putNs: number;
  /** Deciding that an identity is new. */
  readonly missNs: number;
  /** New identities that ClickHouse is asked for in vain. */
  readonly falseShare: number;
  readonly peakRssBytes: number;
}

export interface QueriesFigure {
  readonly events: number;
  readonly subjects: number;
  readonly rollupRows: number;
  /** Parts on disk when the queries ran. */
  readonly parts: { readonly events: number; readonly rollups: number };
  readonly diskBytes: { readonly events: number; readonly rollups: number };
  readonly loadSeconds: number;
  readonly queries: readonly QueryFigure[];
}

export interface QueryFigure {
  readonly name: string;
  /** What is read: rollup rows or raw events. */
  readonly reads: 'rollup' | 'raw';
  readonly runs: number;
  readonly answerRows: number;
  /** Null: not answered within `refused`, which says why. */
  readonly p50Ms: number | null;
  readonly p99Ms: number | null;
  /** Means over the runs. */
  readonly rowsRead: number;
  readonly cpuMs: number;
  readonly refused: string;
}

export interface FigureOf {
  readonly subjects: CanonicalFigure;
  readonly keys: KeysFigure;
  readonly shards: CanonicalFigure;
  readonly queries: QueriesFigure;
}

/** Where figures come from. */
export interface FigureOrigin extends Origin {
  readonly seed: number;
  /** Settings of Tallyline's that were not the defaults. */
  readonly settings: Readonly<Record<string, string>>;
}

export interface Measured<Figure> {
  readonly size: number;
  readonly origin: FigureOrigin;
  readonly figure: Figure;
}

export type Growth = { readonly [Part in GrowthPart]: readonly Measured<FigureOf[Part]>[] };

export const NO_GROWTH: Growth = { subjects: [], keys: [], shards: [], queries: [] };

/** With a figure in the place of the one of its size. */
export function withFigure<Part extends GrowthPart>(
  growth: Growth,
  part: Part,
  measured: Measured<FigureOf[Part]>,
): Growth {
  const others: readonly Measured<FigureOf[Part]>[] = growth[part];
  const kept = others.filter(({ size }) => size !== measured.size);
  return { ...growth, [part]: [...kept, measured].sort((a, b) => a.size - b.size) };
}

/** Of a file that `JSON.stringify` of a growth made. Throws when it is none: it would be lost by writing over it. */
export function readGrowth(text: string): Growth {
  const read = JSON.parse(text) as Partial<Record<GrowthPart, unknown>> | null;
  if (typeof read !== 'object' || read === null || GROWTH_PARTS.some((part) => !Array.isArray(read[part])))
    throw new Error('the file of results holds no figures of growth: move it away to begin anew');
  return read as Growth;
}
