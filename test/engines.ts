// Real engines for one test file: in a fresh folder, on free ports, gone at the end.
//
//   const engines = await startEngines({ nats: true, clickhouse: true });
//   afterAll(() => engines.stop());
//
// `kill()` is a crash (SIGKILL); `restart()` starts the engine again on the same port and data, so the URLs
// stay valid.
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startClickHouse } from '../local/engines/clickhouse.ts';
import type { Engine } from '../local/engines/engine.ts';
import { startNats } from '../local/engines/nats.ts';
import { freePorts } from '../local/engines/ports.ts';
import { startPostgres } from '../local/engines/postgres.ts';

/** The project's folder, from the sources as well as from dist. */
function projectRoot(): string {
  const above = fileURLToPath(new URL('..', import.meta.url));
  return existsSync(join(above, 'package.json')) ? above : join(above, '..');
}

const root = projectRoot();
/** Shared by all tests and kept: the downloaded NATS server. */
export const natsCacheDir = join(root, 'node_modules', '.cache', 'tallyline');

export interface Restartable {
  readonly port: number;
  /** The process that runs now. */
  engine(): Engine;
  /** SIGKILL; resolves when the process is gone. */
  kill(): Promise<void>;
  /** A graceful stop. */
  stop(): Promise<void>;
  /** Starts again on the same port and data, after `kill` or `stop`, or stops first. */
  restart(): Promise<void>;
  /** What the engine printed, for the message of a failing test. */
  output(): string;
}

export interface EngineChoice {
  readonly nats?: boolean;
  readonly postgres?: boolean;
  readonly clickhouse?: boolean;
}

export interface Engines {
  /** '' for an engine that was not asked for, and so are the other URLs. */
  readonly natsUrl: string;
  readonly databaseUrl: string;
  readonly clickhouseUrl: string;
  readonly clickhouseReaderUrl: string;
  /** Using the handle of an engine that was not asked for throws. */
  readonly nats: Restartable;
  readonly postgres: Restartable;
  readonly clickhouse: Restartable;
  /** The folder of this test; anything may be put in it. */
  readonly dir: string;
  /** Stops everything and removes the folder. Idempotent. */
  stop(): Promise<void>;
}

const outputLinesMax = 200;

async function restartable<E extends Engine>(
  port: number,
  start: (log: (line: string) => void) => Promise<E>,
): Promise<{ handle: Restartable; first: E }> {
  const lines: string[] = [];
  const log = (line: string): void => {
    lines.push(line);
    if (lines.length > outputLinesMax) lines.shift();
  };
  const first = await start(log);
  let current: Engine = first;
  const handle: Restartable = {
    port,
    engine: () => current,
    kill: async () => {
      current.kill();
      await current.exited;
    },
    stop: () => current.stop(),
    restart: async () => {
      await current.stop();
      current = await start(log);
    },
    output: () => lines.join('\n'),
  };
  return { handle, first };
}

function notAskedFor(name: keyof EngineChoice): Restartable {
  const complain = (): never => {
    throw new Error(`this test did not ask for ${name}: startEngines({ ${name}: true })`);
  };
  return { port: 0, engine: complain, kill: complain, stop: complain, restart: complain, output: complain };
}

/** Starts the engines asked for, in parallel. When one fails, the others are stopped and the error is thrown. */
export async function startEngines<Choice extends EngineChoice>(choice: Choice): Promise<Engines> {
  const name = `${process.pid}-${randomBytes(4).toString('hex')}`;
  const dir = join(root, '.tallyline', 'test', name);
  mkdirSync(dir, { recursive: true });
  const [natsPort = 0, postgresPort = 0, clickhousePort = 0] = await freePorts(3);

  const natsAsked =
    choice.nats === true
      ? restartable(natsPort, (log) =>
          startNats({ dataDir: join(dir, 'nats'), port: natsPort, cacheDir: natsCacheDir, log }),
        )
      : undefined;
  const postgresAsked =
    choice.postgres === true
      ? restartable(postgresPort, (log) =>
          startPostgres({ dataDir: join(dir, 'postgres'), port: postgresPort, log }),
        )
      : undefined;
  const clickhouseAsked =
    choice.clickhouse === true
      ? restartable(clickhousePort, (log) =>
          startClickHouse({ dataDir: join(dir, 'clickhouse'), port: clickhousePort, log }),
        )
      : undefined;

  const started: Restartable[] = [];
  let stopped = false;
  const stop = async (): Promise<void> => {
    if (stopped) return;
    stopped = true;
    await Promise.all(started.map((handle) => handle.stop()));
    rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
  };

  const outcomes = await Promise.allSettled([natsAsked, postgresAsked, clickhouseAsked]);
  for (const outcome of outcomes) {
    if (outcome.status === 'fulfilled' && outcome.value !== undefined) started.push(outcome.value.handle);
  }
  const failure = outcomes.find((outcome) => outcome.status === 'rejected');
  if (failure !== undefined) {
    await stop();
    throw failure.reason;
  }

  const [nats, postgres, clickhouse] = [await natsAsked, await postgresAsked, await clickhouseAsked];
  return {
    natsUrl: nats?.first.url ?? '',
    databaseUrl: postgres?.first.url ?? '',
    clickhouseUrl: clickhouse?.first.url ?? '',
    clickhouseReaderUrl: clickhouse?.first.readerUrl ?? '',
    nats: nats?.handle ?? notAskedFor('nats'),
    postgres: postgres?.handle ?? notAskedFor('postgres'),
    clickhouse: clickhouse?.handle ?? notAskedFor('clickhouse'),
    dir,
    stop,
  };
}
