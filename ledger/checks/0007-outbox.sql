-- Fires when an invoice has no outbox entry or more than one, so that Stripe would never hear of it or twice, and
-- when an entry is done although its invoice was not recorded as sent (or as differing).
SELECT i.tenant, i.id AS invoice, count(o.id) AS entries, count(o.done_at) AS done, i.stripe_invoice_id
FROM ledger.invoices i
LEFT JOIN ledger.outbox o ON o.tenant = i.tenant AND o.invoice = i.id
GROUP BY i.tenant, i.id, i.stripe_invoice_id
HAVING count(o.id) <> 1 OR (count(o.done_at) > 0 AND i.stripe_invoice_id IS NULL);
