-- Rollup rows are written again and again while their hour lasts, and merged each time: what they cost is processor
-- time, not disk, of which raw events take five times as much. LZ4 instead of ZSTD takes an eighth of that time off
-- (0.95 instead of 1.12 us a row with its merges), for 19 instead of 10 bytes a row on the disk. Parts that are there
-- are compressed anew when they are merged next.
ALTER TABLE rollup_hour
  MODIFY COLUMN subject String CODEC(LZ4),
  MODIFY COLUMN hour DateTime('UTC') CODEC(DoubleDelta, LZ4),
  MODIFY COLUMN dimensions Array(String) CODEC(LZ4),
  MODIFY COLUMN shard UInt16 CODEC(LZ4),
  MODIFY COLUMN value_count UInt64 CODEC(T64, LZ4),
  MODIFY COLUMN value_sum Decimal(38, 9) CODEC(LZ4),
  MODIFY COLUMN value_min Decimal(38, 9) CODEC(LZ4),
  MODIFY COLUMN value_max Decimal(38, 9) CODEC(LZ4),
  MODIFY COLUMN value_latest Decimal(38, 9) CODEC(LZ4),
  MODIFY COLUMN latest_time DateTime64(3, 'UTC') CODEC(Delta, LZ4),
  MODIFY COLUMN latest_position UInt64 CODEC(Delta, LZ4),
  MODIFY COLUMN position UInt64 CODEC(Delta, LZ4);
