-- What makes a posting pass cost in proportion to what changed for those who are billed.

-- How far unique counts were posted, shard by shard, as usage_cursors says it of everything else. They are read from
-- raw events, which costs more, and so less often.
CREATE TABLE unique_cursors (
  shard integer PRIMARY KEY,
  position numeric(20, 0) NOT NULL
);
INSERT INTO unique_cursors SELECT shard, position FROM usage_cursors;

-- Has no rows: those who write customers and journals take turns by locking it.
CREATE TABLE writing_turn (nothing boolean);

-- The totals of subjects without a customer were kept here and read by nobody. `GET /v1/usage` has them, and a subject
-- is read in full when a customer gets it.
DROP TABLE unassigned_usage;
