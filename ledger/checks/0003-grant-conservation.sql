-- Fires when granted = used + expired + remaining does not hold: the uses of a grant do not add up to what it says
-- is used, or what a customer's grants have left is not what the credit account owes.
WITH uses AS (
  SELECT tenant, grant_id, sum(amount) AS used FROM ledger.grant_uses GROUP BY tenant, grant_id
), per_customer AS (
  SELECT tenant, customer, currency, sum(amount - used - expired) AS remaining
  FROM ledger.grants GROUP BY tenant, customer, currency
), owed AS (
  SELECT tenant, customer, currency, -amount AS credit FROM ledger.balances WHERE account = 'credit'
)
SELECT g.tenant, g.customer, 'grant ' || g.id AS what, g.used AS expected, coalesce(u.used, 0) AS found
FROM ledger.grants g
LEFT JOIN uses u ON u.tenant = g.tenant AND u.grant_id = g.id
WHERE g.used <> coalesce(u.used, 0) OR g.used < 0 OR g.expired < 0 OR g.used + g.expired > g.amount
UNION ALL
SELECT tenant, customer, 'credit account', coalesce(remaining, 0), coalesce(credit, 0)
FROM per_customer FULL JOIN owed USING (tenant, customer, currency)
WHERE coalesce(remaining, 0) <> coalesce(credit, 0);
