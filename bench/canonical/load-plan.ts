// What the load process is told, and what it tells. Lines of JSON on its standard output: {"ready":true} when its
// connections stand (it begins at the first line on its standard input), LoadProgress now and then, LoadResult at the
// end. Only the result has `requests`.

export interface LoadPlan {
  readonly port: number;
  readonly key: string;
  readonly seed: number;
  readonly subjects: number;
  readonly phase: number;
  readonly eventsPerRequest: number;
  readonly connections: number;
  /**
   * closed   each connection sends its next request when the answer has come
   * open     requests are due on a schedule, whatever the server does; a time is counted from when a request was due
   */
  readonly schedule:
    { readonly kind: 'closed' } | { readonly kind: 'open'; readonly eventsPerSecond: number };
  readonly seconds: number;
  /** Ends it before its time; 0 for no such bound. */
  readonly eventsMax: number;
}

export interface LoadProgress {
  readonly answered: number;
}

export interface LoadResult {
  /** All of them were answered with 202. */
  readonly requests: number;
  readonly events: number;
  /** By the clock of all processes (epoch ms): the beginning of the schedule, the first answer, the last. */
  readonly beginMs: number;
  readonly firstAnswerMs: number;
  readonly lastAnswerMs: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** How late the load itself was to send what was due and had a free connection; 0 of a closed load. */
  readonly ownDelayP50Ms: number;
  readonly ownDelayP99Ms: number;
  /** The most requests that were due and had no free connection. */
  readonly queuedMax: number;
  readonly requestBytes: number;
  readonly cpuMs: number;
}
