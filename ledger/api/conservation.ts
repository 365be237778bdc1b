import { Type } from 'typebox';
import { formatQuantity } from '../../contract/quantity.ts';
import { QueryError } from '../../runtime/clickhouse.ts';
import { readConservation, type Conservation } from '../conservation.ts';
import { callerOf, type ApiContext, type App } from './context.ts';
import { problem } from './problems.ts';
import { Decimal, named, object, responses } from './schema.ts';
import { give } from './write.ts';

const ConservationSchema = named(
  'Conservation',
  object(
    {
      received: Decimal('Events read from the log'),
      counted: Decimal('The first of their identity: they count'),
      duplicate: Decimal('Repetitions of counted events'),
      conflict: Decimal('The same identity with other content'),
      late: Decimal('Came after their period was closed'),
      rejected: Decimal('Can never count as they are'),
      unaccounted: Decimal('received less all verdicts: 0 when nothing is lost'),
      drift: object({
        rollup: Decimal('Rollup rows that differ from the raw events'),
        ledger: Decimal(
          'Quantity by which what is posted differs from the rollups, over subjects of customers',
        ),
        stripeCents: Decimal('Minor units by which invoices differ from what Stripe has'),
      }),
    },
    'What became of every event, from the log to Stripe',
  ),
);

export function conservationRoutes(app: App, context: ApiContext): void {
  app.get(
    '/v1/conservation',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'getConservation',
        summary: 'Account for every event of the tenant',
        description:
          'Counts that a moving system read at slightly different instants can be a moment apart: they settle within seconds once no events come.',
        tags: ['Usage'],
        response: responses({ 200: ConservationSchema }, ['usage_not_ready', 'usage_unavailable']),
      },
    },
    async (request, reply) => {
      if (!context.usageReady()) return give(reply, problem('usage_not_ready'));
      try {
        const report = await readConservation(context, callerOf(request).tenant);
        return give(reply, { status: 200, body: conservationJson(report) });
      } catch (error) {
        if (!(error instanceof QueryError)) throw error;
        context.log.warn({ error }, 'the conservation report could not be read');
        return give(reply, problem('usage_unavailable'));
      }
    },
  );
}

function conservationJson(report: Conservation): Type.Static<typeof ConservationSchema> {
  const { received, counted, duplicate, conflict, late, rejected, unaccounted, drift } = report;
  return {
    received: String(received),
    counted: String(counted),
    duplicate: String(duplicate),
    conflict: String(conflict),
    late: String(late),
    rejected: String(rejected),
    unaccounted: String(unaccounted),
    drift: {
      rollup: String(drift.rollup),
      ledger: formatQuantity(drift.ledger),
      stripeCents: String(drift.stripeCents),
    },
  };
}
