-- Fires when a balance is not the sum of the postings of its account: the projection and the journal went apart.
-- The journal is the truth.
SELECT tenant, customer, currency, account, coalesce(b.amount, 0) AS balance, coalesce(e.amount, 0) AS entries
FROM ledger.balances b
FULL JOIN (
  SELECT t.tenant, t.customer, t.currency, p.account, sum(p.amount) AS amount
  FROM ledger.postings p
  JOIN ledger.transactions t ON t.tenant = p.tenant AND t.id = p.transaction_id
  GROUP BY t.tenant, t.customer, t.currency, p.account
) e USING (tenant, customer, currency, account)
WHERE coalesce(b.amount, 0) <> coalesce(e.amount, 0);
