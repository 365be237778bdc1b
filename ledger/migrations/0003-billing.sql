-- What was posted for which period, credit, invoices, and what other processes are to be told.

-- How far the ledger has read the rollups of each shard (packed position, an unsigned 64-bit number).
CREATE TABLE usage_cursors (
  shard integer PRIMARY KEY,
  position numeric(20, 0) NOT NULL
);

-- Absolute: the total of a price in a period as it was last rated, and what that came to.
CREATE TABLE usage_posted (
  tenant text NOT NULL,
  customer text NOT NULL,
  price_key text NOT NULL,
  period_start timestamptz NOT NULL,
  period_end timestamptz NOT NULL,
  meter text NOT NULL,
  plan_key text NOT NULL,
  plan_version integer NOT NULL,
  quantity numeric(38, 9) NOT NULL,
  amount numeric(38, 0) NOT NULL,
  -- The part of both that an invoice has taken over.
  invoiced_quantity numeric(38, 9) NOT NULL DEFAULT 0,
  invoiced_amount numeric(38, 0) NOT NULL DEFAULT 0,
  revision bigint NOT NULL DEFAULT 1,
  updated_at timestamptz NOT NULL,
  PRIMARY KEY (tenant, customer, period_start, price_key),
  FOREIGN KEY (tenant, customer) REFERENCES customers
);

-- Has no rows: posting usage and closing periods take turns by locking it.
CREATE TABLE posting_turn (nothing boolean);

-- Usage of subjects that no customer has (until infinity), or from before their customer's anchor (until it):
-- absolute, kept, not billed.
CREATE TABLE unassigned_usage (
  tenant text NOT NULL,
  subject text NOT NULL,
  meter text NOT NULL,
  until timestamptz NOT NULL,
  quantity numeric(38, 9) NOT NULL,
  noted_at timestamptz NOT NULL,
  PRIMARY KEY (tenant, subject, meter)
);

-- Customers whose usage must be read from the anchor on, because they are new, have new subjects or new credit.
-- The revision keeps a request that comes while an earlier one is worked on.
CREATE TABLE customers_to_read (
  tenant text NOT NULL,
  customer text NOT NULL,
  revision bigint NOT NULL DEFAULT 1,
  PRIMARY KEY (tenant, customer),
  FOREIGN KEY (tenant, customer) REFERENCES customers
);

CREATE TABLE grants (
  tenant text NOT NULL,
  id text NOT NULL,
  customer text NOT NULL,
  currency text NOT NULL,
  kind text NOT NULL CHECK (kind = 'promotional'),
  amount numeric(38, 0) NOT NULL CHECK (amount > 0),
  used numeric(38, 0) NOT NULL DEFAULT 0,
  expired numeric(38, 0) NOT NULL DEFAULT 0,
  priority integer NOT NULL,
  reason text NOT NULL,
  actor text NOT NULL,
  expires_at timestamptz,
  created_at timestamptz NOT NULL,
  -- GRANT-CONSERVATION: granted = used + expired + remaining, and nothing remaining is negative.
  CHECK (used >= 0 AND expired >= 0 AND used + expired <= amount),
  PRIMARY KEY (tenant, id),
  FOREIGN KEY (tenant, customer) REFERENCES customers
);
CREATE INDEX ON grants (tenant, customer);

-- How much credit has covered of a period's charges, and how much of that an invoice has shown.
CREATE TABLE credit_applied (
  tenant text NOT NULL,
  customer text NOT NULL,
  period_start timestamptz NOT NULL,
  amount numeric(38, 0) NOT NULL,
  invoiced_amount numeric(38, 0) NOT NULL DEFAULT 0,
  PRIMARY KEY (tenant, customer, period_start),
  FOREIGN KEY (tenant, customer) REFERENCES customers
);

