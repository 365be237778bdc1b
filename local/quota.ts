// `npx tallyline quota`: the operator's command for what a tenant may send. Postgres is the master; the edges
// watch a bucket of NATS, which is told at once, or by the ledger within half a minute when it cannot be.
import { parseArgs } from 'node:util';
import type { Quota } from '../contract/quota.ts';
import { formatInstant } from '../contract/window.ts';
import { openQuotaMirror, quotaOf, setQuota, tellQuota, type StoredQuota } from '../ledger/quotas.ts';
import { createLog } from '../runtime/log.ts';
import { connectNats } from '../runtime/nats.ts';
import { connectPostgres, sqlState, type Postgres } from '../runtime/postgres.ts';
import { layoutOf } from './layout.ts';
import { readRunFile } from './run-file.ts';

const natsTimeoutMs = 5_000;
const statementTimeoutMs = 30_000;
const undefinedTable = '42P01';

export const quotaUsage = `usage: npx tallyline quota TENANT [--events N|none|default] [--bytes N|none|default]

Shows what a tenant may send to one edge a second, in events and in body bytes, or changes it. N is a whole
number, none stands for no limit, and default, for both, takes the tenant's own quota away, so that the limits in
the configuration of the edges hold. One option alone leaves the other as it is.
`;

/** A rate, null for no limit, or 'default'; undefined: not said. */
type Said = number | null | 'default' | undefined;

interface Asked {
  readonly tenant: string;
  readonly events: Said;
  readonly bytes: Said;
}

/** What the arguments ask for, or what is wrong with them. */
export function askedOf(args: readonly string[]): Asked | { readonly mistake: string } {
  let parsed;
  try {
    const options = { events: { type: 'string' }, bytes: { type: 'string' } } as const;
    parsed = parseArgs({ args: [...args], options, allowPositionals: true });
  } catch (error) {
    return { mistake: error instanceof Error ? error.message : String(error) };
  }
  const [tenant, ...more] = parsed.positionals;
  if (tenant === undefined || more.length > 0) return { mistake: 'name one tenant' };
  const [events, bytes] = [saidOf(parsed.values.events), saidOf(parsed.values.bytes)];
  if (events === 'mistake') return { mistake: '--events is a whole number above 0, none or default' };
  if (bytes === 'mistake') return { mistake: '--bytes is a whole number above 0, none or default' };
  if ((events === 'default') !== (bytes === 'default')) {
    return {
      mistake: 'default is said for both, --events and --bytes: a tenant has a quota of its own or not',
    };
  }
  return { tenant, events, bytes };
}

function saidOf(text: string | undefined): Said | 'mistake' {
  if (text === undefined || text === 'default') return text;
  if (text === 'none') return null;
  const rate = Number(text);
  return /^[1-9][0-9]*$/.test(text) && Number.isSafeInteger(rate) ? rate : 'mistake';
}

/** The quota to set, null to take it away; a mistake where one half is not known. */
export function quotaAfter(asked: Asked, present: Quota | null): Quota | null | { readonly mistake: string } {
  const { events, bytes } = asked;
  if (events === 'default' || bytes === 'default') return null;
  if (present === null && (events === undefined || bytes === undefined)) {
    return { mistake: `${asked.tenant} has no quota of its own yet: say both, --events and --bytes` };
  }
  return {
    eventsPerSecond: events === undefined ? (present?.eventsPerSecond ?? null) : events,
    bytesPerSecond: bytes === undefined ? (present?.bytesPerSecond ?? null) : bytes,
  };
}

/** Returns the exit code: 0 when it was shown or changed, 2 when it could not be. */
export async function quotaCommand(args: readonly string[]): Promise<number> {
  const asked = askedOf(args);
  if ('mistake' in asked) return refuse(`${asked.mistake}\n\n${quotaUsage}`);
  const run = readRunFile(layoutOf(process.env));
  const database = process.env['DATABASE_URL'] || run?.engines.database;
  const nats = process.env['NATS_URL'] || run?.engines.nats;
  if (database === undefined || nats === undefined) {
    return refuse('No stack runs here: start it with npm start, or set DATABASE_URL and NATS_URL.\n');
  }
  const log = createLog('quota', 'silent');
  const pg = connectPostgres({ url: database, name: 'tallyline quota', poolMax: 1, log, statementTimeoutMs });
  try {
    return await showOrChange(pg, nats, asked);
  } catch (error) {
    if (sqlState(error) !== undefinedTable) throw error;
    return refuse('The database has no quotas yet: start the ledger of this version once.\n');
  } finally {
    await pg.close();
  }
}

async function showOrChange(pg: Postgres, nats: string, asked: Asked): Promise<number> {
  const { tenant } = asked;
  if (asked.events === undefined && asked.bytes === undefined) {
    const present = await quotaOf(pg, tenant);
    if (present === undefined) return refuse(`There is no tenant ${tenant}.\n`);
    say(tenant, present);
    return 0;
  }
  const nowMs = Date.now();
  const outcome = await pg.transaction(async (tx) => {
    const present = await quotaOf(tx, tenant);
    if (present === undefined) return { mistake: `There is no tenant ${tenant}.` };
    const quota = quotaAfter(asked, present);
    if (quota === null || !('mistake' in quota)) await setQuota(tx, { tenant, quota, nowMs });
    return quota;
  });
  if (outcome !== null && 'mistake' in outcome) return refuse(`${outcome.mistake}\n`);
  say(tenant, outcome === null ? null : { ...outcome, updatedAtMs: nowMs });
  try {
    await tellEdges(pg, nats, tenant);
  } catch (error) {
    process.stderr.write(
      `It is stored, but the edges could not be told (${error instanceof Error ? error.message : String(error)}): the ledger tells them within half a minute of reaching NATS.\n`,
    );
  }
  return 0;
}

async function tellEdges(pg: Postgres, url: string, tenant: string): Promise<void> {
  const log = createLog('quota', 'silent');
  const link = await connectNats({ url, name: 'tallyline quota', log, connectTimeoutMs: natsTimeoutMs });
  try {
    await tellQuota(await openQuotaMirror(link), pg, tenant);
  } finally {
    await link.close();
  }
}

function say(tenant: string, quota: StoredQuota | null): void {
  const rate = (unit: string, value: number | null) =>
    value === null ? `no limit of ${unit}` : `${value} ${unit} a second`;
  process.stdout.write(
    quota === null
      ? `${tenant}: no quota of its own; at each edge TALLYLINE_EDGE_TENANT_EVENTS_PER_SECOND and TALLYLINE_EDGE_TENANT_BYTES_PER_SECOND hold\n`
      : `${tenant}: ${rate('events', quota.eventsPerSecond)}, ${rate('bytes', quota.bytesPerSecond)}, at each edge, since ${formatInstant(quota.updatedAtMs)}\n`,
  );
}

function refuse(text: string): number {
  process.stderr.write(text);
  return 2;
}
