-- What the database says again about the journal, said once a statement instead of once a row. Of a transaction with two
-- postings seven triggers ran by row, most of them a query of their own; now it is two.
--
-- The postings of a transaction come in one statement, the first of them (ordinal 0) included, and balance by
-- themselves. So nothing can be added later, where the primary key refuses a second ordinal 0: before, a pair of postings
-- that sums to zero could be, to a transaction whose hash has other ones. That a transaction has postings at all is still
-- checked at commit (transactions_balanced).
CREATE OR REPLACE FUNCTION project_balances() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  wrong record;
BEGIN
  SELECT p.tenant, p.transaction_id, p.total, p.number_of, p.first_ordinal, t.id IS NULL AS stray INTO wrong
  FROM (
    SELECT tenant, transaction_id, sum(amount) AS total, count(*) AS number_of, min(ordinal) AS first_ordinal
    FROM inserted GROUP BY tenant, transaction_id
  ) p
  LEFT JOIN ledger.transactions t ON t.tenant = p.tenant AND t.id = p.transaction_id
  WHERE t.id IS NULL OR p.total <> 0 OR p.number_of < 2 OR p.first_ordinal <> 0
  LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'postings of transaction % of % are refused: % of them, from ordinal % on, sum to % %',
      wrong.transaction_id, wrong.tenant, wrong.number_of, wrong.first_ordinal, wrong.total,
      CASE WHEN wrong.stray THEN 'and there is no such transaction' ELSE '' END
      USING ERRCODE = 'check_violation';
  END IF;
  INSERT INTO ledger.balances AS b (tenant, customer, currency, account, amount)
  SELECT t.tenant, t.customer, t.currency, p.account, sum(p.amount)
  FROM inserted p JOIN ledger.transactions t ON t.tenant = p.tenant AND t.id = p.transaction_id
  GROUP BY 1, 2, 3, 4
  ORDER BY 1, 2, 3, 4
  ON CONFLICT (tenant, customer, currency, account) DO UPDATE SET amount = b.amount + excluded.amount;
  RETURN NULL;
END $$;

DROP TRIGGER postings_balanced ON postings;
-- Said above.
ALTER TABLE postings DROP CONSTRAINT postings_tenant_transaction_id_fkey;
-- A customer has a tenant already.
ALTER TABLE transactions DROP CONSTRAINT transactions_tenant_fkey;

-- Rows that every pass writes anew leave room for their next version on the same page, so that no index is touched.
ALTER TABLE usage_posted SET (fillfactor = 50);
ALTER TABLE balances SET (fillfactor = 50);
