// Who did what to which object, written in the transaction of what was done: there is no change without its line.
import type { Db } from '../runtime/postgres.ts';

/** `keyId` is the API key that asked for it. */
export async function appendAudit(
  tx: Db,
  caller: { readonly tenant: string; readonly keyId: string },
  action: string,
  object: string,
  nowMs: number,
): Promise<void> {
  await tx.query(
    `INSERT INTO ledger.audit_log (tenant, actor, action, object, at)
     VALUES ($1, $2, $3, $4, to_timestamp($5::numeric / 1000))`,
    [caller.tenant, caller.keyId, action, object, nowMs],
  );
}
