// Which port each part listens on. A port named in the environment is taken as it is, and being taken is an
// error. Otherwise the ports of the last start on this data are used again, then those from 4100 on, then the
// same places from 4200 on, and so forth: two checkouts side by side never clash, and URLs stay the same from
// start to start.
import { randomInt } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { EngineError } from './engines/engine.ts';
import { freePort, isPortFree } from './engines/ports.ts';
import type { Layout } from './layout.ts';

const places = {
  edge: 0,
  api: 1,
  stripe: 2,
  webhook: 3,
  ingestOps: 10,
  aggregatorOps: 11,
  ledgerOps: 12,
  billingSyncOps: 13,
  nats: 20,
  postgres: 21,
  clickhouse: 22,
} as const;

// All are below those that a system gives to outgoing connections (from 32768 on Linux), which would take one
// between a stop and the next start.
const blockFirst = 4_100;
const blockStep = 100;
const blocks = 50;

export type PortName = keyof typeof places;
export type Ports = Readonly<Record<PortName, number>>;

/** The ports of a stack whose first one is `first`. */
export function portsFrom(first: number): Ports {
  const entries = Object.entries(places).map(([name, place]) => [name, first + place]);
  return Object.fromEntries(entries) as Ports;
}

const variables: Partial<Record<PortName, string>> = {
  edge: 'TALLYLINE_EDGE_PORT',
  api: 'TALLYLINE_API_PORT',
  stripe: 'TALLYLINE_STRIPE_PORT',
  webhook: 'TALLYLINE_WEBHOOK_PORT',
};

async function explicitPort(name: PortName, variable: string, text: string): Promise<number> {
  const port = Number(text);
  if (!/^[0-9]{1,5}$/.test(text) || port < 1 || port > 65_535) {
    throw new EngineError(`${variable} must be a port from 1 to 65535, not ${JSON.stringify(text)}.`);
  }
  if (!(await isPortFree(port))) {
    throw new EngineError(
      `Port ${port} (${variable}, for ${name}) is taken on 127.0.0.1. Stop what listens there (ss -ltnp 'sport = :${port}'), choose another port, or unset ${variable} to let one be chosen.`,
    );
  }
  return port;
}

/**
 * Chooses a port for every part and remembers the choice. With `fresh`, the remembered ones are not considered and
 * the search begins anywhere: somebody else is taking the usual ones right now.
 */
export async function choosePorts(
  layout: Layout,
  env: Record<string, string | undefined>,
  fresh: boolean,
): Promise<Ports> {
  const remembered = existsSync(layout.portsFile)
    ? (JSON.parse(readFileSync(layout.portsFile, 'utf8')) as Partial<Ports>)
    : {};
  const firstBlock = fresh ? randomInt(blocks) : 0;
  const candidates = Array.from({ length: blocks }, (_, index) =>
    portsFrom(blockFirst + ((firstBlock + index) % blocks) * blockStep),
  );
  const chosen: Partial<Record<PortName, number>> = {};
  const used = new Set<number>();
  for (const name of Object.keys(places) as PortName[]) {
    const variable = variables[name];
    const text = variable === undefined ? undefined : env[variable];
    let port: number | undefined;
    if (variable !== undefined && text !== undefined && text !== '') {
      port = await explicitPort(name, variable, text);
    } else {
      for (const { [name]: candidate } of fresh ? candidates : [remembered, ...candidates]) {
        if (candidate !== undefined && !used.has(candidate) && (await isPortFree(candidate))) {
          port = candidate;
          break;
        }
      }
    }
    while (port === undefined || used.has(port)) port = await freePort();
    chosen[name] = port;
    used.add(port);
  }
  writeFileSync(layout.portsFile, `${JSON.stringify(chosen, null, 2)}\n`);
  return chosen as Ports;
}
