// What the demo prints: tables of what went in, what was counted, what it costs. Pure.
import { grouped } from './replay.ts';

export interface Conservation {
  readonly received: string;
  readonly counted: string;
  readonly duplicate: string;
  readonly conflict: string;
  readonly late: string;
  readonly rejected: string;
  readonly unaccounted: string;
  readonly drift: { readonly rollup: string; readonly ledger: string; readonly stripeCents: string };
}

export interface InvoiceLine {
  readonly kind: string;
  readonly description: string;
  readonly quantity: string;
  readonly amount: string;
}

export interface Invoice {
  readonly id: string;
  readonly number: string;
  readonly currency: string;
  readonly periodStart: string;
  readonly periodEnd: string;
  readonly status: string;
  readonly total: string;
  readonly lines: readonly InvoiceLine[];
  readonly delivery: { readonly stripeInvoiceId: string; readonly stripeTotal: string } | null;
}

const STAGES = ['received', 'counted', 'duplicate', 'conflict', 'late', 'rejected', 'unaccounted'] as const;

/** The difference that one replay made, in the shape of the report; drifts are those of the end. */
export function conservationDelta(before: Conservation, after: Conservation): Conservation {
  const delta = (name: (typeof STAGES)[number]): string =>
    (BigInt(after[name]) - BigInt(before[name])).toString();
  return {
    received: delta('received'),
    counted: delta('counted'),
    duplicate: delta('duplicate'),
    conflict: delta('conflict'),
    late: delta('late'),
    rejected: delta('rejected'),
    unaccounted: after.unaccounted,
    drift: after.drift,
  };
}

export function conservationTable(replayed: Conservation, total: Conservation): string {
  const rows = STAGES.map((name) => [name, grouped(replayed[name]), grouped(total[name])]);
  return [
    table(['events', 'this replay', 'all time'], rows),
    `  drift: rollup ${total.drift.rollup}, ledger ${total.drift.ledger}, Stripe ${total.drift.stripeCents} cents`,
  ].join('\n');
}

export interface UsageLine {
  readonly subject: string;
  readonly meter: string;
  readonly value: string;
  readonly expected: string;
}

export function usageTable(lines: readonly UsageLine[]): string {
  return table(
    ['customer', 'meter', 'usage', 'sum of the file', ''],
    lines.map((line) => [
      line.subject,
      line.meter,
      grouped(line.value),
      grouped(line.expected),
      line.value === line.expected ? 'equal' : 'DIFFERENT',
    ]),
  );
}

export function invoiceText(customer: string, invoice: Invoice): string {
  const period = `${invoice.periodStart.slice(0, 10)} to ${invoice.periodEnd.slice(0, 10)}`;
  const stripe =
    invoice.delivery === null
      ? 'not in Stripe yet'
      : `Stripe ${invoice.delivery.stripeInvoiceId}: ${invoice.delivery.stripeTotal}`;
  const rows = invoice.lines.map((line) => [line.description, grouped(line.quantity), line.amount]);
  return [
    `  ${invoice.number}  ${customer}  ${period}  ${invoice.total} ${invoice.currency}  (${invoice.status}; ${stripe})`,
    table(['line', 'quantity', `amount ${invoice.currency}`], rows, '    '),
  ].join('\n');
}

/** Text columns to the left, figures to the right. */
function table(header: readonly string[], rows: readonly (readonly string[])[], indent = '  '): string {
  const widths = header.map((title, at) => Math.max(title.length, ...rows.map((row) => row[at]!.length)));
  const figures = header.map((_, at) => at > 0 && rows.every((row) => /^-?[0-9.,]*$/.test(row[at]!)));
  const line = (row: readonly string[]): string =>
    (
      indent +
      row.map((cell, at) => (figures[at] ? cell.padStart(widths[at]!) : cell.padEnd(widths[at]!))).join('  ')
    ).trimEnd();
  return [line(header), ...rows.map(line)].join('\n');
}
