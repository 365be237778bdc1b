import type { Metrics } from '../../runtime/metrics.ts';

export interface JournalMeasures {
  /** One write and sync, with the blocks in it. */
  synced(ms: number, blocks: number): void;
  /** A block could not be taken. */
  refused(why: 'full' | 'failed'): void;
  resent(): void;
  damaged(records: number): void;
  /** The acknowledgements of a log are in doubt. */
  doubted(why: string): void;
  /** Gauges that are read at every scrape. */
  watch(o: {
    bytes(): number;
    waitingBlocks(): number;
    heldBlocks(): number;
    asideBlocks(): number;
    oldestSeconds(): number;
  }): void;
  watchShards(alone: () => number): void;
}

const SYNC_SECONDS = [0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.25, 1, 4];
const SYNC_BLOCKS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

export function journalMeasures(
  metrics: Metrics,
  limits: { readonly journalBytesMax: number },
): JournalMeasures {
  metrics
    .gauge('tallyline_edge_journal_limit_bytes', 'that the edge journal may take on disk')
    .set(limits.journalBytesMax);
  const seconds = metrics.histogram(
    'tallyline_edge_journal_fsync_seconds',
    'writing and syncing what has come together',
    SYNC_SECONDS,
  );
  const blocks = metrics.histogram('tallyline_edge_journal_fsync_blocks', 'blocks in one sync', SYNC_BLOCKS);
  const refused = metrics.counter(
    'tallyline_edge_journal_refused_blocks_total',
    'blocks that the journal did not take, by reason',
    ['reason'],
  );
  const resent = metrics.counter(
    'tallyline_edge_journal_resent_blocks_total',
    'blocks published from the journal: they were not acknowledged, or the acknowledgement is in doubt',
  );
  const damaged = metrics.counter(
    'tallyline_edge_journal_damaged_records_total',
    'records of the journal that were found not sound; any is a reason to look',
  );
  const doubted = metrics.counter(
    'tallyline_edge_journal_doubted_logs_total',
    'times that the acknowledgements of a log were forgotten, by reason',
    ['reason'],
  );
  const gauge = (name: string, help: string, read: () => number): void =>
    void metrics.gauge(name, help, [], read);
  return {
    synced(ms, count) {
      seconds.observe(ms / 1_000);
      blocks.observe(count);
    },
    refused: (reason) => refused.inc({ reason }),
    resent: () => resent.inc(),
    damaged: (records) => damaged.inc(records),
    doubted: (reason) => doubted.inc({ reason }),
    watch(o) {
      gauge('tallyline_edge_journal_bytes', 'that the edge journal takes on disk', o.bytes);
      gauge('tallyline_edge_journal_waiting_blocks', 'waiting to be published', o.waitingBlocks);
      gauge('tallyline_edge_journal_held_blocks', 'not known to be counted yet', o.heldBlocks);
      gauge(
        'tallyline_edge_journal_aside_blocks',
        'that cannot be sent: refused by the server for good, or not readable any more',
        o.asideBlocks,
      );
      gauge(
        'tallyline_edge_journal_oldest_seconds',
        'age of the oldest block that is not known to be counted',
        o.oldestSeconds,
      );
    },
    watchShards(alone) {
      gauge(
        'tallyline_edge_journal_alone_shards',
        'whose log takes nothing now, so that the journal alone carries the promise: degraded',
        alone,
      );
    },
  };
}
