-- Who there is and what was agreed: tenants, their keys, meters, plans, customers.

CREATE TABLE tenants (
  tenant text PRIMARY KEY,
  name text NOT NULL,
  created_at timestamptz NOT NULL
);

CREATE TABLE api_keys (
  id text PRIMARY KEY,
  tenant text NOT NULL REFERENCES tenants,
  scopes text[] NOT NULL CHECK (cardinality(scopes) > 0 AND scopes <@ ARRAY['ingest', 'read', 'admin']),
  secret_hash text NOT NULL CHECK (secret_hash ~ '^[0-9a-f]{64}$'),
  label text NOT NULL,
  created_at timestamptz NOT NULL,
  revoked_at timestamptz
);
CREATE INDEX ON api_keys (tenant);

CREATE TABLE meters (
  tenant text NOT NULL REFERENCES tenants,
  key text NOT NULL,
  definition jsonb NOT NULL,
  -- publishing: not yet in every shard's log; nothing may rely on it.
  state text NOT NULL CHECK (state IN ('publishing', 'active')),
  created_at timestamptz NOT NULL,
  PRIMARY KEY (tenant, key)
);

CREATE TABLE plans (
  tenant text NOT NULL REFERENCES tenants,
  key text NOT NULL,
  version integer NOT NULL CHECK (version > 0),
  definition jsonb NOT NULL,
  digest text NOT NULL,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (tenant, key, version)
);

CREATE TABLE customers (
  tenant text NOT NULL REFERENCES tenants,
  id text NOT NULL,
  name text NOT NULL,
  currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
  plan_key text NOT NULL,
  plan_version integer NOT NULL,
  -- Monthly periods are this instant plus n months.
  anchor timestamptz NOT NULL CHECK (date_trunc('hour', anchor, 'UTC') = anchor),
  created_at timestamptz NOT NULL,
  PRIMARY KEY (tenant, id),
  FOREIGN KEY (tenant, plan_key, plan_version) REFERENCES plans
);

-- A subject belongs to one customer of its tenant.
CREATE TABLE customer_subjects (
  tenant text NOT NULL,
  subject text NOT NULL,
  customer text NOT NULL,
  PRIMARY KEY (tenant, subject),
  FOREIGN KEY (tenant, customer) REFERENCES customers
);
CREATE INDEX ON customer_subjects (tenant, customer);

-- The API's answers by Idempotency-Key, and who changed what.
CREATE TABLE idempotency_keys (
  tenant text NOT NULL REFERENCES tenants,
  key text NOT NULL,
  input_hash text NOT NULL,
  status integer NOT NULL,
  body jsonb NOT NULL,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (tenant, key)
);
CREATE INDEX ON idempotency_keys (created_at);

CREATE TABLE audit_log (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant text NOT NULL,
  actor text NOT NULL,
  action text NOT NULL,
  object text NOT NULL,
  detail jsonb NOT NULL DEFAULT '{}',
  at timestamptz NOT NULL
);
CREATE INDEX ON audit_log (tenant, id);
