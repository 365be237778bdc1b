// Backfills over HTTP: propose, look at the difference, commit, revert. ledger/backfill-steps.ts tells the rest.
import { Type, type Static } from 'typebox';
import { BACKFILL_LIMITS, backfillMistakes, type Backfill } from '../../contract/backfill.ts';
import { METER_LIMITS, versionOf } from '../../contract/meter.ts';
import { formatInstant, hourStart, parseInstant } from '../../contract/window.ts';
import { QueryError } from '../../runtime/clickhouse.ts';
import { appendAudit } from '../audit.ts';
import { readDayDifferences, readSubjectDifferences } from '../backfill-difference.ts';
import { readMoney } from '../backfill-money.ts';
import { advanceBackfill, type BackfillProgress } from '../backfill-steps.ts';
import {
  backfillById,
  holdBackfills,
  holderOf,
  insertBackfill,
  listBackfills,
  moveBackfill,
  type BackfillState,
  type StoredBackfill,
} from '../backfills.ts';
import { meterByKey, type StoredMeter } from '../meters.ts';
import { PublishFailed } from '../publish.ts';
import {
  BackfillBody,
  BackfillDifferenceSchema,
  backfillJson,
  BackfillSchema,
  dayJson,
  moneyJson,
  subjectJson,
  wholeJson,
} from './backfill-json.ts';
import { callerOf, type ApiContext, type App, type Caller } from './context.ts';
import { cutPage, decodeCursor, pageOf } from './cursor.ts';
import { limitProblem } from './limits.ts';
import { isProblem, mistakeOf, problem, validationProblem, type Answer } from './problems.ts';
import { IDEMPOTENCY_HEADERS, LIST_LIMIT_DEFAULT, listOf, object, PAGE_QUERY, responses } from './schema.ts';
import { give, write, type Effect } from './write.ts';

const tags = ['Meters'];
const meterParams = { key: Type.String({ maxLength: METER_LIMITS.keyLength }) };
const params = object({ ...meterParams, id: Type.String({ maxLength: BACKFILL_LIMITS.idLength }) });
const AWAY = ['usage_not_ready', 'usage_unavailable', 'log_unavailable'] as const;

interface Params {
  readonly key: string;
  readonly id: string;
}

