-- Fires when the usage that is recorded as posted is not what the journal earned with it: usage_posted and the
-- revenue account are written in one transaction and must never differ.
WITH posted AS (
  SELECT u.tenant, u.customer, c.currency, sum(u.amount) AS amount
  FROM ledger.usage_posted u JOIN ledger.customers c ON c.tenant = u.tenant AND c.id = u.customer
  GROUP BY u.tenant, u.customer, c.currency
), earned AS (
  SELECT t.tenant, t.customer, t.currency, -sum(p.amount) AS amount
  FROM ledger.postings p
  JOIN ledger.transactions t ON t.tenant = p.tenant AND t.id = p.transaction_id
  WHERE p.account = 'revenue'
  GROUP BY t.tenant, t.customer, t.currency
)
SELECT tenant, customer, currency, coalesce(posted.amount, 0) AS posted, coalesce(earned.amount, 0) AS earned
FROM posted FULL JOIN earned USING (tenant, customer, currency)
WHERE coalesce(posted.amount, 0) <> coalesce(earned.amount, 0);
