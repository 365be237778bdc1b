import { Type } from 'typebox';
import { listMeters } from '../meters.ts';
import { planMistakes } from '../plan.ts';
import { listPlans, publishPlan, readPlan } from '../plans.ts';
import { callerOf, type ApiContext, type App } from './context.ts';
import { pageOf } from './cursor.ts';
import { PlanBody, planFrom, planJson, PlanSchema } from './plan-json.ts';
import { mistakeOf, problem, validationProblem } from './problems.ts';
import { IDEMPOTENCY_HEADERS, LIST_LIMIT_DEFAULT, listOf, object, PAGE_QUERY, responses } from './schema.ts';
import { give, write } from './write.ts';

const tags = ['Plans'];

export function planRoutes(app: App, context: ApiContext): void {
  app.post(
    '/v1/plans',
    {
      config: { scope: 'admin' },
      schema: {
        operationId: 'publishPlan',
        summary: 'Publish a plan, or a new version of one',
        description: 'The same plan as the newest version again is that version, and is answered 200.',
        tags,
        headers: IDEMPOTENCY_HEADERS,
        body: PlanBody,
        response: responses({ 200: PlanSchema, 201: PlanSchema }, [], { write: true }),
      },
    },
    (request, reply) => {
      const result = planFrom(request.body);
      if (!result.ok) return give(reply, validationProblem(result.mistakes));
      return write(context, request, reply, {
        action: 'plan.publish',
        async effect(tx, { tenant }, nowMs) {
          const meters = await listMeters(tx, tenant);
          const mistakes = planMistakes(result.plan, meters);
          if (mistakes.length > 0)
            return { answer: validationProblem(mistakes.map(mistakeOf)), changed: null };
          const { plan, created } = await publishPlan(tx, { tenant, plan: result.plan, nowMs });
          return {
            answer: { status: created ? 201 : 200, body: planJson(plan) },
            changed: created ? `plan/${plan.key}/${plan.version}` : null,
          };
        },
      });
    },
  );

  app.get(
    '/v1/plans',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'listPlans',
        summary: 'List the plans, each in its newest version',
        tags,
        querystring: object(PAGE_QUERY),
        response: responses({ 200: listOf(PlanSchema, 'Plans by key') }, ['cursor_invalid']),
      },
    },
    async (request, reply) => {
      const { tenant } = callerOf(request);
      const { limit = LIST_LIMIT_DEFAULT, cursor } = request.query;
      const plans = await listPlans(context.pg, tenant);
      const page = pageOf(plans, (plan) => plan.key, { scope: `plans ${tenant}`, limit, cursor });
      if (page === null) return give(reply, problem('cursor_invalid'));
      return give(reply, { status: 200, body: { ...page, items: page.items.map(planJson) } });
    },
  );

  app.get(
    '/v1/plans/:key',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'getPlan',
        summary: 'Get a plan',
        tags,
        params: object({ key: Type.String({ maxLength: 64 }) }),
        querystring: object({
          version: Type.Optional(
            Type.Integer({ minimum: 1, maximum: 1_000_000, description: 'The newest when absent' }),
          ),
        }),
        response: responses({ 200: PlanSchema }, ['plan_not_found']),
      },
    },
    async (request, reply) => {
      const { tenant } = callerOf(request);
      const plan = await readPlan(context.pg, tenant, request.params.key, request.query.version);
      return give(reply, plan === null ? problem('plan_not_found') : { status: 200, body: planJson(plan) });
    },
  );
}
