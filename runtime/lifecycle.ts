/**
 * One shape for the main of every stage.
 *
 *   starting ──start() ran──▶ running ──signal, end of stdin, fatal──▶ stopping ──▶ exit
 *
 * Starting: the configuration is read and checked as a whole (exit 78 with every mistake), the ops server
 * answers, then `start` connects things in order and registers with `onStop` how each one ends.
 *
 * Stopping: the `stopping` signal aborts, readiness is withdrawn, and what was registered stops in reverse
 * order, one after the other: what takes work in was started last and stops first, what it writes to stops
 * after it. All of it shares one deadline (TALLYLINE_DRAIN_SECONDS). Whatever is registered after stopping
 * began (start() was interrupted) is stopped too. The deadline, a failed stop, or a fatal error make the
 * exit code 1; a second signal exits at once. Correctness never depends on a clean stop: everything must
 * survive kill -9, and stopping well is only about not making others wait.
 *
 * With TALLYLINE_STOP_WITH_PARENT=1 the end of stdin means stop. A parent that holds our stdin open and is
 * killed without a chance to say so takes us with it, in order.
 */
import { systemClock, type Clock } from './clock.ts';
import {
  choice,
  ConfigError,
  describeConfig,
  integer,
  readConfig,
  text,
  type ConfigOf,
  type Fields,
} from './config.ts';
import { startOpsServer } from './http.ts';
import { createLog, type Log } from './log.ts';
import { createMetrics, type Metrics } from './metrics.ts';

export interface Stage {
  readonly name: string;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly clock: Clock;
  /** Aborted when stopping begins. */
  readonly stopping: AbortSignal;
  /** Registers how `what` stops. Run in reverse order of registration, under one drain deadline. */
  onStop(what: string, stop: () => Promise<void> | void): void;
  /** `reason` says why not, for /readyz. The first `true` prints the ready line. */
  setReady(ready: boolean, reason?: string): void;
  /** Adds facts (URLs, mostly) to the ready line. Call it before setReady(true). */
  announce(facts: Record<string, string>): void;
  /** Logs the error, stops in reverse and exits 1. */
  fatal(error: unknown): void;
}

export const baseFields = {
  logLevel: choice('TALLYLINE_LOG_LEVEL', {
    describe: 'least severe level to log',
    values: ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'],
    default: 'info',
  }),
  host: text('TALLYLINE_HOST', { describe: 'address to listen on', default: '127.0.0.1' }),
  opsPort: integer('TALLYLINE_OPS_PORT', {
    describe: 'port of /healthz, /readyz and /metrics; 0 takes any free one',
    default: 0,
    min: 0,
    max: 65_535,
  }),
  drainSeconds: integer('TALLYLINE_DRAIN_SECONDS', {
    describe: 'how long stopping may take',
    default: 10,
    min: 1,
    max: 300,
  }),
};

export type BaseConfig = ConfigOf<typeof baseFields>;

/** sysexits.h: something was found in an unconfigured or misconfigured state. */
const EXIT_CONFIG = 78;

export interface StageOptions<S extends Fields> {
  readonly name: string;
  readonly fields: S;
  start(stage: Stage, config: ConfigOf<S> & BaseConfig): Promise<void>;
}

/** Runs this process as the stage. Returns at once; the process ends by itself as told above. */
export function runStage<S extends Fields>(options: StageOptions<S>): void {
  const fields = { ...options.fields, ...baseFields };
  if (process.argv.includes('--help')) {
    process.stdout.write(`${options.name}: configured by environment variables\n${describeConfig(fields)}\n`);
    return;
  }
  let config: ConfigOf<S> & BaseConfig;
  try {
    config = readConfig(fields, process.env) as ConfigOf<S> & BaseConfig;
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    for (const mistake of error.mistakes) process.stderr.write(`${options.name}: ${mistake}\n`);
    process.exitCode = EXIT_CONFIG;
    return;
  }
  new Lifecycle(options.name, config).run((stage) => options.start(stage, config));
}

interface Stop {
  readonly what: string;
  readonly stop: () => Promise<void> | void;
}