export function backfillRoutes(app: App, context: ApiContext): void {
  app.post(
    '/v1/meters/:key/backfills',
    {
      config: { scope: 'admin' },
      schema: {
        operationId: 'proposeBackfill',
        summary: 'Propose a backfill of a meter',
        description:
          'Changes nothing yet. When it is `ready`, GET tells what it would change. The same proposal again, while it waits to be committed, is answered 200.',
        tags,
        headers: IDEMPOTENCY_HEADERS,
        params: object(meterParams),
        body: BackfillBody,
        response: responses(
          { 200: BackfillSchema, 201: BackfillSchema },
          ['meter_not_found', 'backfills_limit_reached', ...AWAY],
          { write: true },
        ),
      },
    },
    (request, reply) =>
      write(context, request, reply, {
        action: 'backfill.propose',
        elsewhere: true,
        effect: (_tx, caller, nowMs) => propose(context, caller, request.params.key, request.body, nowMs),
      }),
  );

  app.get(
    '/v1/meters/:key/backfills',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'listBackfills',
        summary: 'List the backfills of a meter, the newest first',
        tags,
        params: object(meterParams),
        querystring: object(PAGE_QUERY),
        response: responses({ 200: listOf(BackfillSchema, 'Backfills') }, [
          'meter_not_found',
          'cursor_invalid',
          ...AWAY,
        ]),
      },
    },
    async (request, reply) => {
      const { tenant } = callerOf(request);
      const { key } = request.params;
      const { limit = LIST_LIMIT_DEFAULT, cursor } = request.query;
      if ((await meterByKey(context.pg, tenant, key)) === null)
        return give(reply, problem('meter_not_found'));
      const all = await listBackfills(context.pg, tenant, key);
      // Newest first, by a text that falls as the time rises.
      const keyed = all.map((one) => ({ one, key: `${1e15 - one.createdAtMs} ${one.id}` }));
      const o = { scope: JSON.stringify(['backfills', tenant, key]), limit, cursor };
      const page = pageOf(keyed, (item) => item.key, o);
      if (page === null) return give(reply, problem('cursor_invalid'));
      const answer = await asking(context, async () => {
        const items: Static<typeof BackfillSchema>[] = [];
        for (const { one } of page.items) items.push(await shown(context, one));
        return { status: 200, body: { items, nextCursor: page.nextCursor } };
      });
      return give(reply, answer);
    },
  );

  app.get(
    '/v1/meters/:key/backfills/:id',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'getBackfill',
        summary: 'Get a backfill, and what it would change',
        tags,
        params,
        querystring: object(PAGE_QUERY),
        response: responses({ 200: BackfillDifferenceSchema }, [
          'backfill_not_found',
          'cursor_invalid',
          'usage_query_too_large',
          ...AWAY,
        ]),
      },
    },
    async (request, reply) => {
      const stored = await find(context, callerOf(request).tenant, request.params);
      if (stored === null) return give(reply, problem('backfill_not_found'));
      return give(reply, await asking(context, () => withDifference(context, stored, request.query)));
    },
  );

  for (const step of STEPS) {
    app.post(
      `/v1/meters/:key/backfills/:id/${step.verb}` as '/v1/meters/:key/backfills/:id/commit',
      {
        config: { scope: 'admin' },
        schema: {
          operationId: `${step.verb}Backfill`,
          summary: step.summary,
          description: step.description,
          tags,
          headers: IDEMPOTENCY_HEADERS,
          params,
          response: responses(
            { 200: BackfillSchema, 202: BackfillSchema },
            ['backfill_not_found', 'backfill_not_ready', 'backfill_state', 'backfill_overlaps', ...AWAY],
            { write: true },
          ),
        },
      },
      (request, reply) =>
        write(context, request, reply, {
          action: `backfill.${step.verb}`,
          elsewhere: true,
          effect: (_tx, caller, nowMs) => take(context, caller, request.params, step, nowMs),
        }),
    );
  }
}

interface Step {
  readonly verb: 'commit' | 'revert' | 'discard';
  readonly summary: string;
  readonly description: string;
  /** States that it is taken from. */
  readonly from: readonly BackfillState[];
  readonly to: BackfillState;
  /** States in which it was taken already. */
  readonly done: readonly BackfillState[];
}

const STEPS: readonly Step[] = [
  {
    verb: 'commit',
    summary: 'Commit a backfill',
    description:
      'From now on the hours count by the version, events that come later included. Answered 202 while the shards count them anew; GET tells when all have. Invoices that were issued stay: what changes in their periods is an adjustment on the next one.',
    from: ['ready'],
    to: 'committing',
    done: ['committing', 'committed'],
  },
  {
    verb: 'revert',
    summary: 'Revert a committed backfill',
    description:
      'The hours count again as if it had never been. What was reverted can be proposed again, as a new backfill.',
    from: ['committed'],
    to: 'reverting',
    done: ['reverting', 'reverted'],
  },
  {
    verb: 'discard',
    summary: 'Discard a proposed backfill',
    description: 'It can be committed no more. Nothing else changes.',
    from: ['proposed', 'ready'],
    to: 'discarded',
    done: ['discarded'],
  },
];

