// `npx tallyline refused`: what was refused, as a list, as a file to correct, and back through the edge.
//
// A file has one JSON object a line (NDJSON), as GET /v1/refused gives them: the reason beside `event`. Only `event`
// is sent; a line that is an event itself is taken too. Sending again is safe: an event that got through before is
// a duplicate. Nothing is sent that was read wrong: a line that is no JSON, or has a number that loses digits on its
// way through JavaScript, is told by its number and left out. What `npx tallyline replay` writes of rejected events
// is such a file too.
import { createReadStream, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { ApiClient } from './api-call.ts';
import { NotTaken, sendBatch, type RejectedOfBatch } from './send-batch.ts';
import { readTarget } from './target.ts';

export const refusedUsage = `usage: npx tallyline refused list [FILTERS]
       npx tallyline refused export FILE [FILTERS]
       npx tallyline refused resend FILE

Lists the events that do not count, by reason and the newest of them; writes them to a file, a JSON object a line;
sends the corrected file through the edge again, and tells what it rejects by line. FILTERS are --verdict (conflict,
late, rejected or unmatched), --code, --type, --subject, --from and --to. TALLYLINE_API, TALLYLINE_EDGE and
TALLYLINE_KEY name another stack than the one that runs here.
`;

const pageItems = 500;
const shownItems = 20;
const batchEvents = 500;
const batchBytes = 1024 ** 2;
const patienceMs = 120_000;
/** Digits that a JavaScript number always keeps. */
const digitsExact = 15;
const reportEveryEvents = 10_000;

interface Target {
  readonly api: string;
  readonly edge: string;
  readonly key: string;
}

interface RefusedItem {
  readonly verdict: string;
  readonly code: string;
  readonly message: string;
  readonly event: {
    readonly id: string;
    readonly type: string;
    readonly subject: string;
    readonly time: string;
  };
}

interface TypeItem {
  readonly verdict: string;
  readonly code: string;
  readonly type: string;
  readonly events: string;
  readonly firstTime: string;
  readonly lastTime: string;
}

/** Returns the exit code: 1 when a line was rejected or could not be read, 2 when it could not be done. */
export async function refusedCommand(args: readonly string[]): Promise<number> {
  let parsed;
  try {
    const filter = { type: 'string' } as const;
    const options = {
      verdict: filter,
      code: filter,
      type: filter,
      subject: filter,
      from: filter,
      to: filter,
    };
    parsed = parseArgs({ args: [...args], options, allowPositionals: true });
  } catch (error) {
    return refuse(`${error instanceof Error ? error.message : String(error)}\n\n${refusedUsage}`);
  }
  const [command, file, ...more] = parsed.positionals;
  const filters = new URLSearchParams(parsed.values);
  const target = readTarget('key');
  if (!isComplete(target)) {
    return refuse(
      'No stack runs here: start it with npm start, or set TALLYLINE_API, TALLYLINE_EDGE and TALLYLINE_KEY.\n',
    );
  }
  if (command === 'list' && file === undefined) return list(target, filters);
  if (more.length > 0 || file === undefined) return refuse(refusedUsage);
  if (command === 'export') return exportTo(target, file, filters);
  if (command === 'resend' && filters.size === 0) return resend(target, file);
  return refuse(refusedUsage);
}

function isComplete(target: { readonly [name in keyof Target]: string | undefined }): target is Target {
  return target.api !== undefined && target.edge !== undefined && target.key !== undefined;
}

async function list({ api, key }: Target, filters: URLSearchParams): Promise<number> {
  const client = new ApiClient(api, key);
  const { items: types } = (await client.get<{ items: TypeItem[] }>(`/v1/refused/types?${filters}`)).body;
  if (types.length === 0) {
    process.stdout.write('No event was refused.\n');
    return 0;
  }
  for (const { verdict, code, type, events, firstTime, lastTime } of types) {
    process.stdout.write(
      `${events.padStart(10)}  ${verdict}  ${code}  ${shown(type)}  ${firstTime} to ${lastTime}\n`,
    );
  }
  const query = new URLSearchParams([...filters, ['limit', String(shownItems)]]);
  const { items } = (await client.get<{ items: RefusedItem[] }>(`/v1/refused?${query}`)).body;
  process.stdout.write('\nthe newest:\n');
  for (const { verdict, code, message, event } of items) {
    const reason = code === verdict ? verdict : `${verdict} ${code}`;
    process.stdout.write(
      `  ${event.time}  ${reason}  ${shown(event.type)} of ${shown(event.subject)}, id ${shown(event.id)}: ${message}\n`,
    );
  }
  return 0;
}

/** Text from outside must not move the cursor of a terminal. */
const shown = (text: string): string => JSON.stringify(text);

async function exportTo({ api, key }: Target, file: string, filters: URLSearchParams): Promise<number> {
  const client = new ApiClient(api, key);
  let handle;
  try {
    handle = await open(file, 'wx');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    return refuse(`${file} is there already: choose another name, or remove it.\n`);
  }
  let events = 0;
  try {
    let cursor: string | null = null;
    do {
      const query = new URLSearchParams([...filters, ['limit', String(pageItems)]]);
      if (cursor !== null) query.set('cursor', cursor);
      const page: { items: RefusedItem[]; nextCursor: string | null } = (
        await client.get<{ items: RefusedItem[]; nextCursor: string | null }>(`/v1/refused?${query}`)
      ).body;
      await handle.write(page.items.map((item) => `${JSON.stringify(item)}\n`).join(''));
      events += page.items.length;
      cursor = page.nextCursor;
      if (cursor !== null && events % reportEveryEvents === 0) process.stderr.write(`  ${events} events\n`);
    } while (cursor !== null);
    await handle.sync();
  } finally {
    await handle.close();
  }
  process.stdout.write(`wrote ${events} events to ${file}\n`);
  return 0;
}

/** The event of a line, or what is wrong with it. */
export function eventOfLine(line: string): { readonly event: string } | { readonly mistake: string } {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return { mistake: 'is not JSON' };
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return { mistake: 'is not an object' };
  const inexact = line
    .replace(/"(?:[^"\\]|\\.)*"/g, '""')
    .match(/-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g)
    ?.find((text) => text.replace(/[eE].*$/, '').replace(/^[-0.]+|\./g, '').length > digitsExact);
  if (inexact !== undefined) return { mistake: `has the number ${inexact}: write it as a text, in quotes` };
  const { event, text } = value as { event?: unknown; text?: unknown };
  // Of a replay: what stood there was no JSON.
  if (event === undefined && text !== undefined)
    return { mistake: 'has a text that is no event: write it as an object under event' };
  return { event: JSON.stringify(event === undefined ? value : event) };
}

