import { Type, type Static } from 'typebox';
import { effectiveFromOf, METER_LIMITS, sameMeter, versionOf, type Meter } from '../../contract/meter.ts';
import { formatInstant } from '../../contract/window.ts';
import { publishMeter } from '../meter-versions.ts';
import {
  insertMeter,
  insertMeterVersion,
  listMeters,
  meterByKey,
  nextVersionNumber,
  type StoredMeter,
} from '../meters.ts';
import { PublishFailed } from '../publish.ts';
import { appendAudit } from '../audit.ts';
import { callerOf, type ApiContext, type App, type Caller } from './context.ts';
import { pageOf } from './cursor.ts';
import { MeterBody, meterFrom, meterJson, MeterSchema, MeterVersionBody, versionFrom } from './meter-json.ts';
import { mistakeOf, problem, validationProblem } from './problems.ts';
import { IDEMPOTENCY_HEADERS, LIST_LIMIT_DEFAULT, listOf, object, PAGE_QUERY, responses } from './schema.ts';
import { give, write, type Effect } from './write.ts';

const tags = ['Meters'];

export function meterRoutes(app: App, context: ApiContext): void {
  app.post(
    '/v1/meters',
    {
      config: { scope: 'admin' },
      schema: {
        operationId: 'createMeter',
        summary: 'Create a meter',
        description:
          'Answers once the meter stands in the log of every shard: events sent after the answer are counted by it, events sent before are not. What it says does not change afterwards but by a new version; the same definition again is answered 200.',
        tags,
        headers: IDEMPOTENCY_HEADERS,
        body: MeterBody,
        response: responses(
          { 200: MeterSchema, 201: MeterSchema },
          ['meter_conflict', 'meters_limit_reached', 'log_unavailable'],
          {
            write: true,
          },
        ),
      },
    },
    (request, reply) => {
      const { meter, mistakes } = meterFrom(request.body);
      if (mistakes.length > 0) return give(reply, validationProblem(mistakes));
      return write(context, request, reply, {
        action: 'meter.create',
        elsewhere: true,
        effect: (_tx, caller, nowMs) => createMeter(context, caller, meter, nowMs),
      });
    },
  );

  app.post(
    '/v1/meters/:key/versions',
    {
      config: { scope: 'admin' },
      schema: {
        operationId: 'createMeterVersion',
        summary: 'Create a new version of a meter',
        description:
          'The version holds for events whose hour is at or after `effectiveFrom`. What the body does not name stays as it is; `eventType` and `aggregation` stay, and `groupBy` can only grow at its end. The newest version again is answered 200.',
        tags,
        headers: IDEMPOTENCY_HEADERS,
        params: object({ key: Type.String({ maxLength: METER_LIMITS.keyLength }) }),
        body: MeterVersionBody,
        response: responses({ 200: MeterSchema, 201: MeterSchema }, ['meter_not_found', 'log_unavailable'], {
          write: true,
        }),
      },
    },
    (request, reply) =>
      write(context, request, reply, {
        action: 'meter.version',
        elsewhere: true,
        effect: (_tx, caller, nowMs) =>
          createVersion(context, caller, request.params.key, request.body, nowMs),
      }),
  );

  app.get(
    '/v1/meters',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'listMeters',
        summary: 'List the meters',
        tags,
        querystring: object(PAGE_QUERY),
        response: responses({ 200: listOf(MeterSchema, 'Meters by key') }, ['cursor_invalid']),
      },
    },
    async (request, reply) => {
      const { tenant } = callerOf(request);
      const { limit = LIST_LIMIT_DEFAULT, cursor } = request.query;
      const all = (await listMeters(context.pg, tenant)).map(meterJson);
      const page = pageOf(all, (meter) => meter.key, { scope: `meters ${tenant}`, limit, cursor });
      return give(reply, page === null ? problem('cursor_invalid') : { status: 200, body: page });
    },
  );

  app.get(
    '/v1/meters/:key',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'getMeter',
        summary: 'Get a meter',
        tags,
        params: object({ key: Type.String({ maxLength: METER_LIMITS.keyLength }) }),
        response: responses({ 200: MeterSchema }, ['meter_not_found']),
      },
    },
    async (request, reply) => {
      const stored = await meterByKey(context.pg, callerOf(request).tenant, request.params.key);
      return give(
        reply,
        stored === null ? problem('meter_not_found') : { status: 200, body: meterJson(stored) },
      );
    },
  );
}

