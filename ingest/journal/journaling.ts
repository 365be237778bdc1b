/** The edge journal and its courier, put together from the configuration and the connection of a stage. */
import { createHash } from 'node:crypto';
import { parseWatermarkRecord } from '../../contract/notice.ts';
import { BUCKET_WATERMARKS, streamName, streamSubject } from '../../contract/subjects.ts';
import type { Stage } from '../../runtime/lifecycle.ts';
import { jetStreamCode, openKeyValue, type NatsLink, type PublishPipeline } from '../../runtime/nats.ts';
import { contradictionOf } from '../../runtime/stream-state.ts';
import { Courier } from './courier.ts';
import { JournalFolder } from './journal-disk.ts';
import { journalMeasures, type JournalMeasures } from './journal-measures.ts';
import { Journal } from './journal.ts';

export interface JournalingConfig {
  readonly shards: number;
  readonly identityKey: string;
  /** Undefined: there is no journal. */
  readonly journalFolder: string | undefined;
  readonly journalBytesMax: number;
  readonly journalSegmentBytes: number;
  readonly publishesInFlightMax: number;
  readonly publishBytesInFlightMax: number;
}

/** Time and chance. */
export interface Chance {
  /** [0, 1). */
  random(): number;
  /** Runs it after the time; the result calls it off. */
  after(ms: number, run: () => void): () => void;
}

export interface Journaling {
  readonly journal: Journal;
  readonly measures: JournalMeasures;
  readonly chance: Chance;
}

/** Null when none is configured. Throws a ConfigError when its folder cannot be used. */
export async function openJournal(
  stage: Stage,
  config: JournalingConfig,
  chance: Chance,
): Promise<Journaling | null> {
  const folder = config.journalFolder;
  if (folder === undefined) return null;
  const measures = journalMeasures(stage.metrics, config);
  const journal = await Journal.open({
    disk: new JournalFolder(folder),
    folder,
    shards: config.shards,
    // Events that were hashed with another key would not be found to be the same.
    deployment: createHash('sha256').update(config.identityKey).digest('hex').slice(0, 16),
    bytesMax: config.journalBytesMax,
    segmentBytesMax: config.journalSegmentBytes,
    log: stage.log,
    measures,
    now: () => stage.clock.now(),
    random: () => chance.random(),
    after: (ms, run) => chance.after(ms, run),
  });
  stage.onStop('edge journal', () => journal.close());
  return { journal, measures, chance };
}

/** Blocks of the journal may fill this part of the pipeline. */
const RESEND_PART = 4;
const NO_MESSAGE_FOUND = 10_037;

/** Resolves when it knows the watermarks. It sends nothing before `resume`. */
export async function startCourier(
  stage: Stage,
  config: JournalingConfig,
  { journal, measures, chance }: Journaling,
  link: NatsLink,
  pipeline: PublishPipeline,
): Promise<Courier> {
  /** Shards of which it was said. */
  const contradicting = new Set<number>();
  const courier = new Courier({
    journal,
    shards: config.shards,
    resendsInFlightMax: Math.max(1, Math.floor(config.publishesInFlightMax / RESEND_PART)),
    resendBytesInFlightMax: Math.max(1, Math.floor(config.publishBytesInFlightMax / RESEND_PART)),
    log: stage.log,
    measures,
    publish: (shard, block) => pipeline.publish(streamSubject(shard), block),
    full: () => pipeline.full(),
    async messageAt(shard, sequence) {
      const stream = streamName(shard);
      // A log that gives sequences to new messages while older ones have them answers with the older ones. An
      // aggregator that began to read it before anybody noticed would vouch for sequences, and mean those: blocks of
      // ours would be released that nobody has counted.
      const contradiction = contradictionOf(stream, (await link.jsm.streams.info(stream)).state);
      if (contradiction === null) contradicting.delete(shard);
      else {
        if (!contradicting.has(shard))
          stage.log.error(
            { shard },
            `${contradiction}; blocks stay in the edge journal until it is replaced`,
          );
        contradicting.add(shard);
        throw new Error(contradiction);
      }
      try {
        return (await link.jsm.streams.getMessage(stream, { seq: sequence })).data;
      } catch (error) {
        if (jetStreamCode(error) === NO_MESSAGE_FOUND) return null;
        throw error;
      }
    },
    random: () => chance.random(),
    after: (ms, run) => chance.after(ms, run),
  });
  const bucket = await openKeyValue(link, BUCKET_WATERMARKS);
  await bucket.watch((shard, json) => {
    const record = json === null ? null : parseWatermarkRecord(json);
    const sound = json === null || String(record?.shard) === shard;
    if (!sound) stage.log.error({ shard }, 'a watermark is not sound: blocks stay in the edge journal');
    courier.onWatermark(Number(shard), sound ? record : null);
  }, stage.stopping);
  return courier;
}
