// `npx tallyline replay FILE...`: sends historic events through the edge, as products send theirs, so that they are
// checked, logged, deduplicated and counted in the same way.
//
// The accepted window of the edge reaches ten years back (TALLYLINE_EDGE_EVENT_AGE_DAYS_MAX), so history needs no
// door of its own: an exception for some key or header would make the answer to an event depend on who sends it.
import { basename, resolve } from 'node:path';
import { existsSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { sleep } from '../runtime/retry.ts';
import { ApiClient } from './api-call.ts';
import { grouped } from './demo/replay.ts';
import { conservationDelta, type Conservation } from './demo/report.ts';
import { replayFile, stateFileOf, type FileResult, type ReplayProgress } from './replay/file-replay.ts';
import type { Mapping } from './replay/rows.ts';
import { PLACES } from './replay/source.ts';
import { readTarget } from './target.ts';
import type { Edge } from './send-batch.ts';

export const replayUsage = `usage: npx tallyline replay FILE... [--resume] [--id-from-line [--name NAME]]
       npx tallyline replay FILE.csv... --type TYPE --subject-column C --time-column C (--id-column C | --id-from-line)
                                        [--source SOURCE]

Sends the events of files through the edge: NDJSON (one event a line, ours or CloudEvents), a JSON array, or CSV
whose other columns become data; each also as gzip. Rejected events go to FILE.rejected.ndjson with their place and
reason; FILE.replay.json says how far it is, and --resume goes on there. Doing it again is safe as long as events
have ids: --id-from-line makes one from the name of the file, the line's number and the line, where there is none.

  --in-flight N      requests on their way at a time (1 to 64; 4)
  --patience SECONDS how long an edge that is full or away is waited for (600)
  --no-wait          does not wait until what was sent is counted
TALLYLINE_EDGE, TALLYLINE_API and TALLYLINE_KEY name another stack than the one that runs here.
`;

const IN_FLIGHT = { default: 4, max: 64 };
const PATIENCE_SECONDS = { default: 600, max: 86_400 };
const SHOW_EVERY_MS = 200;
const LINE_EVERY_MS = 5_000;
const POLL_MS = 250;
/** How long no event is counted until waiting is given up. */
const STILL_MS_MAX = 60_000;

interface Command {
  readonly files: readonly string[];
  readonly mapping: Mapping | null;
  readonly isIdFromLine: boolean;
  readonly name: string | null;
  readonly isResumed: boolean;
  readonly isWaiting: boolean;
  readonly inFlight: number;
  readonly patienceMs: number;
}

/** What is asked for, or what is wrong with it. */
function readCommand(args: readonly string[]): Command | string {
  const text = { type: 'string' } as const;
  const flag = { type: 'boolean', default: false } as const;
  let parsed;
  try {
    parsed = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        type: text,
        source: text,
        'subject-column': text,
        'time-column': text,
        'id-column': text,
        'id-from-line': flag,
        name: text,
        resume: flag,
        'no-wait': flag,
        'in-flight': text,
        patience: text,
      },
    });
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  const { values, positionals: files } = parsed;
  if (files.length === 0) return 'No file is named.';
  const missing = files.find((file) => !existsSync(file));
  if (missing !== undefined) return `${missing} is not there.`;
  const twice = files.find((file, at) => files.findIndex((one) => resolve(one) === resolve(file)) !== at);
  if (twice !== undefined) return `${twice} is named twice.`;
  const mapping = mappingOf(files, values);
  if (typeof mapping === 'string') return mapping;
  const name = values.name ?? null;
  if (name !== null && (files.length > 1 || !values['id-from-line']))
    return '--name is for one file, with --id-from-line.';
  const inFlight = Number(values['in-flight'] ?? IN_FLIGHT.default);
  if (!Number.isInteger(inFlight) || inFlight < 1 || inFlight > IN_FLIGHT.max)
    return `--in-flight is a number from 1 to ${IN_FLIGHT.max}.`;
  const patience = Number(values.patience ?? PATIENCE_SECONDS.default);
  if (!Number.isInteger(patience) || patience < 0 || patience > PATIENCE_SECONDS.max)
    return `--patience is a number of seconds from 0 to ${PATIENCE_SECONDS.max}.`;
  return {
    files,
    mapping,
    isIdFromLine: values['id-from-line'],
    name,
    isResumed: values.resume,
    isWaiting: !values['no-wait'],
    inFlight,
    patienceMs: patience * 1_000,
  };
}

