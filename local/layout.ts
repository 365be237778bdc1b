// Where a local stack keeps its things, all of it below one folder: `.tallyline` beside package.json, or
// TALLYLINE_DATA. Removing the folder removes every trace of the stack.
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The project's folder, from the sources as well as from dist. */
export function projectRoot(): string {
  const above = fileURLToPath(new URL('..', import.meta.url));
  return existsSync(join(above, 'package.json')) ? above : join(above, '..');
}

export interface Layout {
  readonly root: string;
  readonly runFile: string;
  readonly lockFile: string;
  readonly secretsFile: string;
  readonly portsFile: string;
  readonly logs: string;
  readonly nats: string;
  readonly postgres: string;
  readonly clickhouse: string;
  readonly stripe: string;
  /** Kept by `npm run reset`: downloads, no data. */
  readonly cache: string;
}

export function layoutOf(env: Record<string, string | undefined>): Layout {
  const project = projectRoot();
  const root = resolve(project, env['TALLYLINE_DATA'] ?? '.tallyline');
  return {
    root,
    runFile: join(root, 'run.json'),
    lockFile: join(root, 'lock'),
    secretsFile: join(root, 'secrets.json'),
    portsFile: join(root, 'ports.json'),
    logs: join(root, 'logs'),
    nats: join(root, 'nats'),
    postgres: join(root, 'postgres'),
    clickhouse: join(root, 'clickhouse'),
    stripe: join(root, 'stripe'),
    cache: join(project, 'node_modules', '.cache', 'tallyline'),
  };
}