async function propose(
  context: ApiContext,
  caller: Caller,
  key: string,
  body: Static<typeof BackfillBody>,
  nowMs: number,
): Promise<Effect> {
  const { tenant } = caller;
  const meter = await meterByKey(context.pg, tenant, key);
  if (meter === null) return { answer: problem('meter_not_found'), changed: null };
  const id = `bf_${Buffer.from(context.randomBytes(12)).toString('hex')}`;
  const read = backfillFrom(meter, id, body, nowMs);
  if (!('id' in read)) return { answer: read, changed: null };
  const inserted = await context.pg.transaction(async (tx): Promise<Answer | StoredBackfill> => {
    await holdBackfills(tx, tenant, key);
    const before = await listBackfills(tx, tenant, key);
    const again = before.find(
      (one) => (one.state === 'proposed' || one.state === 'ready') && isSameProposal(one, read),
    );
    if (again !== undefined) return again;
    if (before.length >= BACKFILL_LIMITS.perMeterMax) return problem('backfills_limit_reached');
    await insertBackfill(tx, { tenant, backfill: read, nowMs });
    await appendAudit(tx, caller, 'backfill.propose', `meter/${key}/backfill/${id}`, nowMs);
    const stored = await backfillById(tx, { tenant, meter: key, id });
    if (stored === null) throw new Error(`backfill ${id} was inserted and is not there`);
    return stored;
  });
  if ('status' in inserted) return { answer: inserted, changed: null };
  const status = inserted.id === id ? 201 : 200;
  return { answer: await told(context, inserted, status, nowMs), changed: null };
}

function backfillFrom(
  meter: StoredMeter,
  id: string,
  body: Static<typeof BackfillBody>,
  nowMs: number,
): Backfill | Answer {
  const version = body.version ?? versionOf(meter);
  const [fromMs, toMs] = [parseInstant(body.from) ?? NaN, parseInstant(body.to) ?? NaN];
  const backfill: Backfill = { id, meter: meter.key, version, fromMs, toMs };
  const mistakes = backfillMistakes(backfill);
  const active = meter.state === 'active' ? meter.versions : meter.versions.slice(0, -1);
  if (!active.some((one) => versionOf(one) === version))
    mistakes.push('version: one that the meter has; list them with GET /v1/meters/{key}');
  if (toMs > hourStart(nowMs))
    mistakes.push(`to: not after ${formatInstant(hourStart(nowMs))}, the start of the present hour`);
  return mistakes.length === 0 ? backfill : validationProblem(mistakes.map(mistakeOf));
}

function isSameProposal(a: Backfill, b: Backfill): boolean {
  return a.version === b.version && a.fromMs === b.fromMs && a.toMs === b.toMs;
}

async function take(
  context: ApiContext,
  caller: Caller,
  { key, id }: Params,
  step: Step,
  nowMs: number,
): Promise<Effect> {
  const { tenant } = caller;
  const before = await find(context, tenant, { key, id });
  if (before === null) return { answer: problem('backfill_not_found'), changed: null };
  // It may have arrived since anybody looked.
  if (!step.from.includes(before.state) && !step.done.includes(before.state)) {
    const looked = await asking(context, async () => ({ status: 200, body: await shown(context, before) }));
    if (isProblem(looked)) return { answer: looked, changed: null };
  }
  const taken = await context.pg.transaction(async (tx): Promise<Answer | StoredBackfill> => {
    await holdBackfills(tx, tenant, key);
    const stored = await backfillById(tx, { tenant, meter: key, id });
    if (stored === null) return problem('backfill_not_found');
    if (step.done.includes(stored.state)) return stored;
    if (!step.from.includes(stored.state)) return refusal(stored.state, step);
    const holder = step.verb === 'commit' ? await holderOf(tx, stored) : null;
    if (holder !== null) {
      const { id: other, fromMs, toMs } = holder;
      const detail = `Backfill ${other} holds hours from ${formatInstant(fromMs)} to ${formatInstant(toMs)}: revert it first.`;
      return problem('backfill_overlaps', detail);
    }
    await moveBackfill(tx, stored, { from: stored.state, to: step.to, nowMs });
    await appendAudit(tx, caller, `backfill.${step.verb}`, `meter/${key}/backfill/${id}`, nowMs);
    return { ...stored, state: step.to, changedAtMs: nowMs, toldAtMs: null };
  });
  if ('status' in taken) return { answer: taken, changed: null };
  return { answer: await told(context, taken, 202, nowMs), changed: null };
}