-- Which grant paid for how much, in order; a negative amount gave it back.
CREATE TABLE grant_uses (
  tenant text NOT NULL,
  transaction_id bigint NOT NULL,
  grant_id text NOT NULL,
  period_start timestamptz NOT NULL,
  amount numeric(38, 0) NOT NULL CHECK (amount <> 0),
  PRIMARY KEY (tenant, transaction_id, grant_id, period_start),
  FOREIGN KEY (tenant, grant_id) REFERENCES grants,
  FOREIGN KEY (tenant, transaction_id) REFERENCES transactions
);
CREATE INDEX ON grant_uses (tenant, grant_id);

CREATE TABLE invoices (
  tenant text NOT NULL,
  id text NOT NULL,
  number text NOT NULL,
  customer text NOT NULL,
  currency text NOT NULL,
  period_start timestamptz NOT NULL,
  period_end timestamptz NOT NULL CHECK (period_end > period_start),
  total numeric(38, 0) NOT NULL,
  -- The position of each shard up to which raw events were counted, as decimal text by shard.
  cut jsonb NOT NULL,
  status text NOT NULL CHECK (status IN ('issued', 'sent', 'paid')),
  issued_at timestamptz NOT NULL,
  stripe_invoice_id text,
  stripe_total numeric(38, 0),
  sent_at timestamptz,
  paid_amount numeric(38, 0) NOT NULL DEFAULT 0,
  PRIMARY KEY (tenant, id),
  UNIQUE (tenant, number),
  -- CLOSED-IS-CLOSED: a period of a customer is invoiced once.
  UNIQUE (tenant, customer, period_start),
  FOREIGN KEY (tenant, customer) REFERENCES customers
);

CREATE TABLE invoice_lines (
  tenant text NOT NULL,
  invoice text NOT NULL,
  id text NOT NULL,
  ordinal integer NOT NULL,
  kind text NOT NULL CHECK (kind IN ('usage', 'adjustment', 'credit')),
  price_key text,
  meter text,
  plan_key text,
  plan_version integer,
  description text NOT NULL,
  period_start timestamptz NOT NULL,
  period_end timestamptz NOT NULL,
  quantity numeric(38, 9) NOT NULL,
  included numeric(38, 9) NOT NULL,
  amount numeric(38, 0) NOT NULL,
  tiers jsonb NOT NULL,
  PRIMARY KEY (tenant, invoice, id),
  FOREIGN KEY (tenant, invoice) REFERENCES invoices
);

CREATE TRIGGER invoice_lines_append_only BEFORE UPDATE OR DELETE ON invoice_lines
  FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- An issued invoice only ever gains what Stripe and the customer did with it.
CREATE FUNCTION refuse_invoice_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE'
    OR (OLD.number, OLD.customer, OLD.currency, OLD.period_start, OLD.period_end, OLD.total, OLD.cut, OLD.issued_at)
    IS DISTINCT FROM
    (NEW.number, NEW.customer, NEW.currency, NEW.period_start, NEW.period_end, NEW.total, NEW.cut, NEW.issued_at)
  THEN
    RAISE EXCEPTION 'an issued invoice does not change' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER invoices_closed BEFORE UPDATE OR DELETE ON invoices
  FOR EACH ROW EXECUTE FUNCTION refuse_invoice_change();

CREATE TABLE invoice_numbers (
  tenant text PRIMARY KEY REFERENCES tenants,
  last bigint NOT NULL
);

CREATE TABLE outbox (
  -- Stable: everything made elsewhere for it carries it.
  id text PRIMARY KEY,
  kind text NOT NULL CHECK (kind = 'invoice.issued'),
  tenant text NOT NULL,
  customer text NOT NULL,
  invoice text NOT NULL,
  attempts integer NOT NULL DEFAULT 0,
  next_attempt_at timestamptz NOT NULL,
  last_error text,
  created_at timestamptz NOT NULL,
  done_at timestamptz,
  FOREIGN KEY (tenant, invoice) REFERENCES invoices
);
CREATE INDEX ON outbox (next_attempt_at) WHERE done_at IS NULL;
