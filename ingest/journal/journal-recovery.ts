/**
 * What an earlier process left in the journal's folder. Every sound record of it waits to be published again:
 * how far it had come is not remembered.
 *
 *   bytes behind the last sound record of the last segment
 *       A crash in the middle of a commit. Nobody was promised them: they are cut off.
 *   the same in an earlier segment, an unsound record with a sound one behind it, an unsound header
 *       Damage, perhaps of something that was promised. Logged and counted; the sound records are sent, and
 *       when they are released the file stays as *.damaged. (A power loss that wrote the later part of a commit
 *       and not the earlier looks the same, and is treated the same.)
 *   a file that is not longer than its header
 *       A crash while it was made. No record is written before the header is durable: it is removed.
 *   another deployment, shard count or version
 *       The process refuses to start.
 */
import type { Log } from '../../runtime/log.ts';
import type { JournalDisk } from './journal-disk.ts';
import { JournalSegment, type JournalIndex } from './journal-index.ts';
import type { JournalMeasures } from './journal-measures.ts';
import {
  JOURNAL_VERSION,
  readSegmentHeader,
  scanSegment,
  SEGMENT_HEADER_BYTES,
  segmentName,
  segmentNumber,
  TAG_BYTES,
  tagOf,
  type SegmentHeader,
} from './journal-record.ts';

export const DAMAGED = '.damaged';

export interface RecoveryOptions {
  readonly disk: JournalDisk;
  readonly shards: number;
  /** 16 hexadecimal digits that differ between deployments. */
  readonly deployment: string;
  readonly log: Log;
  readonly measures: JournalMeasures;
  /** Epoch milliseconds. */
  now(): number;
}

/** Fills the index with what is found, all of it sealed and waiting. Resolves with the number of the next segment. */
export async function recoverJournal(o: RecoveryOptions, index: JournalIndex): Promise<number> {
  const names = await o.disk.list();
  const numbers = names.flatMap((name) => segmentNumber(name) ?? []).sort((a, b) => a - b);
  const aside = names.flatMap((name) => segmentNumber(name, DAMAGED) ?? []);
  for (const number of numbers) await recoverSegment(o, index, number, number === numbers.at(-1));
  await o.disk.sync();
  const { held: blocks, segments } = index;
  if (blocks > 0)
    o.log.info({ blocks, segments: segments.length }, 'the blocks of the edge journal are sent again');
  return Math.max(0, ...numbers, ...aside) + 1;
}

async function recoverSegment(
  o: RecoveryOptions,
  index: JournalIndex,
  number: number,
  isLast: boolean,
): Promise<void> {
  const { disk, log } = o;
  const name = segmentName(number);
  const file = await disk.read(name);
  const header = readSegmentHeader(file);
  if (header !== null) mustBeOurs(name, header, o);
  if (header === null && file.length <= SEGMENT_HEADER_BYTES) {
    log.info({ file: name }, 'a segment was being made when the process ended');
    return disk.remove(name);
  }

  const segment = new JournalSegment({
    number,
    tag: tagOf(file) ?? new Uint8Array(TAG_BYTES),
    openedAtMs: header?.openedAtMs ?? o.now(),
    bytes: file.length,
    shards: o.shards,
  });
  segment.sealed = true;
  index.segments.push(segment);
  let damaged = header === null ? 1 : 0;
  const scan = scanSegment(file, segment.tag, (record) => {
    if (record.shard < o.shards) index.addFound(segment, record);
    else damaged += 1;
  });
  damaged += scan.damaged;

  const tail = file.length - scan.soundEnd;
  if (tail > 0 && isLast && header !== null) {
    log.warn(
      { file: name, bytes: tail },
      'a torn tail of the edge journal is cut off: it was never promised',
    );
    const handle = await disk.open(name);
    await handle.truncate(scan.soundEnd);
    await handle.close();
    segment.bytes = scan.soundEnd;
  } else if (tail > 0) {
    damaged += 1;
  }
  if (damaged === 0) return;
  segment.damaged = true;
  o.measures.damaged(damaged);
  log.error(
    { file: name, damaged, sound: segment.count },
    'records of the edge journal are not sound: events that were promised may be lost',
  );
}

function mustBeOurs(name: string, header: SegmentHeader, o: RecoveryOptions): void {
  if (header.version !== JOURNAL_VERSION) {
    throw new Error(
      `${name} has version ${header.version}, and this program reads version ${JOURNAL_VERSION}: ` +
        'let the program that wrote it send its events first',
    );
  }
  if (header.deployment !== o.deployment) {
    throw new Error(
      `${name} was written under another TALLYLINE_IDENTITY_KEY: its events would be counted twice. ` +
        'Use that key again, or give the folder to an edge of that deployment',
    );
  }
  if (header.shards !== o.shards) {
    throw new Error(
      `${name} was written with TALLYLINE_SHARDS=${header.shards}, not ${o.shards}: its events would be ` +
        'counted twice. Set it to that again',
    );
  }
}
