-- Fires when a clearing account holds something that nothing open explains: usage that is posted, not covered by
-- credit and on no invoice; invoices that Stripe does not have; amounts handed over and not confirmed; receivables
-- of sent invoices that are not paid.
WITH posted AS (
  SELECT tenant, customer, sum(amount) AS amount FROM ledger.usage_posted GROUP BY tenant, customer
), used AS (
  SELECT tenant, customer, sum(used) AS amount FROM ledger.grants GROUP BY tenant, customer
), invoiced AS (
  SELECT i.tenant, i.customer, sum(i.total) AS total,
    sum(i.total) FILTER (WHERE t.id IS NULL) AS pending,
    sum(i.total) FILTER (WHERE t.id IS NOT NULL) AS sent,
    sum(i.paid_amount) AS paid
  FROM ledger.invoices i
  LEFT JOIN ledger.transactions t ON t.tenant = i.tenant AND t.idempotency_key = 'invoice/' || i.id || '/sent'
  GROUP BY i.tenant, i.customer
), expected AS (
  SELECT c.tenant, c.id AS customer, a.account, CASE a.account
    WHEN 'accrued_usage' THEN coalesce(posted.amount, 0) - coalesce(used.amount, 0) - coalesce(i.total, 0)
    WHEN 'invoice_pending' THEN coalesce(i.pending, 0)
    WHEN 'stripe_in_flight' THEN 0
    WHEN 'receivable' THEN coalesce(i.sent, 0) - coalesce(i.paid, 0)
    WHEN 'cash' THEN coalesce(i.paid, 0)
  END AS amount
  FROM ledger.customers c
  CROSS JOIN (VALUES ('accrued_usage'), ('invoice_pending'), ('stripe_in_flight'), ('receivable'), ('cash')) a (account)
  LEFT JOIN posted ON posted.tenant = c.tenant AND posted.customer = c.id
  LEFT JOIN used ON used.tenant = c.tenant AND used.customer = c.id
  LEFT JOIN invoiced i ON i.tenant = c.tenant AND i.customer = c.id
)
SELECT e.tenant, e.customer, e.account, e.amount AS expected, coalesce(b.amount, 0) AS found
FROM expected e
LEFT JOIN (
  SELECT tenant, customer, account, sum(amount) AS amount FROM ledger.balances GROUP BY tenant, customer, account
) b ON b.tenant = e.tenant AND b.customer = e.customer AND b.account = e.account
WHERE e.amount <> coalesce(b.amount, 0);
