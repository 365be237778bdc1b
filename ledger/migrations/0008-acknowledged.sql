-- What the edges answered with yes, as they told it (edge-totals.ts): the first line of the conservation report.

-- An absolute total for each entry of an edge. Entries that rise no more are put together under the entry ''.
CREATE TABLE acknowledged_totals (
  tenant text NOT NULL,
  entry text NOT NULL,
  events bigint NOT NULL CHECK (events >= 0),
  told_at timestamptz NOT NULL,
  PRIMARY KEY (tenant, entry)
);
CREATE INDEX acknowledged_totals_by_age ON acknowledged_totals (told_at) WHERE entry <> '';

-- Everything that was told to be acknowledged at this instant was looked for in the log. One row.
CREATE TABLE acknowledged_proof (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  proven_to timestamptz NOT NULL
);

-- What was not found there.
CREATE TABLE acknowledged_missing (
  tenant text PRIMARY KEY,
  events bigint NOT NULL CHECK (events > 0),
  found_at timestamptz NOT NULL
);