type MappingValues = Readonly<
  Partial<Record<'type' | 'source' | 'subject-column' | 'time-column' | 'id-column', string>>
> & { readonly 'id-from-line': boolean };

function mappingOf(files: readonly string[], values: MappingValues): Mapping | null | string {
  const isCsv = files.filter((file) => /\.csv(\.gz)?$/i.test(file)).length;
  const { type, 'subject-column': subjectColumn, 'time-column': timeColumn, 'id-column': idColumn } = values;
  const given = [type, values.source, subjectColumn, timeColumn, idColumn].some((one) => one !== undefined);
  if (isCsv === 0 && !given) return null;
  if (isCsv > 0 && isCsv < files.length) return 'CSV files and others are replayed one after the other.';
  if (type === undefined || subjectColumn === undefined || timeColumn === undefined)
    return 'A CSV needs --type, --subject-column and --time-column.';
  if ((idColumn === undefined) !== values['id-from-line'])
    return 'A CSV needs either --id-column or --id-from-line: without ids, a second replay would count twice.';
  return { type, source: values.source ?? null, subjectColumn, timeColumn, idColumn: idColumn ?? null };
}

/** Returns the exit code: 1 when an event was rejected, 2 when a file was not sent to its end. */
export async function replayCommand(args: readonly string[]): Promise<number> {
  const command = readCommand(args);
  if (typeof command === 'string') return refuse(`${command}\n\n${replayUsage}`);
  const { api, edge, key } = readTarget('key');
  if (edge === undefined || key === undefined)
    return refuse('No stack runs here: start it with npm start, or set TALLYLINE_EDGE and TALLYLINE_KEY.\n');
  const client = command.isWaiting && api !== undefined ? new ApiClient(api, key) : null;
  const before = client === null ? null : await conservation(client).catch(withoutApi);
  const stopping = new AbortController();
  const stop = (): void => stopping.abort();
  process.once('SIGINT', stop);
  process.once('SIGTERM', stop);
  let acceptedNow = 0;
  let code = 0;
  for (const file of command.files) {
    const result = await replayOne(file, command, { edge, key }, stopping.signal);
    acceptedNow += result.acceptedNow;
    if (result.rejected > 0) code = Math.max(code, 1);
    if (result.stopped !== null) {
      code = 2;
      break;
    }
  }
  if (client !== null && before !== null && !stopping.signal.aborted) {
    await tellCounted(client, before, BigInt(acceptedNow), stopping.signal);
  }
  return code;
}

async function replayOne(
  file: string,
  command: Command,
  edge: Edge,
  stopping: AbortSignal,
): Promise<FileResult> {
  const display = new Display(file);
  const result = await replayFile(file, {
    edge,
    mapping: command.mapping,
    idsFor: command.isIdFromLine ? (command.name ?? basename(file).replace(/\.gz$/i, '')) : null,
    isResumed: command.isResumed,
    inFlight: command.inFlight,
    patienceMs: command.patienceMs,
    onProgress: (progress) => display.show(progress),
    onWait: (said) => display.wait(said),
    stopping,
  }).finally(() => display.end());
  const { accepted, rejected, codes, rejectedFile, stopped } = result;
  const unread = rejected === 0 ? '' : `, in ${rejectedFile}`;
  process.stdout.write(
    `${file}: ${grouped(accepted + rejected)} events sent, ${grouped(accepted)} accepted, ${grouped(rejected)} rejected${unread}\n`,
  );
  for (const [code, count] of [...codes].sort((a, b) => b[1] - a[1]))
    process.stdout.write(`  ${grouped(count).padStart(12)}  ${code}${HINTS[code] ?? ''}\n`);
  if (stopped !== null) {
    const place = PLACES[result.format];
    process.stderr.write(
      `${file}: not finished: ${stopped.message}\n` +
        `What comes before is done, and ${stateFileOf(file)} knows up to which ${place}: go on with --resume.\n`,
    );
  }
  return result;
}

const HINTS: Readonly<Record<string, string>> = {
  field_missing: ': without an id, --id-from-line makes one; the rejected file says which field it is',
  time_too_old: ': TALLYLINE_EDGE_EVENT_AGE_DAYS_MAX of the edge says how far back it takes events',
};