function refusal(state: BackfillState, { verb }: Step): Answer {
  const isOnItsWay = state === 'proposed' || state === 'committing' || state === 'reverting';
  return isOnItsWay && verb !== 'discard'
    ? problem('backfill_not_ready')
    : problem('backfill_state', `It is ${state}: it cannot be ${PAST[verb]} any more.`);
}

const PAST = { commit: 'committed', revert: 'reverted', discard: 'discarded' } as const;

/** The answer to a step: with this status while shards are still at it, 200 when it is done; 201 stays. */
async function told(
  context: ApiContext,
  stored: StoredBackfill,
  status: number,
  nowMs: number,
): Promise<Answer> {
  return asking(context, async () => {
    const progress = await advanceBackfill(context, stored, nowMs);
    const isDone = progress.state !== 'committing' && progress.state !== 'reverting';
    return {
      status: status === 202 && isDone ? 200 : status,
      body: backfillJson(stored, progress, context.publisher.shards),
    };
  });
}

/** As it is now: a look takes it on, when it has arrived meanwhile. */
async function shown(context: ApiContext, stored: StoredBackfill): Promise<Static<typeof BackfillSchema>> {
  const progress = await advanceBackfill(context, stored, context.clock.now());
  return backfillJson(stored, progress, context.publisher.shards);
}

async function withDifference(
  context: ApiContext,
  stored: StoredBackfill,
  { limit = LIST_LIMIT_DEFAULT, cursor }: { limit?: number; cursor?: string },
): Promise<Answer> {
  const { tenant, meter: key, id } = stored;
  const progress: BackfillProgress = await advanceBackfill(context, stored, context.clock.now());
  const head = backfillJson(stored, progress, context.publisher.shards);
  if (progress.state !== 'ready') return { status: 200, body: { ...head, difference: null } };
  const meter = await meterByKey(context.pg, tenant, key);
  if (meter === null) return problem('meter_not_found');
  const scope = JSON.stringify(['backfill', tenant, id]);
  const after = cursor === undefined ? null : decodeCursor(scope, cursor, ['string', 'string']);
  if (cursor !== undefined && (after === null || !/^[0-9]{1,29}([.][0-9]{1,9})?$/.test(String(after[0]))))
    return problem('cursor_invalid');
  const asked = { backfill: stored, aggregation: meter.aggregation };
  const found = await readSubjectDifferences(context.ch, asked, {
    after: after === null ? null : { change: String(after[0]), subject: String(after[1]) },
    limit: limit + 1,
  });
  const { items, nextCursor } = cutPage(found.map(subjectJson), {
    scope,
    limit,
    keyOf: (one) => [one.change.replace('-', ''), one.subject],
  });
  const { whole, days } = await readDayDifferences(context.ch, asked);
  const money = after === null ? await readMoney(context.pg, context.ch, asked) : null;
  const difference = {
    whole: wholeJson(whole),
    days: after === null ? days.map(dayJson) : [],
    subjects: items,
    nextCursor,
    money: money === null ? null : moneyJson(money),
  };
  return { status: 200, body: { ...head, difference } };
}

function find(context: ApiContext, tenant: string, { key, id }: Params): Promise<StoredBackfill | null> {
  return backfillById(context.pg, { tenant, meter: key, id });
}

async function asking(context: ApiContext, ask: () => Promise<Answer>): Promise<Answer> {
  if (!context.usageReady()) return problem('usage_not_ready');
  try {
    return await ask();
  } catch (error) {
    if (error instanceof PublishFailed) {
      context.log.warn({ error }, 'a backfill could not be told to the logs yet');
      return problem('log_unavailable');
    }
    if (!(error instanceof QueryError)) throw error;
    const limit = limitProblem(error, context.apiLimits, 'a backfill of a shorter range');
    if (limit !== null) return limit;
    context.log.warn({ error }, 'a backfill could not be looked at');
    return problem('usage_unavailable');
  }
}