class Lifecycle {
  private readonly config: BaseConfig;
  private readonly log: Log;
  private readonly stage: Stage;
  private readonly stops: Stop[] = [];
  private readonly abort = new AbortController();
  private readonly facts: Record<string, string> = {};
  private readiness = { ready: false, reason: 'starting' };
  private saidReady = false;
  private opsUrl = '';
  private exitCode = 0;
  private stoppingNow = '';

  constructor(name: string, config: BaseConfig) {
    this.config = config;
    this.log = createLog(name, config.logLevel);
    this.stage = {
      name,
      log: this.log,
      metrics: createMetrics(name),
      clock: systemClock,
      stopping: this.abort.signal,
      onStop: (what, stop) => void this.stops.push({ what, stop }),
      setReady: (ready, reason) => this.setReady(ready, reason),
      announce: (facts) => void Object.assign(this.facts, facts),
      fatal: (error) => this.fatal(error),
    };
  }

  run(start: (stage: Stage) => Promise<void>): void {
    process.on('SIGTERM', () => this.onSignal('SIGTERM'));
    process.on('SIGINT', () => this.onSignal('SIGINT'));
    process.on('uncaughtException', (error) => this.fatal(error));
    process.on('unhandledRejection', (error) => this.fatal(error));
    if (process.env['TALLYLINE_STOP_WITH_PARENT'] === '1') this.stopWithParent();
    this.start(start).catch((error: unknown) => {
      // Being interrupted makes connects fail; that is no error of its own.
      if (this.abort.signal.aborted) this.log.debug({ error }, 'start was interrupted');
      else this.fatal(error);
    });
  }

  private async start(start: (stage: Stage) => Promise<void>): Promise<void> {
    const { metrics } = this.stage;
    metrics
      .gauge('tallyline_drain_limit_seconds', 'how long stopping may take')
      .set(this.config.drainSeconds);
    const ops = await startOpsServer({
      host: this.config.host,
      port: this.config.opsPort,
      metrics,
      readiness: () => this.readiness,
    });
    this.opsUrl = ops.url;
    this.stage.onStop('ops server', () => ops.close());
    await start(this.stage);
  }

  private setReady(ready: boolean, reason?: string): void {
    if (this.abort.signal.aborted) return;
    this.readiness = { ready, reason: ready ? '' : (reason ?? 'not ready') };
    if (!ready) {
      this.log.warn({ reason: this.readiness.reason }, 'not ready');
      return;
    }
    if (this.saidReady) {
      this.log.info('ready again');
      return;
    }
    this.saidReady = true;
    // The parent waits for this line, so it is printed whatever the log level is.
    const say = this.log.child({}, { level: 'info' });
    say.info({ ready: true, ops: this.opsUrl, ...this.facts }, 'ready');
  }

  private fatal(error: unknown): void {
    this.exitCode = 1;
    this.log.fatal({ error }, 'fatal');
    this.beginStop('fatal error');
  }

  private onSignal(signal: string): void {
    if (this.abort.signal.aborted) {
      this.log.error({ signal, stoppingNow: this.stoppingNow }, 'second signal, exiting at once');
      process.exit(1);
    }
    this.beginStop(signal);
  }

  private stopWithParent(): void {
    const stop = () => this.beginStop('end of stdin');
    process.stdin.once('end', stop).once('close', stop).once('error', stop).resume();
  }

  private beginStop(why: string): void {
    if (this.abort.signal.aborted) return;
    this.readiness = { ready: false, reason: 'stopping' };
    this.log.info({ why }, 'stopping');
    this.abort.abort();
    setTimeout(() => {
      this.log.error({ stoppingNow: this.stoppingNow }, 'drain deadline passed, exiting');
      process.exit(1);
    }, this.config.drainSeconds * 1_000);
    void this.stopAll();
  }

  private async stopAll(): Promise<void> {
    for (let next = this.stops.pop(); next !== undefined; next = this.stops.pop()) {
      this.stoppingNow = next.what;
      try {
        await next.stop();
        this.log.debug({ what: next.what }, 'stopped');
      } catch (error) {
        this.exitCode = 1;
        this.log.error({ error, what: next.what }, 'failed to stop');
      }
    }
    this.log.info({ exitCode: this.exitCode }, 'stopped');
    process.exit(this.exitCode);
  }
}