async function createMeter(
  context: ApiContext,
  caller: Caller,
  meter: Meter,
  nowMs: number,
): Promise<Effect> {
  const { tenant } = caller;
  const inserted = await context.pg.transaction(async (tx) => {
    const before = await listMeters(tx, tenant);
    const known = before.some((stored) => stored.key === meter.key);
    if (!known && before.length >= METER_LIMITS.metersPerTenant) return null;
    const result = await insertMeter(tx, { tenant, meter, nowMs });
    if (result.outcome === 'created')
      await appendAudit(tx, caller, 'meter.create', `meter/${meter.key}`, nowMs);
    return result;
  });
  if (inserted === null) {
    const most = METER_LIMITS.metersPerTenant;
    const detail = `A tenant has ${most} meters at most: use the groupBy of one meter instead of one meter per value.`;
    return { answer: problem('meters_limit_reached', detail), changed: null };
  }
  const { outcome, stored, state } = inserted;
  if (outcome === 'conflict') {
    return { answer: problem('meter_conflict', undefined, { existing: meterJson(stored) }), changed: null };
  }
  if (state === 'publishing' && !(await published(context, stored, nowMs)))
    return { answer: problem('log_unavailable'), changed: null };
  return { answer: { status: outcome === 'created' ? 201 : 200, body: meterJson(stored) }, changed: null };
}

/** One version at a time: the next number is given out when the last one is in the logs, or was missed. */
async function createVersion(
  context: ApiContext,
  caller: Caller,
  key: string,
  body: Static<typeof MeterVersionBody>,
  nowMs: number,
): Promise<Effect> {
  const { tenant } = caller;
  const refused = (answer: Effect['answer']): Effect => ({ answer, changed: null });
  const before = await meterByKey(context.pg, tenant, key);
  if (before === null) return refused(problem('meter_not_found'));
  const isPublished = before.state === 'active' || (await published(context, before, nowMs));
  if (!isPublished) return refused(problem('log_unavailable'));
  const inserted = await context.pg.transaction(async (tx) => {
    const version = await nextVersionNumber(tx, tenant, key);
    const last = await meterByKey(tx, tenant, key);
    if (last === null || last.state === 'publishing') return 'busy';
    // The newest version told again is itself.
    const again = versionFrom(last.versions.at(-2) ?? last, versionOf(last), body);
    if (again.mistakes.length === 0 && sameMeter(again.meter, last)) return 'exists';
    const { meter, mistakes } = versionFrom(last, version, body);
    const soonestMs = nowMs + METER_LIMITS.versionNoticeMs;
    if (mistakes.length === 0 && effectiveFromOf(meter) < soonestMs)
      mistakes.push(mistakeOf(`effectiveFrom: not before ${formatInstant(soonestMs)}`));
    if (mistakes.length > 0) return validationProblem(mistakes);
    await insertMeterVersion(tx, { tenant, meter, nowMs });
    await appendAudit(tx, caller, 'meter.version', `meter/${key}/${version}`, nowMs);
    return 'created';
  });
  if (inserted === 'busy') return refused(problem('log_unavailable'));
  if (typeof inserted === 'object') return refused(inserted);
  const stored = await meterByKey(context.pg, tenant, key);
  if (stored === null) throw new Error(`meter ${key} is gone`);
  if (inserted === 'created' && !(await published(context, stored, nowMs)))
    return refused(problem('log_unavailable'));
  return { answer: { status: inserted === 'created' ? 201 : 200, body: meterJson(stored) }, changed: null };
}

/** Whether its newest version stands in every log now, or was given up. */
async function published(context: ApiContext, meter: StoredMeter, nowMs: number): Promise<boolean> {
  try {
    await publishMeter(context.pg, context.publisher, meter, nowMs);
    return true;
  } catch (error) {
    if (!(error instanceof PublishFailed)) throw error;
    context.log.warn({ error }, 'a meter could not be published yet');
    return false;
  }
}
