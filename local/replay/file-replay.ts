// Replays one file: reads, sends several batches at a time, and notes in the order of the file what is done.
//
// 1. Records are cut from the file and gathered into batches; up to `inFlight` of them are on their way, and no
//    more is read meanwhile.
// 2. The oldest batch has its answer: its rejected events are appended to the rejected file. A crash behind this
//    leaves lines there that the state does not know of; going on cuts them off.
// 3. The state says how far it is. A crash before this sends what was answered since the last state again, which
//    the edge takes and the aggregator finds to be duplicates.
import { closeSync, ftruncateSync, fstatSync, openSync, statSync, unlinkSync, writeSync } from 'node:fs';
import { basename } from 'node:path';
import { NotTaken, sendBatch, type Edge, type RejectedOfBatch } from '../send-batch.ts';
import { Batches, EMPTY_DIGEST, type Batch } from './batches.ts';
import { NOTHING_DONE, readState, StateError, writeState, type ReplayState } from './progress-file.ts';
import type { FoundEvent } from './record.ts';
import { openSource, PLACES, type FileFormat, type SourceOptions } from './source.ts';

export interface ReplayOptions extends SourceOptions {
  readonly edge: Edge;
  readonly isResumed: boolean;
  readonly inFlight: number;
  readonly patienceMs: number;
  readonly onProgress: (progress: ReplayProgress) => void;
  readonly onWait: (said: string) => void;
  /** Asks to stop: what is on its way gets its answer, and the state says how far it is. */
  readonly stopping: AbortSignal;
}

export interface ReplayProgress {
  readonly accepted: number;
  readonly rejected: number;
  /** Of the file, dealt with and altogether. */
  readonly bytesDone: number;
  readonly bytes: number;
  /** Of the file, when this run began to send. */
  readonly bytesBefore: number;
}

export interface FileResult {
  readonly format: FileFormat;
  readonly accepted: number;
  readonly rejected: number;
  /** Of the accepted, those of this run. */
  readonly acceptedNow: number;
  /** How often each code was said, in this run. */
  readonly codes: ReadonlyMap<string, number>;
  readonly rejectedFile: string;
  /** Null: the whole file was sent. */
  readonly stopped: Error | null;
}

const BATCH_LIMITS = { events: 1_000, bytes: 1_048_576 };
const STATE_EVERY_MS = 500;
const TEXT_CHARACTERS_MAX = 65_536;

export const stateFileOf = (path: string): string => `${path}.replay.json`;
export const rejectedFileOf = (path: string): string => `${path}.rejected.ndjson`;

export async function replayFile(path: string, options: ReplayOptions): Promise<FileResult> {
  const stateFile = stateFileOf(path);
  const before = options.isResumed ? readState(stateFile) : null;
  const rejectedFile = new RejectedFile(path, before);
  const source = await openSource(path, options);
  let done: ReplayState = before ?? { ...NOTHING_DONE, digest: EMPTY_DIGEST };
  const batches = new Batches(BATCH_LIMITS);
  const underWay: { batch: Batch; answer: Promise<RejectedOfBatch[] | Error> }[] = [];
  let savedMs = performance.now();
  let bytesBefore = 0;
  /** Of the first batch that was not taken: nothing behind it counts as done, whatever became of it. */
  let failure: Error | null = null;

  const send = (batch: Batch): void => {
    const events = batch.events.map(({ event }) => event);
    // A failure waits for its turn, behind the answers of the batches before it.
    const answer =
      events.length === 0
        ? Promise.resolve([])
        : sendBatch(options.edge, events, {
            patienceMs: options.patienceMs,
            onWait: options.onWait,
            signal: options.stopping,
          }).catch(asError);
    underWay.push({ batch, answer });
  };
  const finishOldest = async (): Promise<void> => {
    const { batch, answer } = underWay.shift()!;
    const rejected = await answer;
    if (failure !== null) return;
    if (rejected instanceof Error) {
      failure = new NotTaken(
        `record ${done.records + 1} and what follows was not taken: ${rejected.message}`,
      );
      return;
    }
    rejectedFile.append(source.format, batch, rejected);
    done = {
      ...done,
      records: batch.records,
      digest: batch.digest,
      accepted: done.accepted + batch.events.length - rejected.length,
      rejected: done.rejected + rejected.length + batch.unreadable.length,
      rejectedBytes: rejectedFile.bytes,
    };
    if (performance.now() - savedMs >= STATE_EVERY_MS) {
      writeState(stateFile, done);
      savedMs = performance.now();
    }
    const { accepted, rejected: refused } = done;
    const [bytesDone, bytes] = [batch.bytesRead, source.bytes];
    options.onProgress({ accepted, rejected: refused, bytesDone, bytes, bytesBefore });
  };

  const isOver = (): boolean => options.stopping.aborted || failure !== null;
  /** Reads and sends to the end of the file, or until something fails. */
  const readAll = async (): Promise<void> => {
    const passed = before?.records ?? 0;
    for await (const records of source.records) {
      for (const record of records) {
        if (batches.records < passed) {
          batches.pass(record);
          if (batches.records === passed) expectSameFile(path, before!, batches.digest);
          bytesBefore = source.bytesRead();
          continue;
        }
        const full = batches.add(record, source.bytesRead());
        if (full === null) continue;
        while (underWay.length >= options.inFlight) await finishOldest();
        if (isOver()) return;
        send(full);
      }
      if (isOver()) return;
    }
    if (batches.records < passed) expectSameFile(path, before!, '');
  };

  if (before === null) writeState(stateFile, done);
  let stopped: Error | null;
  try {
    const fault = await readAll().then(() => null, asError);
    // What stands before a fault of the file is sent too.
    const last = isOver() || fault instanceof StateError ? null : batches.take(source.bytesRead());
    if (last !== null) send(last);
    while (underWay.length > 0) await finishOldest();
    stopped = failure ?? fault ?? (options.stopping.aborted ? new NotTaken('it was asked to stop') : null);
  } finally {
    rejectedFile.close();
  }
  writeState(stateFile, { ...done, isFinished: stopped === null });
  return {
    format: source.format,
    accepted: done.accepted,
    rejected: done.rejected,
    acceptedNow: done.accepted - (before?.accepted ?? 0),
    codes: rejectedFile.codes,
    rejectedFile: rejectedFile.path,
    stopped,
  };
}

