-- Later versions of a meter; the first is its row in `meters`. A number is never used twice.
CREATE TABLE meter_versions (
  tenant text NOT NULL,
  key text NOT NULL,
  version integer NOT NULL CHECK (version > 1),
  definition jsonb NOT NULL,
  -- publishing: not yet in every shard's log. missed: it could not be told to all of them before it was too late.
  state text NOT NULL CHECK (state IN ('publishing', 'active', 'missed')),
  created_at timestamptz NOT NULL,
  PRIMARY KEY (tenant, key, version),
  FOREIGN KEY (tenant, key) REFERENCES meters
);
