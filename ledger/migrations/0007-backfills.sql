-- Backfills: a meter counts some hours by one of its versions, whatever stood in the log when. Here is their master;
-- ledger/backfill-steps.ts tells how they get into the logs.
CREATE TABLE meter_backfills (
  tenant text NOT NULL,
  id text NOT NULL,
  meter text NOT NULL,
  version integer NOT NULL CHECK (version > 0),
  hour_from timestamptz NOT NULL CHECK (date_trunc('hour', hour_from, 'UTC') = hour_from),
  hour_to timestamptz NOT NULL CHECK (date_trunc('hour', hour_to, 'UTC') = hour_to),
  -- proposed, committing and reverting: not every shard has made it durable yet.
  state text NOT NULL CHECK (state IN
    ('proposed', 'ready', 'committing', 'committed', 'reverting', 'reverted', 'discarded')),
  created_at timestamptz NOT NULL,
  changed_at timestamptz NOT NULL,
  -- When every log acknowledged the message of the state; null while it has to be told.
  told_at timestamptz,
  PRIMARY KEY (tenant, id),
  FOREIGN KEY (tenant, meter) REFERENCES meters,
  CHECK (hour_from < hour_to)
);
CREATE INDEX ON meter_backfills (tenant, meter, created_at);
CREATE INDEX ON meter_backfills (state) WHERE state IN ('proposed', 'committing', 'reverting');
