-- Fires when a transaction of the journal does not sum to zero in its currency, or has fewer than two postings:
-- somebody wrote with the triggers switched off, or a restore lost rows.
SELECT t.tenant, t.id AS transaction_id, t.currency, count(p.amount) AS postings, coalesce(sum(p.amount), 0) AS difference
FROM ledger.transactions t
LEFT JOIN ledger.postings p ON p.tenant = t.tenant AND p.transaction_id = t.id
GROUP BY t.tenant, t.id, t.currency
HAVING coalesce(sum(p.amount), 0) <> 0 OR count(p.amount) < 2;
