/**
 * Every write of the API goes through here: once per Idempotency-Key, and on record.
 *
 * Writes take turns (posting-turn.ts), so that none fails because of another: each is some milliseconds.
 *
 * 1. Lock. The key's advisory lock is taken in the transaction; whoever finds it taken is told that the
 *    request is in progress. A process that dies lets go of it with its connection.
 * 2. Look. An answer stored under the key is given again if it was for the same request (method, path and
 *    body, hashed), and refused otherwise.
 * 3. Effect, in the same transaction. A refusal takes back what it may have written so far.
 * 4. Record: the audit line and the answer, in the same transaction. A crash before the commit leaves no
 *    trace of any of it; one after it is answered from the record.
 *
 * An effect that is not of one transaction (`elsewhere`: it publishes, or commits in steps) runs in the place
 * of step 3 on connections of its own, while this transaction holds the lock. Such effects are idempotent by
 * themselves: after a crash between the effect and step 4 the same request finds them done.
 *
 * Only an answer that would be the same again is kept: a transient problem is not.
 */
import { createHash } from 'node:crypto';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Db } from '../../runtime/postgres.ts';
import { appendAudit } from '../audit.ts';
import { takeWritingTurn } from '../posting-turn.ts';
import { callerOf, type ApiContext, type Caller } from './context.ts';
import { isProblem, problem, PROBLEMS, type Answer } from './problems.ts';

/** What an effect did: its answer, and the object it changed, for the audit log; null when there is nothing to record. */
export interface Effect {
  readonly answer: Answer;
  readonly changed: string | null;
}

export interface Write {
  /** As in the audit log: "meter.create". */
  readonly action: string;
  readonly effect: (tx: Db, caller: Caller, nowMs: number) => Promise<Effect>;
  /** The effect commits on connections of its own, and writes its audit line there. */
  readonly elsewhere?: boolean;
  /** What of the answer's body is kept for a repetition: a secret is told once and not kept. */
  readonly keep?: (body: unknown) => unknown;
}

export async function write(
  context: ApiContext,
  request: FastifyRequest,
  reply: FastifyReply,
  one: Write,
): Promise<FastifyReply> {
  const caller = callerOf(request);
  const key = request.headers['idempotency-key'];
  const nowMs = context.clock.now();
  const run = (tx: Db) =>
    typeof key === 'string'
      ? once(tx, { caller, key, inputHash: inputHash(request), nowMs }, one)
      : effectOf(tx, caller, nowMs, one);
  const answer =
    one.elsewhere === true
      ? await context.locks.transaction(run, { isolation: 'read committed' })
      : await context.pg.transaction(async (tx) => {
          await takeWritingTurn(tx);
          return run(tx);
        });
  return give(reply, answer);
}

export function give(reply: FastifyReply, answer: Answer): FastifyReply {
  return reply
    .code(answer.status)
    .headers(answer.headers ?? {})
    .send(isProblem(answer) ? { ...answer.body, instance: reply.request.id } : answer.body);
}

interface Once {
  readonly caller: Caller;
  readonly key: string;
  readonly inputHash: string;
  readonly nowMs: number;
}

interface Stored {
  readonly input_hash: string;
  readonly status: number;
  readonly body: unknown;
}

async function once(tx: Db, o: Once, one: Write): Promise<Answer> {
  const { caller, key, nowMs } = o;
  const [lock] = await tx.query<{ taken: boolean }>(
    'SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0)) AS taken',
    [`idempotency ${caller.tenant} ${key}`],
  );
  if (lock?.taken !== true) return problem('idempotency_in_progress');
  const [stored] = await tx.query<Stored>(SELECT_ANSWER, [caller.tenant, key]);
  if (stored !== undefined) {
    if (stored.input_hash !== o.inputHash) return problem('idempotency_key_reused');
    const type = stored.status >= 400 ? { 'content-type': 'application/problem+json' } : {};
    return {
      status: stored.status,
      body: stored.body ?? undefined,
      headers: { ...type, 'idempotent-replayed': 'true' },
    };
  }
  const answer = await effectOf(tx, caller, nowMs, one);
  if (isProblem(answer) && PROBLEMS[answer.body.code].transient) return answer;
  const kept = one.keep === undefined || isProblem(answer) ? answer.body : one.keep(answer.body);
  // A conflict is impossible under the lock, unless this snapshot is older than the lock: then Postgres
  // fails the statement (40001) and the transaction runs again and finds the answer.
  await tx.query(INSERT_ANSWER, [
    caller.tenant,
    key,
    o.inputHash,
    answer.status,
    JSON.stringify(kept ?? null),
    nowMs,
  ]);
  return answer;
}

async function effectOf(tx: Db, caller: Caller, nowMs: number, one: Write): Promise<Answer> {
  await tx.query('SAVEPOINT effect');
  const { answer, changed } = await one.effect(tx, caller, nowMs);
  if (isProblem(answer)) await tx.query('ROLLBACK TO SAVEPOINT effect');
  else if (changed !== null) await appendAudit(tx, caller, one.action, changed, nowMs);
  return answer;
}

/** Method, path and body; the order of the body's keys does not matter. */
function inputHash(request: FastifyRequest): string {
  const input = [request.method, request.url, canonical(request.body ?? null)];
  return createHash('sha256').update(JSON.stringify(input)).digest('hex');
}

export function canonical(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(canonical);
  if (typeof value !== 'object' || value === null) return value;
  // Pairs, since integer-like keys of an object would come in an order of their own.
  return {
    pairs: Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, one]) => [key, canonical(one)]),
  };
}

/** Forgets the answers that were given before; returns how many. */
export async function forgetAnswers(db: Db, beforeMs: number): Promise<number> {
  const rows = await db.query(DELETE_ANSWERS, [beforeMs]);
  return rows.length;
}

const SELECT_ANSWER = `
  SELECT input_hash, status, body FROM ledger.idempotency_keys WHERE tenant = $1 AND key = $2`;

const INSERT_ANSWER = `
  INSERT INTO ledger.idempotency_keys (tenant, key, input_hash, status, body, created_at)
  VALUES ($1, $2, $3, $4, $5::jsonb, to_timestamp($6::numeric / 1000))
  ON CONFLICT (tenant, key) DO NOTHING`;

const DELETE_ANSWERS = `
  DELETE FROM ledger.idempotency_keys
  WHERE ctid IN (
    SELECT ctid FROM ledger.idempotency_keys WHERE created_at < to_timestamp($1::numeric / 1000) LIMIT 10000)
  RETURNING 1`;