function withoutApi(error: unknown): null {
  const why = error instanceof Error ? error.message : String(error);
  process.stderr.write(
    `The API cannot say what will be counted (${why}); the events are sent all the same.\n`,
  );
  return null;
}

async function conservation(client: ApiClient): Promise<Conservation> {
  return (await client.get<Conservation>('/v1/conservation')).body;
}

/**
 * Waits until what was sent is counted. The log does not say whose event was counted for which request, so the
 * figures of the tenant tell about this replay only when they grew by exactly what it sent.
 */
async function tellCounted(
  client: ApiClient,
  before: Conservation,
  sent: bigint,
  stopping: AbortSignal,
): Promise<void> {
  let last = '';
  let movedMs = performance.now();
  for (;;) {
    const askedMs = performance.now();
    const grown = conservationDelta(before, await conservation(client));
    const answerMs = performance.now() - askedMs;
    const isCounted = BigInt(grown.received) >= sent && grown.unaccounted === '0';
    const isStill = last === grown.received;
    if (!isStill) movedMs = performance.now();
    last = grown.received;
    // Two equal readings: what others send meanwhile would show in one of them.
    if (isCounted && (isStill || BigInt(grown.received) > sent)) {
      const of =
        BigInt(grown.received) === sent
          ? 'of these'
          : 'of the tenant meanwhile, repeated requests and events of other senders included';
      process.stdout.write(
        `${of}: ${grouped(grown.counted)} counted, ${grouped(grown.duplicate)} duplicate, ${grouped(grown.conflict)} conflict, ${grouped(grown.late)} late, ${grouped(grown.rejected)} rejected by the log\n`,
      );
      return;
    }
    if (stopping.aborted) return;
    if (performance.now() - movedMs > STILL_MS_MAX) {
      process.stdout.write(
        `${grouped(grown.received)} of them are counted so far and no more come: see the aggregator. What was accepted is in the log and is not lost.\n`,
      );
      return;
    }
    // A report of a large tenant takes its time, which the counting shall have too.
    await sleep(Math.max(POLL_MS, 2 * answerMs), stopping);
  }
}

/** One line that is redrawn on a terminal; elsewhere a line every few seconds. */
class Display {
  readonly #file: string;
  readonly #begunMs = performance.now();
  #shownMs = 0;
  #acceptedBefore: number | null = null;

  constructor(file: string) {
    this.#file = file;
  }

  show(progress: ReplayProgress): void {
    const { accepted, rejected, bytesDone, bytes, bytesBefore } = progress;
    const nowMs = performance.now();
    this.#acceptedBefore ??= accepted;
    const { isTTY } = process.stderr;
    if (nowMs - this.#shownMs < (isTTY ? SHOW_EVERY_MS : LINE_EVERY_MS)) return;
    this.#shownMs = nowMs;
    const seconds = (nowMs - this.#begunMs) / 1_000;
    const perSecond = Math.round((accepted - this.#acceptedBefore) / seconds);
    const part = bytes === 0 ? 1 : bytesDone / bytes;
    const partNow = bytes === bytesBefore ? 1 : (bytesDone - bytesBefore) / (bytes - bytesBefore);
    const left = partNow > 0 ? Math.ceil((seconds * (1 - partNow)) / partNow) : null;
    this.#write(
      `${this.#file}: ${grouped(accepted + rejected)} events, ${grouped(perSecond)}/s, ${grouped(rejected)} rejected, ${Math.floor(part * 100)} %${left === null ? '' : `, ${durationOf(left)} left`}`,
    );
  }

  wait(said: string): void {
    const nowMs = performance.now();
    if (nowMs - this.#shownMs < SHOW_EVERY_MS) return;
    this.#shownMs = nowMs;
    this.#write(`${this.#file}: waiting for the edge (${said.replace(/\s+/g, ' ').slice(0, 200)})`);
  }

  end(): void {
    if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
  }

  #write(line: string): void {
    process.stderr.write(process.stderr.isTTY ? `\r\x1b[K  ${line}` : `  ${line}\n`);
  }
}

function durationOf(seconds: number): string {
  const [hours, minutes] = [Math.floor(seconds / 3_600), Math.floor(seconds / 60) % 60];
  if (hours > 0) return `${hours} h ${minutes} min`;
  return minutes > 0 ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
}

function refuse(text: string): number {
  process.stderr.write(text);
  return 2;
}
