import { Type } from 'typebox';
import { formatInstant } from '../../contract/window.ts';
import { quotaOf } from '../quotas.ts';
import { callerOf, type ApiContext, type App } from './context.ts';
import { Instant, Nullable, object, oneOf, responses } from './schema.ts';
import { give } from './write.ts';

const Rate = (description: string) =>
  Nullable(Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER, description, examples: [5000] }));

const QuotaSchema = object(
  {
    source: oneOf(
      ['operator', 'default'],
      'operator: it was set for this tenant. default: each edge applies the limits of its configuration, which this API does not know, and the rates are null',
    ),
    eventsPerSecond: Rate('Events a second at one edge; null: no limit'),
    bytesPerSecond: Rate('Body bytes a second at one edge; null: no limit'),
    updatedAt: Nullable(Instant('When the operator set it')),
  },
  'What the tenant may send',
);

/** Reading alone: a tenant that could change its quota would have none. See `npx tallyline quota`. */
export function quotaRoutes(app: App, context: ApiContext): void {
  app.get(
    '/v1/quota',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'readQuota',
        summary: 'Read the quota of the tenant',
        description:
          'Beyond it an edge answers 429 with Retry-After. Each edge counts for itself, so that several behind a balancer let through more in all.',
        tags: ['Quota'],
        response: responses({ 200: QuotaSchema }, []),
      },
    },
    async (request, reply) => {
      const quota = await quotaOf(context.pg, callerOf(request).tenant);
      const body =
        quota == null
          ? { source: 'default', eventsPerSecond: null, bytesPerSecond: null, updatedAt: null }
          : {
              source: 'operator',
              eventsPerSecond: quota.eventsPerSecond,
              bytesPerSecond: quota.bytesPerSecond,
              updatedAt: formatInstant(quota.updatedAtMs),
            };
      return give(reply, { status: 200, body });
    },
  );
}
