-- What billing-sync knows of Stripe. It owns this schema; money lives in the ledger's.

-- Which database this is. Invoices are numbered from 1 in every database, and several databases (a staging
-- system, one that was set up anew) may share a Stripe account: the installation is part of every idempotency
-- key and of the metadata that is searched, so that none takes another one's invoice for its own. It comes
-- back with a backup.
CREATE TABLE billing.installation (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  id uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO billing.installation DEFAULT VALUES;

-- One Stripe customer for a customer of a tenant. The row is written before Stripe is asked: the intent, with the
-- parameters and the idempotency key that every attempt repeats. `generation` is part of that key; it rises only
-- after Stripe was searched and nothing was found under the keys before.
CREATE TABLE billing.stripe_customers (
  tenant text NOT NULL,
  customer text NOT NULL,
  name text NOT NULL,
  idempotency_base text NOT NULL,
  generation integer NOT NULL DEFAULT 1 CHECK (generation >= 1),
  generation_at timestamptz NOT NULL,
  key_spent boolean NOT NULL DEFAULT false,
  -- Nothing of this customer can be in Stripe before this instant: a search begins here.
  search_since timestamptz NOT NULL,
  stripe_customer text UNIQUE,
  PRIMARY KEY (tenant, customer)
);

-- One Stripe invoice for an invoice of the ledger, from the intent to the read-back.
CREATE TABLE billing.stripe_invoices (
  tenant text NOT NULL,
  invoice text NOT NULL,
  customer text NOT NULL,
  currency text NOT NULL,
  outbox_key text NOT NULL UNIQUE,
  generation integer NOT NULL DEFAULT 1 CHECK (generation >= 1),
  generation_at timestamptz NOT NULL,
  key_spent boolean NOT NULL DEFAULT false,
  search_since timestamptz NOT NULL,
  stripe_invoice text UNIQUE,
  state text NOT NULL DEFAULT 'pushing' CHECK (state IN ('pushing', 'refused', 'sent')),
  -- As Stripe said it after finalization, in minor units.
  stripe_total numeric(38, 0),
  error text,
  sent_at timestamptz,
  checked_at timestamptz,
  next_check_at timestamptz,
  PRIMARY KEY (tenant, invoice),
  CHECK (state <> 'sent' OR (stripe_invoice IS NOT NULL AND stripe_total IS NOT NULL AND sent_at IS NOT NULL))
);
CREATE INDEX stripe_invoices_refused ON billing.stripe_invoices (tenant) WHERE state = 'refused';
CREATE INDEX stripe_invoices_next_check ON billing.stripe_invoices (next_check_at) WHERE state = 'sent';

-- Which Stripe invoice item a line of the ledger became.
CREATE TABLE billing.stripe_lines (
  tenant text NOT NULL,
  invoice text NOT NULL,
  line text NOT NULL,
  stripe_item text NOT NULL UNIQUE,
  amount numeric(38, 0) NOT NULL,
  PRIMARY KEY (tenant, invoice, line),
  FOREIGN KEY (tenant, invoice) REFERENCES billing.stripe_invoices (tenant, invoice)
);

-- Webhook events by Stripe's id, as received. The payload is text and not jsonb: it is evidence, and jsonb
-- refuses what JSON allows (an escaped NUL).
CREATE TABLE billing.inbox (
  event text PRIMARY KEY,
  type text NOT NULL,
  created_at timestamptz NOT NULL,
  received_at timestamptz NOT NULL,
  payload text NOT NULL,
  state text NOT NULL DEFAULT 'received' CHECK (state IN ('received', 'waiting', 'applied', 'ignored')),
  attempts integer NOT NULL DEFAULT 0,
  next_attempt_at timestamptz NOT NULL,
  detail text,
  processed_at timestamptz
);
CREATE INDEX inbox_open ON billing.inbox (next_attempt_at) WHERE state IN ('received', 'waiting');

-- Where Stripe and the ledger differ. A row is open until a later comparison finds it gone.
CREATE TABLE billing.discrepancies (
  tenant text NOT NULL,
  -- The ledger's invoice; for a payment of an invoice nobody here knows, Stripe's.
  invoice text NOT NULL,
  kind text NOT NULL,
  -- The line concerned, or '' for the invoice as a whole.
  line text NOT NULL,
  ledger_amount numeric(38, 0) NOT NULL,
  stripe_amount numeric(38, 0) NOT NULL,
  drift numeric(38, 0) NOT NULL CHECK (drift >= 0),
  detail text NOT NULL,
  first_seen_at timestamptz NOT NULL,
  last_seen_at timestamptz NOT NULL,
  resolved_at timestamptz,
  PRIMARY KEY (tenant, invoice, kind, line)
);
CREATE INDEX discrepancies_open ON billing.discrepancies (tenant) WHERE resolved_at IS NULL;
