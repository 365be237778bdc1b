// `npx tallyline backfill`: proposes a backfill of a meter, shows what it would change, commits and reverts it. What
// shards still have to do is waited for, with a line that says how far they are.
import { parseArgs } from 'node:util';
import { sleep } from '../runtime/retry.ts';
import { ApiClient } from './api-call.ts';
import { readTarget } from './target.ts';

export const backfillUsage = `usage: npx tallyline backfill propose METER --from TIME --to TIME [--version N]
       npx tallyline backfill show METER [ID]
       npx tallyline backfill commit|revert|discard METER ID

Makes a meter count all events of some whole hours by one of its versions (the newest when none is named), also those
that came before it was defined. A proposal changes nothing: it shows what would change, by day, subject and customer.
TALLYLINE_API and TALLYLINE_KEY name another stack than the one that runs here; the key needs the scope admin.
`;

const lookEveryMs = 500;
const waitMaxMs = 600_000;
const shownItems = 20;

interface Backfill {
  readonly id: string;
  readonly version: number;
  readonly from: string;
  readonly to: string;
  readonly state: string;
  readonly shards: { readonly done: number; readonly all: number };
}

interface Change {
  readonly now: string;
  readonly proposed: string;
  readonly change: string;
}

interface Difference {
  readonly whole: Change & {
    readonly eventsNow: string;
    readonly eventsProposed: string;
    readonly uncountable: string;
  };
  readonly days: readonly (Change & { readonly day: string })[];
  readonly subjects: readonly (Change & { readonly subject: string })[];
  readonly nextCursor: string | null;
  readonly money: {
    readonly reason: string | null;
    readonly totals: readonly (Change & { readonly currency: string })[];
    readonly lines: readonly (Change & {
      readonly customer: string;
      readonly price: string;
      readonly currency: string;
      readonly periodStart: string;
      readonly invoiced: boolean;
    })[];
    readonly untold: Readonly<Record<string, number>>;
  } | null;
}

/** Returns the exit code: 2 when it could not be done. */
export async function backfillCommand(args: readonly string[]): Promise<number> {
  let parsed;
  try {
    const text = { type: 'string' } as const;
    const options = { from: text, to: text, version: text };
    parsed = parseArgs({ args: [...args], options, allowPositionals: true });
  } catch (error) {
    return refuse(`${error instanceof Error ? error.message : String(error)}\n\n${backfillUsage}`);
  }
  const { api, key } = readTarget('adminKey');
  if (api === undefined || key === undefined)
    return refuse('No stack runs here: start it with npm start, or set TALLYLINE_API and TALLYLINE_KEY.\n');
  const client = new ApiClient(api, key);
  const [command, meter = '', id, ...more] = parsed.positionals;
  const { from, to, version } = parsed.values;
  const path = `/v1/meters/${encodeURIComponent(meter)}/backfills`;
  const isPlain = from === undefined && to === undefined && version === undefined;
  if (meter === '' || more.length > 0) return refuse(backfillUsage);
  if (command === 'propose' && id === undefined && from !== undefined && to !== undefined) {
    if (version !== undefined && !/^[1-9][0-9]*$/.test(version))
      return refuse('--version is a whole number from 1 on\n');
    const body = { from, to, ...(version === undefined ? {} : { version: Number(version) }) };
    const { body: made } = await client.post<Backfill>(path, body);
    return (await waited(client, path, made)) ? show(client, path, made.id) : 2;
  }
  if (command === 'show' && isPlain) return id === undefined ? list(client, path) : show(client, path, id);
  if (
    (command === 'commit' || command === 'revert' || command === 'discard') &&
    id !== undefined &&
    isPlain
  ) {
    const { body: taken } = await client.post<Backfill>(
      `${path}/${encodeURIComponent(id)}/${command}`,
      undefined,
    );
    return (await waited(client, path, taken)) ? 0 : 2;
  }
  return refuse(backfillUsage);
}

/** Waits until all shards have it. */
async function waited(client: ApiClient, path: string, begun: Backfill): Promise<boolean> {
  const underWay = ['proposed', 'committing', 'reverting'];
  let last = begun;
  let told = '';
  for (let waitedMs = 0; underWay.includes(last.state); waitedMs += lookEveryMs) {
    const line = `  ${last.state}: ${last.shards.done} of ${last.shards.all} shards\n`;
    if (line !== told) process.stderr.write(line);
    told = line;
    if (waitedMs >= waitMaxMs) {
      process.stderr.write(
        `${last.id} is still ${last.state}: look again with show, and at the aggregator\n`,
      );
      return false;
    }
    await sleep(lookEveryMs);
    const { body } = await client.get<{ items: Backfill[] }>(path);
    last = body.items.find(({ id }) => id === begun.id) ?? last;
  }
  process.stdout.write(`${last.id}  ${last.state}  ${last.from} to ${last.to}  version ${last.version}\n`);
  return true;
}

async function list(client: ApiClient, path: string): Promise<number> {
  const { items } = (await client.get<{ items: Backfill[] }>(path)).body;
  if (items.length === 0) process.stdout.write('The meter has no backfill.\n');
  for (const { id, state, from, to, version } of items)
    process.stdout.write(`${id}  ${state}  ${from} to ${to}  version ${version}\n`);
  return 0;
}

async function show(client: ApiClient, path: string, id: string): Promise<number> {
  const { body } = await client.get<Backfill & { difference: Difference | null }>(
    `${path}/${encodeURIComponent(id)}?limit=${shownItems}`,
  );
  const { difference } = body;
  if (difference === null) {
    process.stdout.write(
      `${body.id}  ${body.state}  ${body.from} to ${body.to}  version ${body.version}: nothing is proposed\n`,
    );
    return 0;
  }
  const { whole, days, subjects, nextCursor, money } = difference;
  const lines = [
    `all      ${changed(whole)}  (${whole.eventsNow} -> ${whole.eventsProposed} events)`,
    ...(whole.uncountable === '0'
      ? []
      : [`         ${whole.uncountable} events lack a value and add nothing`]),
    ...days.map((one) => `day      ${one.day.slice(0, 10)}  ${changed(one)}`),
    // Text from outside must not move the cursor of a terminal.
    ...subjects.map((one) => `subject  ${JSON.stringify(one.subject)}  ${changed(one)}`),
    ...(nextCursor === null ? [] : ['         and more subjects: GET the backfill with a cursor']),
    ...(money?.reason ? [`money    ${money.reason}`] : []),
    ...(money?.lines ?? [])
      .slice(0, shownItems)
      .map(
        (one) =>
          `money    ${JSON.stringify(one.customer)}  ${one.price}  from ${one.periodStart.slice(0, 10)}  ${changed(one)} ${one.currency}${one.invoiced ? '  (invoiced: an adjustment)' : ''}`,
      ),
    ...(money?.totals ?? []).map((one) => `money    all  ${changed(one)} ${one.currency}`),
    ...Object.entries(money?.untold ?? {}).flatMap(([why, count]) =>
      count === 0 ? [] : [`money    not told of ${count} subjects: ${why}`],
    ),
  ];
  process.stdout.write(`${lines.join('\n')}\nTo commit: npx tallyline backfill commit METER ${body.id}\n`);
  return 0;
}

const changed = ({ now, proposed, change }: Change): string =>
  `${now} -> ${proposed}  ${change.startsWith('-') ? change : `+${change}`}`;

function refuse(text: string): number {
  process.stderr.write(text);
  return 2;
}
