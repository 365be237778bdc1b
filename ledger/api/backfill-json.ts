import { Type, type Static } from 'typebox';
import { BACKFILL_LIMITS } from '../../contract/backfill.ts';
import { METER_LIMITS } from '../../contract/meter.ts';
import { formatAmount, type Currency } from '../../contract/money.ts';
import { formatQuantity } from '../../contract/quantity.ts';
import { DAY_MS, formatInstant } from '../../contract/window.ts';
import type {
  Difference,
  SubjectDifference,
  WholeDifference,
  DayDifference,
} from '../backfill-difference.ts';
import type { Money } from '../backfill-money.ts';
import type { BackfillProgress } from '../backfill-steps.ts';
import { BACKFILL_STATES, type StoredBackfill } from '../backfills.ts';
import {
  CurrencyCode,
  Decimal,
  Instant,
  Money as MoneyText,
  named,
  Nullable,
  object,
  oneOf,
} from './schema.ts';

export const BackfillBody = object({
  from: Instant('Start of the first hour'),
  to: Instant(
    `End of the last hour: not after the start of the present hour, and at most ${BACKFILL_LIMITS.rangeMs / DAY_MS} days behind \`from\``,
  ),
  version: Type.Optional(
    Type.Integer({
      minimum: 1,
      maximum: METER_LIMITS.versionsMax,
      description: 'By which version of the meter the hours are counted; the newest when absent',
    }),
  ),
});

const BACKFILL = {
  id: Type.String(),
  meter: Type.String(),
  version: Type.Integer({ minimum: 1 }),
  from: Instant('Start of the first hour'),
  to: Instant('End of the last hour'),
  state: oneOf(
    BACKFILL_STATES,
    'proposed, committing and reverting become ready, committed and reverted when every shard has it',
  ),
  shards: object({
    done: Type.Integer({ description: 'Those that have what the state waits for' }),
    all: Type.Integer(),
  }),
  createdAt: Instant('When it was proposed'),
  changedAt: Instant('When its state changed last'),
};

export const BackfillSchema = named(
  'Backfill',
  object(BACKFILL, 'A meter counts some hours by one of its versions, whatever stood in the log when'),
);

const DIFFERENCE = {
  eventsNow: Type.String({ pattern: '^[0-9]+$', description: 'Events that count for the meter now' }),
  eventsProposed: Type.String({ pattern: '^[0-9]+$' }),
  now: Decimal('The usage as it counts now'),
  proposed: Decimal('As it would count'),
  change: Decimal('How far `proposed` is above `now`'),
};

const AMOUNTS = {
  now: MoneyText('What the price of the whole period comes to now'),
  proposed: MoneyText('What it would come to'),
  change: MoneyText('How far `proposed` is above `now`'),
};

const MoneySchema = object({
  reason: Nullable(
    Type.String({ description: 'Why no money is told; null when it is. Propose a shorter range then' }),
  ),
  totals: Type.Array(object({ currency: CurrencyCode, ...AMOUNTS }), {
    description: 'All lines together, by currency',
  }),
  lines: Type.Array(
    object({
      customer: Type.String(),
      price: Type.String(),
      currency: CurrencyCode,
      periodStart: Instant('Start of the period of the customer'),
      periodEnd: Instant('Its end'),
      invoiced: Type.Boolean({
        description: 'The period has its invoice: the change would be an adjustment on the next one',
      }),
      quantityNow: Decimal('The total of the period now'),
      quantityProposed: Decimal('As it would be'),
      ...AMOUNTS,
    }),
    { description: 'The largest changes first' },
  ),
  linesLeftOut: Type.Integer({ description: 'Lines with smaller changes that are in `totals` only' }),
  untold: object(
    {
      unassigned: Type.Integer({ description: 'no customer has them' }),
      unpriced: Type.Integer({ description: 'the plan of their customer has no price on the meter' }),
      beforeAnchor: Type.Integer({
        description: 'a part of the hours lies before the anchor of their customer, and is not billed',
      }),
      tooManySubjects: Type.Integer({ description: 'their customer has too many subjects for one question' }),
    },
    'Subjects that change and of which no money, or not all of it, is told: how many, because',
  ),
});

