import { Type, type Static } from 'typebox';
import { formatAmount } from '../../contract/money.ts';
import { formatQuantity } from '../../contract/quantity.ts';
import { formatInstant } from '../../contract/window.ts';
import type { UsageDifference } from '../close.ts';
import type { Invoice, InvoiceLine } from '../invoices.ts';
import { CurrencyCode, Decimal, Instant, Money, named, Nullable, object, oneOf } from './schema.ts';

const LineSchema = object({
  id: Type.String(),
  kind: oneOf(
    ['usage', 'adjustment', 'credit'],
    'An adjustment is usage of an earlier period that came after its invoice',
  ),
  priceKey: Nullable(Type.String({ description: 'Null on a credit line, as are meter and plan' })),
  meter: Nullable(Type.String()),
  plan: Nullable(Type.String({ description: 'key@version of the plan that priced it' })),
  description: Type.String(),
  periodStart: Instant('Start of the period the usage is of'),
  periodEnd: Instant('Its end, exclusive'),
  quantity: Decimal('Units, the included ones too'),
  included: Decimal('Units that cost nothing'),
  amount: Money('Rounded once, to the minor unit, half away from zero'),
  tiers: Type.Array(
    object({
      quantity: Decimal('Units that fell into the tier'),
      unitPrice: Decimal('Price of a unit in major units'),
      flatAmount: Money('Charged once for the tier'),
    }),
  ),
});

export const InvoiceSchema = named(
  'Invoice',
  object(
    {
      id: Type.String(),
      number: Type.String(),
      customer: object({ id: Type.String(), name: Type.String() }),
      currency: CurrencyCode,
      periodStart: Instant('Start of the period'),
      periodEnd: Instant('Its end, exclusive'),
      status: oneOf(['issued', 'sent', 'paid']),
      lines: Type.Array(LineSchema),
      total: Money('The sum of the lines'),
      issuedAt: Instant('When the period was closed'),
      cut: Type.Record(Type.String(), Type.String(), {
        description: 'By shard, the position of the log up to which events are on it',
      }),
      delivery: Nullable(
        object({
          stripeInvoiceId: Type.String(),
          stripeTotal: Money('As Stripe reports it'),
        }),
      ),
    },
    'Issued once for a period; it never changes but for its status and delivery',
  ),
);

export function invoiceJson(invoice: Invoice): Static<typeof InvoiceSchema> {
  const { id, number, customer, currency, status, delivery } = invoice;
  return {
    id,
    number,
    customer: { id: customer.id, name: customer.name },
    currency,
    periodStart: formatInstant(invoice.periodStart),
    periodEnd: formatInstant(invoice.periodEnd),
    status,
    lines: invoice.lines.map((line) => lineJson(line, invoice)),
    total: formatAmount(invoice.total, currency),
    issuedAt: formatInstant(invoice.issuedAtMs),
    cut: { ...invoice.cut },
    delivery:
      delivery === null
        ? null
        : {
            stripeInvoiceId: delivery.stripeInvoiceId,
            stripeTotal: formatAmount(delivery.stripeTotal, currency),
          },
  };
}

function lineJson(line: InvoiceLine, { currency }: Invoice): Static<typeof LineSchema> {
  const { id, kind, priceKey, meter, plan, description } = line;
  return {
    id,
    kind,
    priceKey,
    meter,
    plan,
    description,
    periodStart: formatInstant(line.periodStart),
    periodEnd: formatInstant(line.periodEnd),
    quantity: formatQuantity(line.quantity),
    included: formatQuantity(line.included),
    amount: formatAmount(line.amount, currency),
    tiers: line.tiers.map((tier) => ({ ...tier })),
  };
}

export function differenceJson({ priceKey, meter, raw, rollup, posted }: UsageDifference) {
  return {
    priceKey,
    meter,
    raw: formatQuantity(raw),
    rollup: formatQuantity(rollup),
    posted: formatQuantity(posted),
  };
}
