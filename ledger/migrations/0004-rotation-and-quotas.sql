-- A rotated key ends by itself, and names the key that took its place.
ALTER TABLE api_keys
  ADD COLUMN expires_at timestamptz,
  ADD COLUMN replaced_by text REFERENCES api_keys,
  ADD CHECK (replaced_by IS NULL OR expires_at IS NOT NULL);

-- What a tenant may send to one edge a second, where that is not the default of the edges. Null: no limit.
CREATE TABLE quotas (
  tenant text PRIMARY KEY REFERENCES tenants,
  -- Up to what a JSON number says exactly.
  events_per_second bigint CHECK (events_per_second BETWEEN 1 AND 9007199254740991),
  bytes_per_second bigint CHECK (bytes_per_second BETWEEN 1 AND 9007199254740991),
  updated_at timestamptz NOT NULL
);