export const BackfillDifferenceSchema = named(
  'BackfillWithDifference',
  object({
    ...BACKFILL,
    difference: Nullable(
      object(
        {
          whole: object({
            ...DIFFERENCE,
            uncountable: Type.String({
              pattern: '^[0-9]+$',
              description: 'Events that lack a value which the version can count: they add nothing',
            }),
          }),
          days: Type.Array(object({ day: Instant('Start of the day, UTC'), ...DIFFERENCE }), {
            description: 'Those that change',
          }),
          subjects: Type.Array(object({ subject: Type.String(), ...DIFFERENCE }), {
            description: 'Those that change, the largest change first',
          }),
          nextCursor: Nullable(Type.String({ description: 'Pass as `cursor` for more subjects' })),
          money: Nullable(MoneySchema),
        },
        'As of now; days and money are told with the first page only. Null when nothing is proposed (any more)',
      ),
    ),
  }),
);

export function backfillJson(
  stored: StoredBackfill,
  { state, shardsDone }: BackfillProgress,
  shards: number,
): Static<typeof BackfillSchema> {
  return {
    id: stored.id,
    meter: stored.meter,
    version: stored.version,
    from: formatInstant(stored.fromMs),
    to: formatInstant(stored.toMs),
    state,
    shards: { done: shardsDone, all: shards },
    createdAt: formatInstant(stored.createdAtMs),
    changedAt: formatInstant(stored.changedAtMs),
  };
}

function differenceJson({ eventsNow, eventsProposed, now, proposed }: Difference) {
  return {
    eventsNow: eventsNow.toString(),
    eventsProposed: eventsProposed.toString(),
    now: formatQuantity(now),
    proposed: formatQuantity(proposed),
    change: formatQuantity(proposed - now),
  };
}

export const wholeJson = (whole: WholeDifference) => ({
  ...differenceJson(whole),
  uncountable: whole.uncountable.toString(),
});
export const dayJson = (one: DayDifference) => ({ day: formatInstant(one.dayMs), ...differenceJson(one) });
export const subjectJson = (one: SubjectDifference) => ({ subject: one.subject, ...differenceJson(one) });

const LINES_MAX = 500;

export function moneyJson(money: Money | 'too_many'): Static<typeof MoneySchema> {
  if (money === 'too_many') {
    return {
      reason: 'More subjects or periods change than are rated for one answer.',
      totals: [],
      lines: [],
      linesLeftOut: 0,
      untold: { unassigned: 0, unpriced: 0, beforeAnchor: 0, tooManySubjects: 0 },
    };
  }
  const totals = new Map<Currency, { now: bigint; proposed: bigint }>();
  for (const { currency, amountNow, amountProposed } of money.lines) {
    const total = totals.get(currency) ?? { now: 0n, proposed: 0n };
    totals.set(currency, { now: total.now + amountNow, proposed: total.proposed + amountProposed });
  }
  const { unassigned, unpriced, before_anchor, too_many_subjects } = money.untold;
  return {
    reason: null,
    totals: Array.from(totals, ([currency, total]) => ({
      currency,
      ...amountsJson(total.now, total.proposed, currency),
    })),
    lines: money.lines.slice(0, LINES_MAX).map((line) => ({
      customer: line.customer,
      price: line.price,
      currency: line.currency,
      periodStart: formatInstant(line.period.start),
      periodEnd: formatInstant(line.period.end),
      invoiced: line.isInvoiced,
      quantityNow: formatQuantity(line.quantity.now),
      quantityProposed: formatQuantity(line.quantity.proposed),
      ...amountsJson(line.amountNow, line.amountProposed, line.currency),
    })),
    linesLeftOut: Math.max(0, money.lines.length - LINES_MAX),
    untold: { unassigned, unpriced, beforeAnchor: before_anchor, tooManySubjects: too_many_subjects },
  };
}

const amountsJson = (now: bigint, proposed: bigint, currency: Currency) => ({
  now: formatAmount(now, currency),
  proposed: formatAmount(proposed, currency),
  change: formatAmount(proposed - now, currency),
});
