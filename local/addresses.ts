// Which port each part listens on. A port named in the environment is taken as it is, and being taken is an
// error. Otherwise the ports of the last start on this data are used again, then the usual ones, then any
// free ones: two checkouts side by side never clash, and URLs stay the same from start to start.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { EngineError } from './engines/engine.ts';
import { freePort, isPortFree } from './engines/ports.ts';
import type { Layout } from './layout.ts';

const usual = {
  edge: 4100,
  api: 4101,
  stripe: 4102,
  webhook: 4103,
  ingestOps: 4110,
  aggregatorOps: 4111,
  ledgerOps: 4112,
  billingSyncOps: 4113,
  nats: 4120,
  postgres: 4121,
  clickhouse: 4122,
} as const;

export type PortName = keyof typeof usual;
export type Ports = Readonly<Record<PortName, number>>;

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
 * Chooses a port for every part and remembers the choice. With `fresh`, neither the remembered nor the usual
 * ports are considered: somebody else is taking those right now.
 */
export async function choosePorts(
  layout: Layout,
  env: Record<string, string | undefined>,
  fresh: boolean,
): Promise<Ports> {
  const remembered = existsSync(layout.portsFile)
    ? (JSON.parse(readFileSync(layout.portsFile, 'utf8')) as Partial<Ports>)
    : {};
  const chosen: Partial<Record<PortName, number>> = {};
  const used = new Set<number>();
  for (const name of Object.keys(usual) as PortName[]) {
    const variable = variables[name];
    const text = variable === undefined ? undefined : env[variable];
    let port: number | undefined;
    if (variable !== undefined && text !== undefined && text !== '') {
      port = await explicitPort(name, variable, text);
    } else {
      for (const candidate of fresh ? [] : [remembered[name], usual[name]]) {
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
