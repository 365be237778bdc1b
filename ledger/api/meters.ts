import { Type } from 'typebox';
import { METER_LIMITS, type Meter } from '../../contract/meter.ts';
import { activateMeter, insertMeter, listMeters, meterByKey } from '../meters.ts';
import { PublishFailed } from '../publish.ts';
import { appendAudit } from '../audit.ts';
import { callerOf, type ApiContext, type App, type Caller } from './context.ts';
import { pageOf } from './cursor.ts';
import { MeterBody, meterFrom, meterJson, MeterSchema } from './meter-json.ts';
import { problem, validationProblem } from './problems.ts';
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
          'Answers once the meter stands in the log of every shard: events sent after the answer are counted by it, events sent before are not. A meter never changes; the same definition again is answered 200.',
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

// 1. The row, as `publishing`. From here on the key means this definition, whatever happens.
// 2. The definition in every shard's log. After a crash the next start, or the same request, does it again.
// 3. The row becomes `active`, and only then is the request answered.
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
  if (state === 'publishing') {
    try {
      await context.publisher.publishMeter(tenant, stored);
    } catch (error) {
      if (!(error instanceof PublishFailed)) throw error;
      context.log.warn({ error }, 'a meter could not be published yet');
      return { answer: problem('log_unavailable'), changed: null };
    }
    await activateMeter(context.pg, tenant, stored.key);
  }
  return { answer: { status: outcome === 'created' ? 201 : 200, body: meterJson(stored) }, changed: null };
}
