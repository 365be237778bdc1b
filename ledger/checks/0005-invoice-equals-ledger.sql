-- Fires when an invoice is not what the ledger says, line by line: its lines do not sum to its total, its booking is
-- not its total, or what usage_posted calls invoiced is not what the lines of all invoices took over.
WITH lines AS (
  SELECT tenant, invoice, sum(amount) AS amount FROM ledger.invoice_lines GROUP BY tenant, invoice
), booked AS (
  SELECT t.tenant, substr(t.idempotency_key, length('invoice/') + 1) AS invoice, sum(p.amount) AS amount
  FROM ledger.transactions t
  JOIN ledger.postings p ON p.tenant = t.tenant AND p.transaction_id = t.id
  WHERE t.kind = 'invoice' AND p.account = 'invoice_pending'
  GROUP BY 1, 2
), taken AS (
  SELECT l.tenant, i.customer, l.period_start, l.price_key, sum(l.amount) AS amount, sum(l.quantity) AS quantity
  FROM ledger.invoice_lines l JOIN ledger.invoices i ON i.tenant = l.tenant AND i.id = l.invoice
  WHERE l.price_key IS NOT NULL
  GROUP BY l.tenant, i.customer, l.period_start, l.price_key
)
SELECT i.tenant, i.id AS invoice, 'lines' AS what, i.total AS expected, coalesce(l.amount, 0) AS found
FROM ledger.invoices i LEFT JOIN lines l ON l.tenant = i.tenant AND l.invoice = i.id
WHERE i.total <> coalesce(l.amount, 0)
UNION ALL
SELECT i.tenant, i.id, 'booking', i.total, coalesce(b.amount, 0)
FROM ledger.invoices i LEFT JOIN booked b ON b.tenant = i.tenant AND b.invoice = i.id
WHERE i.total <> coalesce(b.amount, 0)
UNION ALL
SELECT u.tenant, u.customer, 'invoiced ' || u.price_key || ' of ' || u.period_start, u.invoiced_amount,
  coalesce(t.amount, 0)
FROM ledger.usage_posted u
LEFT JOIN taken t ON t.tenant = u.tenant AND t.customer = u.customer AND t.period_start = u.period_start
  AND t.price_key = u.price_key
WHERE u.invoiced_amount <> coalesce(t.amount, 0) OR u.invoiced_quantity <> coalesce(t.quantity, 0);
