import { Type } from 'typebox';
import { formatQuantity, unscaleDecimal } from '../../contract/quantity.ts';
import { formatInstant } from '../../contract/window.ts';
import { QueryError } from '../../runtime/clickhouse.ts';
import { readConservation, type Conservation } from '../conservation.ts';
import { callerOf, type ApiContext, type App } from './context.ts';
import { problem } from './problems.ts';
import { Decimal, Instant, named, Nullable, object, responses } from './schema.ts';
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
        rollup: Decimal(
          'Hours of a meter and subject whose rollup differs from the raw events. A finding stays until the same hour is found clean',
        ),
        ledger: Decimal(
          'Quantity by which what is posted differs from the rollups, over subjects of customers',
        ),
        stripeCents: Decimal('Minor units by which invoices differ from what Stripe has'),
      }),
      checked: object(
        {
          changesTo: Nullable(
            Instant(
              'All hours that changed before this instant were compared since; null while so many changed at once that a sweep has to tell',
            ),
          ),
          waitingHours: Decimal('Changed hours that wait to be compared'),
          sweptTo: Nullable(
            Instant(
              'Everything counted before this instant was compared, whether it changed or not; null before the first sweep is through',
            ),
          ),
          sweepProgress: Nullable(
            Decimal('Part of the running sweep that is done; null when none is running'),
          ),
        },
        'How far rollups were compared with raw events: drift.rollup speaks for that and no more',
      ),
      stages: object(
        {
          edge: object(
            {
              accepted: Decimal(
                'Events that edges answered with yes, as far as they have told: what an edge did in the seconds before it died is not in it',
              ),
              toldAt: Nullable(Instant('When an edge told last; null when none did')),
              missing: Decimal(
                'Accepted events that the log does not have: 0, or they have to be sent again. Events that were received and not told hide as many',
              ),
              provenTo: Nullable(
                Instant('What was told until then was looked for in the log; null before the first time'),
              ),
            },
            'What was promised',
          ),
          aggregator: object(
            {
              received: Decimal('Events read from the log'),
              counted: Decimal('Verdicts'),
              duplicate: Decimal('Verdicts'),
              conflict: Decimal('Verdicts'),
              late: Decimal('Verdicts'),
              rejected: Decimal('Verdicts'),
              unaccounted: Decimal('received less all verdicts'),
              beyondAccepted: Decimal(
                'received beyond edge.accepted: what edges have not told, and requests repeated after a lost answer',
              ),
            },
            'What was read and decided',
          ),
          raw: Nullable(
            object(
              {
                counted: Decimal('Rows of events that count'),
                conflict: Decimal('Events kept whole'),
                late: Decimal('Events kept whole'),
                rejected: Decimal('Events kept whole'),
                difference: Decimal('Events by which these differ from the verdicts'),
              },
              'What is kept; null when there are too many rows to count them here',
            ),
          ),
          rollups: object(
            {
              counted: Nullable(
                Decimal('Events in the rollups, once for each meter; null when there are too many rows'),
              ),
              differingHours: Decimal('drift.rollup'),
            },
            'What is added up',
          ),
          ledger: object(
            {
              rolledUp: Decimal('Quantity that the rollups have for customers, over all prices'),
              posted: Decimal('Quantity that is posted for them'),
              difference: Decimal('drift.ledger'),
            },
            'What is rated',
          ),
          stripe: object(
            {
              invoicedCents: Decimal('Minor units of the invoices that are in Stripe'),
              stripeCents: Decimal('Minor units of the same as Stripe says'),
              differenceCents: Decimal('drift.stripeCents'),
            },
            'What is invoiced',
          ),
        },
        'The same by stage: what came in, what went out, and where the sums of neighbours differ',
      ),
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
  const { received, counted, duplicate, conflict, late, rejected, unaccounted, drift, checked } = report;
  const { edge, aggregator, raw, rollups, ledger, stripe } = report.stages;
  const instant = (ms: number | null): string | null => (ms === null ? null : formatInstant(ms));
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
    checked: {
      changesTo: instant(checked.changesToMs),
      waitingHours: String(checked.waitingHours),
      sweptTo: instant(checked.sweptToMs),
      sweepProgress: checked.sweepPermille === null ? null : unscaleDecimal(BigInt(checked.sweepPermille), 3),
    },
    stages: {
      edge: {
        accepted: String(edge.accepted),
        toldAt: instant(edge.toldAtMs),
        missing: String(edge.missing),
        provenTo: instant(edge.provenToMs),
      },
      aggregator: {
        received: String(aggregator.received),
        counted: String(aggregator.counted),
        duplicate: String(aggregator.duplicate),
        conflict: String(aggregator.conflict),
        late: String(aggregator.late),
        rejected: String(aggregator.rejected),
        unaccounted: String(aggregator.unaccounted),
        beyondAccepted: String(aggregator.beyondAccepted),
      },
      raw: raw && {
        counted: String(raw.counted),
        conflict: String(raw.conflict),
        late: String(raw.late),
        rejected: String(raw.rejected),
        difference: String(raw.difference),
      },
      rollups: {
        counted: rollups.counted === null ? null : String(rollups.counted),
        differingHours: String(rollups.differingHours),
      },
      ledger: {
        rolledUp: formatQuantity(ledger.rolledUp),
        posted: formatQuantity(ledger.posted),
        difference: formatQuantity(ledger.difference),
      },
      stripe: {
        invoicedCents: String(stripe.invoiced),
        stripeCents: String(stripe.inStripe),
        differenceCents: String(stripe.difference),
      },
    },
  };
}