const asError = (error: unknown): Error => (error instanceof Error ? error : new Error(String(error)));

function expectSameFile(path: string, before: ReplayState, digest: string): void {
  if (digest === before.digest) return;
  throw new StateError(
    `${path} is not what it was: its first ${before.records} records, or how they are read, have changed since they were sent. Replay it without --resume; what is the same under the same ids counts once`,
  );
}

/** FILE.rejected.ndjson: what was not taken, why and where it stands; there is none as long as all is taken. */
class RejectedFile {
  readonly path: string;
  readonly codes = new Map<string, number>();
  readonly #name: string;
  #descriptor: number | null = null;
  #bytes = 0;

  constructor(path: string, before: ReplayState | null) {
    this.path = rejectedFileOf(path);
    this.#name = basename(path);
    const size = statSync(this.path, { throwIfNoEntry: false })?.size ?? 0;
    const kept = before?.rejectedBytes ?? 0;
    if (before === null && size > 0) {
      throw new StateError(
        `${this.path} is there already, from an earlier replay: move it away, or go on with --resume`,
      );
    }
    if (size < kept) throw new StateError(`${this.path} has changed: replay without --resume`);
    if (kept === 0) {
      if (size > 0) unlinkSync(this.path);
      return;
    }
    this.#descriptor = openSync(this.path, 'a');
    ftruncateSync(this.#descriptor, kept);
    this.#bytes = fstatSync(this.#descriptor).size;
  }

  get bytes(): number {
    return this.#bytes;
  }

  append(format: FileFormat, batch: Batch, rejected: readonly RejectedOfBatch[]): void {
    const place = PLACES[format];
    const lines = [
      ...batch.unreadable.map((one) => ({ one, text: this.#line(place, one, null) })),
      ...rejected.map((one) => {
        const found = batch.events[one.index]!;
        return { one: found, text: this.#line(place, { ...one, place: found.place }, found) };
      }),
    ];
    if (lines.length === 0) return;
    lines.sort((a, b) => a.one.place - b.one.place);
    for (const { code } of [...batch.unreadable, ...rejected])
      this.codes.set(code, (this.codes.get(code) ?? 0) + 1);
    this.#descriptor ??= openSync(this.path, 'a');
    const bytes = Buffer.from(lines.map(({ text }) => text).join(''));
    for (let at = 0; at < bytes.length;) at += writeSync(this.#descriptor, bytes, at);
    this.#bytes += bytes.length;
  }

  close(): void {
    if (this.#descriptor !== null) closeSync(this.#descriptor);
    this.#descriptor = null;
  }

  /** The event stands there as it was sent, so that it keeps its digits; what is no JSON stands there as a text. */
  #line(
    place: string,
    why: { place: number; code: string; message: string },
    found: FoundEvent | null,
  ): string {
    const { code, message } = why;
    const head = JSON.stringify({ file: this.#name, [place]: why.place, code, message });
    return `${head.slice(0, -1)}${found === null ? '' : `,${contentOf(found.event)}`}}\n`;
  }
}

function contentOf(event: Buffer): string {
  const text = event.toString();
  try {
    JSON.parse(text);
    return `"event":${text}`;
  } catch {
    return `"text":${JSON.stringify(text.slice(0, TEXT_CHARACTERS_MAX))}`;
  }
}
