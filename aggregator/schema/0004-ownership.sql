-- Who counts a shard: one row for every take-over. The newest is the greatest (epoch, owner), so two processes that
-- chose the same epoch at once are in order too, and exactly one of them is the newest. Every insert of the aggregator
-- carries the epochs of its shards and is refused by the server when one of them is not the newest any more;
-- aggregator/ownership.ts tells the protocol. Rows are never taken away: some 40 bytes for a take-over.
CREATE TABLE IF NOT EXISTS owners (
  shard UInt16,
  epoch UInt64,
  owner String,
  since DateTime64(3, 'UTC')
) ENGINE = ReplacingMergeTree
ORDER BY (shard, epoch, owner)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE VIEW IF NOT EXISTS shard_owners AS
SELECT o.shard AS shard, max(o.epoch) AS epoch, argMax(o.owner, (o.epoch, o.owner)) AS owner,
  argMax(o.since, (o.epoch, o.owner)) AS since
FROM owners AS o GROUP BY o.shard;
