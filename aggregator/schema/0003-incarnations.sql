-- What is known of each shard's log, so that a start, or a new connection to the broker, can tell whether it is
-- still the log that was counted, and up to which message. aggregator/incarnation.ts tells how they are used.

-- Which message stood at each sequence: when the log stored it, epoch milliseconds, and the CRC-32 of its bytes.
-- One row for the messages of a flush, written before anything that follows from them, so that no row of another
-- table speaks of a message without a mark. The same row may stand here twice. What is older than the TTL cannot
-- be recognized any more: should a broker lose its log back to there, it is read again, as duplicates.
CREATE TABLE IF NOT EXISTS log_marks (
  shard UInt16,
  incarnation UInt8,
  first_sequence UInt64 CODEC(Delta, ZSTD(1)),
  last_sequence UInt64 CODEC(Delta, ZSTD(1)),
  stored_ms Array(UInt64) CODEC(Delta, ZSTD(1)),
  checksums Array(UInt32) CODEC(ZSTD(1)),
  written_at DateTime('UTC')
) ENGINE = MergeTree
ORDER BY (shard, first_sequence)
TTL written_at + INTERVAL 35 DAY
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- How each incarnation of a shard's log began: which stream it reads, behind which message of it (`sequence`, 0 for
-- the beginning), and up to which sequence the incarnation before it was counted (`sequence_before`; what that one
-- read behind it counts only as far as raw rows tell). Written before the first row of the incarnation.
CREATE TABLE IF NOT EXISTS incarnations (
  shard UInt16,
  incarnation UInt8,
  sequence UInt64,
  sequence_before UInt64,
  stream_created String,
  fingerprint String,
  accepted_at DateTime64(3, 'UTC'),
  began_at DateTime64(3, 'UTC'),
  reason String
) ENGINE = ReplacingMergeTree(began_at)
ORDER BY (shard, incarnation)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE VIEW IF NOT EXISTS log_incarnations AS
SELECT shard, incarnation, sequence, sequence_before, stream_created, began_at, reason
FROM incarnations FINAL;
