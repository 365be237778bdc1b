-- How far rollups were compared with the raw events they are made of (rollup-check.ts).

-- Changes of a shard up to this position were noted in check_waiting.
CREATE TABLE check_cursors (
  shard integer PRIMARY KEY,
  position numeric(20) NOT NULL
);

-- Hours of a tenant that changed since they were compared. `revision` rises when one is noted again, so that a
-- comparison takes away only what it has seen.
CREATE TABLE check_waiting (
  tenant text NOT NULL,
  hour timestamptz NOT NULL,
  revision bigint NOT NULL DEFAULT 1,
  noted_at timestamptz NOT NULL,
  -- When it was last looked at in vain (ClickHouse refused, or was too slow); then others come first.
  tried_at timestamptz,
  PRIMARY KEY (tenant, hour)
);
CREATE INDEX check_waiting_by_age ON check_waiting (noted_at);

-- What differed, until a later comparison of the same hour finds that it does not any more.
CREATE TABLE check_findings (
  tenant text NOT NULL,
  hour timestamptz NOT NULL,
  meter text NOT NULL,
  subject text NOT NULL,
  detail jsonb NOT NULL,
  first_seen_at timestamptz NOT NULL,
  last_seen_at timestamptz NOT NULL,
  PRIMARY KEY (tenant, hour, meter, subject)
);

-- The comparison of everything, hour by hour from the oldest to the newest, one after the other.
CREATE TABLE check_sweep (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  -- Null before the first.
  started_at timestamptz,
  first_hour timestamptz,
  -- The next hour to compare, and behind the last one. Null when none is running.
  next_hour timestamptz,
  end_hour timestamptz,
  completed_at timestamptz,
  -- When the completed one began: it speaks for all that was counted before.
  completed_started_at timestamptz,
  -- Changes were so many that they were left to the sweep that began after this.
  skipped_at timestamptz
);
INSERT INTO check_sweep DEFAULT VALUES;
