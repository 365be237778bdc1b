/** How an engine's process ended: exactly one of the two is set. */
export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** A running NATS, Postgres or ClickHouse on this machine. */
export interface Engine {
  readonly name: string;
  /** What a client connects with, credentials included. Never log it. */
  readonly url: string;
  readonly pid: number;
  readonly version: string;
  /** Resolves when the process has ended, for whatever reason; never rejects. */
  readonly exited: Promise<Exit>;
  /** Stops gracefully, and by SIGKILL when that takes too long. Idempotent. */
  stop(): Promise<void>;
  /** SIGKILL, at once: what a crash does. */
  kill(): void;
}

/** Receives every line an engine prints. */
export type EngineLog = (line: string) => void;

/** A start that failed, with a message that says what to do about it. */
export class EngineError extends Error {
  override readonly name = 'EngineError';
}
