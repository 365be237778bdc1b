-- The journal: double entry, append-only, chained by hash. What the code promises the database says again:
-- a transaction sums to zero, nothing is updated or deleted, a balance is the sum of its postings.

CREATE TABLE journal_heads (
  tenant text PRIMARY KEY REFERENCES tenants,
  last_id bigint NOT NULL CHECK (last_id >= 0),
  last_hash bytea NOT NULL
);

-- All amounts of a transaction are in its one currency, so "sums to zero per currency" is "sums to zero".
CREATE TABLE transactions (
  tenant text NOT NULL REFERENCES tenants,
  -- 1, 2, 3 … within the tenant, without gaps: the place in the chain.
  id bigint NOT NULL CHECK (id > 0),
  customer text NOT NULL,
  currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
  kind text NOT NULL CHECK (kind IN
    ('usage', 'credit_burn', 'grant_issue', 'grant_expiry', 'invoice', 'invoice_sent', 'payment')),
  idempotency_key text NOT NULL,
  input_hash text NOT NULL,
  effective_at timestamptz NOT NULL,
  posted_at timestamptz NOT NULL,
  detail jsonb NOT NULL,
  previous_hash bytea NOT NULL CHECK (length(previous_hash) = 32),
  hash bytea NOT NULL CHECK (length(hash) = 32),
  PRIMARY KEY (tenant, id),
  UNIQUE (tenant, idempotency_key),
  FOREIGN KEY (tenant, customer) REFERENCES customers
);
CREATE INDEX ON transactions (tenant, customer, id);

CREATE TABLE postings (
  tenant text NOT NULL,
  transaction_id bigint NOT NULL,
  ordinal smallint NOT NULL CHECK (ordinal >= 0),
  account text NOT NULL CHECK (account IN
    ('accrued_usage', 'revenue', 'credit', 'credit_expense', 'invoice_pending', 'stripe_in_flight',
     'receivable', 'cash')),
  -- Minor units. Positive is a debit, negative a credit.
  amount numeric(38, 0) NOT NULL CHECK (amount <> 0),
  PRIMARY KEY (tenant, transaction_id, ordinal),
  FOREIGN KEY (tenant, transaction_id) REFERENCES transactions
);

-- The projection: what an account of a customer stands at.
CREATE TABLE balances (
  tenant text NOT NULL,
  customer text NOT NULL,
  currency text NOT NULL,
  account text NOT NULL,
  amount numeric(38, 0) NOT NULL,
  PRIMARY KEY (tenant, customer, currency, account)
);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER transactions_append_only BEFORE UPDATE OR DELETE ON transactions
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER transactions_no_truncate BEFORE TRUNCATE ON transactions
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER postings_append_only BEFORE UPDATE OR DELETE ON postings
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER postings_no_truncate BEFORE TRUNCATE ON postings
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON audit_log
  FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Checked at commit, when a transaction has all its postings: at least two, and a sum of zero. The row
-- trigger on postings catches a posting that is added to a transaction of earlier.
CREATE FUNCTION check_balanced() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  the_id bigint;
  total numeric;
  number_of integer;
BEGIN
  IF TG_TABLE_NAME = 'transactions' THEN the_id := NEW.id; ELSE the_id := NEW.transaction_id; END IF;
  SELECT coalesce(sum(amount), 0), count(*) INTO total, number_of
  FROM ledger.postings WHERE tenant = NEW.tenant AND transaction_id = the_id;
  IF total <> 0 OR number_of < 2 THEN
    RAISE EXCEPTION 'transaction % of % does not balance: % postings sum to %', the_id, NEW.tenant, number_of, total
      USING ERRCODE = 'check_violation';
  END IF;
  RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER transactions_balanced AFTER INSERT ON transactions
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_balanced();
CREATE CONSTRAINT TRIGGER postings_balanced AFTER INSERT ON postings
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_balanced();

-- Set-based: one statement for all postings of an insert, however many customers it is for.
CREATE FUNCTION project_balances() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO ledger.balances AS b (tenant, customer, currency, account, amount)
  SELECT t.tenant, t.customer, t.currency, p.account, sum(p.amount)
  FROM inserted p JOIN ledger.transactions t ON t.tenant = p.tenant AND t.id = p.transaction_id
  GROUP BY 1, 2, 3, 4
  ORDER BY 1, 2, 3, 4
  ON CONFLICT (tenant, customer, currency, account) DO UPDATE SET amount = b.amount + excluded.amount;
  RETURN NULL;
END $$;

CREATE TRIGGER postings_project AFTER INSERT ON postings
  REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION project_balances();