interface Line {
  readonly number: number;
  readonly event: string;
}

async function resend(target: Target, file: string): Promise<number> {
  const size = statSync(file).size;
  const sent = { accepted: 0, rejected: 0, unread: 0 };
  let reported = 0;
  let batch: Line[] = [];
  let bytes = 0;
  let readBytes = 0;
  const flush = async (): Promise<void> => {
    if (batch.length === 0) return;
    const rejected = await post(target, batch);
    sent.accepted += batch.length - rejected.length;
    sent.rejected += rejected.length;
    for (const { index, code, message } of rejected) {
      process.stdout.write(`line ${batch[index]!.number}: ${code}: ${message}\n`);
    }
    [batch, bytes] = [[], 0];
    if (sent.accepted - reported >= reportEveryEvents) {
      reported = sent.accepted;
      process.stderr.write(`  ${sent.accepted} events accepted, ${Math.floor((readBytes * 100) / size)} %\n`);
    }
  };
  let number = 0;
  for await (const line of createInterface({ input: createReadStream(file), crlfDelay: Infinity })) {
    number += 1;
    readBytes += Buffer.byteLength(line) + 1;
    if (line.trim() === '') continue;
    const read = eventOfLine(line);
    if ('mistake' in read) {
      sent.unread += 1;
      process.stdout.write(`line ${number} ${read.mistake}\n`);
      continue;
    }
    if (batch.length === batchEvents || bytes + read.event.length > batchBytes) await flush();
    batch.push({ number, event: read.event });
    bytes += read.event.length;
  }
  await flush();
  const unread = sent.unread === 0 ? '' : `, ${sent.unread} lines not read`;
  process.stdout.write(`${sent.accepted} events accepted, ${sent.rejected} rejected${unread}\n`);
  return sent.rejected + sent.unread === 0 ? 0 : 1;
}

/** What the edge rejects of a batch. */
async function post(target: Target, batch: readonly Line[]): Promise<readonly RejectedOfBatch[]> {
  try {
    const events = batch.map((line) => Buffer.from(line.event));
    return await sendBatch(target, events, { patienceMs });
  } catch (error) {
    if (!(error instanceof NotTaken)) throw error;
    throw new Error(
      `the edge did not take lines ${batch[0]!.number} to ${batch.at(-1)!.number}: ${error.message}. What is before them is sent; sending the whole file again is safe`,
      { cause: error },
    );
  }
}

function refuse(text: string): number {
  process.stderr.write(text);
  return 2;
}
