import { describe, expect, test } from 'vitest';
import type { Currency } from '../contract/money.ts';
import type { Invoice, InvoiceLine } from '../ledger/index.ts';
import { assembleInvoice, LINES_MAX } from './invoice.ts';

const OCTOBER = Date.UTC(2026, 9, 1);
const NOVEMBER = Date.UTC(2026, 10, 1);
const o = { installation: 'here', daysUntilDue: 14 };

function line(id: string, kind: InvoiceLine['kind'], amount: bigint, description = id): InvoiceLine {
  return {
    id,
    kind,
    priceKey: 'input',
    meter: 'input_tokens',
    plan: 'pro@1',
    periodStart: OCTOBER,
    periodEnd: NOVEMBER,
    description,
    quantity: 0n,
    included: 0n,
    amount,
    tiers: [],
  };
}

function invoice(lines: InvoiceLine[], total: bigint, currency: Currency = 'USD'): Invoice {
  return {
    id: 'inv_1',
    number: 'ACME-0001',
    tenant: 'acme',
    customer: { id: 'c1', name: 'Customer One' },
    currency,
    periodStart: OCTOBER,
    periodEnd: NOVEMBER,
    status: 'issued',
    lines,
    total,
    issuedAtMs: NOVEMBER,
    cut: {},
    delivery: null,
  };
}

describe('assembleInvoice', () => {
  test('every line of the ledger becomes one line in the same minor units', () => {
    // 31.42 + 0.05 - 10.00 = 21.47 dollars, by hand.
    const lines = [
      line('l1', 'usage', 3_142n, '10,471,000 input tokens'),
      line('l2', 'adjustment', 5n, 'late usage of September'),
      line('l3', 'credit', -1_000n, 'promotional credit'),
    ];
    expect(assembleInvoice(invoice(lines, 2_147n), o)).toEqual({
      outcome: 'assembled',
      invoice: {
        currency: 'usd',
        daysUntilDue: 14,
        number: 'ACME-0001',
        description: 'Usage from 2026-10-01 to 2026-11-01 (end excluded, UTC)',
        metadata: { tallyline_installation: 'here', tallyline_tenant: 'acme', tallyline_invoice: 'inv_1' },
      },
      lines: [
        ['l1', 3_142, '10,471,000 input tokens'],
        ['l2', 5, 'late usage of September'],
        ['l3', -1_000, 'promotional credit'],
      ].map(([id, amount, description]) => ({
        line: id,
        amount,
        currency: 'usd',
        description,
        period: { start: 1_790_812_800, end: 1_793_491_200 },
        metadata: { tallyline_tenant: 'acme', tallyline_invoice: 'inv_1', tallyline_line: id },
      })),
    });
  });

  test('an adjustment shows the period that it is for', () => {
    const september = { periodStart: Date.UTC(2026, 8, 1), periodEnd: OCTOBER };
    const lines = [{ ...line('l1', 'adjustment', 5n), ...september }];
    expect(assembleInvoice(invoice(lines, 5n), o)).toMatchObject({
      lines: [{ period: { start: 1_788_220_800, end: 1_790_812_800 } }],
    });
  });

  test('an invoice without lines is an invoice of nothing', () => {
    expect(assembleInvoice(invoice([], 0n), o)).toMatchObject({ outcome: 'assembled', lines: [] });
  });

  test.each<[string, InvoiceLine[], bigint, RegExp]>([
    ['lines that do not add up', [line('l1', 'usage', 100n)], 99n, /sum to 100, its total is 99/],
    ['a credit that charges', [line('l1', 'credit', 1n)], 1n, /would charge/],
    ['one line twice', [line('l1', 'usage', 1n), line('l1', 'usage', 2n)], 3n, /same id/],
  ])('%s is a bug and reaches nobody', (_, lines, total, message) => {
    expect(() => assembleInvoice(invoice(lines, total), o)).toThrow(message);
  });

  test.each<[Currency, bigint, string]>([
    // Stripe counts yen and won whole, as we do: 1,234 yen are 1234.
    ['JPY', 1_234n, 'assembled'],
    ['KRW', 1n, 'assembled'],
    ['EUR', 1n, 'assembled'],
    // Three decimals: 1.230 dinar are 1230 and can be charged, 1.234 cannot.
    ['KWD', 1_230n, 'assembled'],
    ['KWD', 1_234n, 'amount_not_chargeable'],
    ['USD', 9_007_199_254_740_991n, 'assembled'],
    ['USD', 9_007_199_254_740_992n, 'amount_too_large'],
  ])('%s %s: %s', (currency, amount, expected) => {
    const assembly = assembleInvoice(invoice([line('l1', 'usage', amount)], amount, currency), o);
    expect(assembly.outcome === 'unsendable' ? assembly.code : assembly.outcome).toBe(expected);
    if (assembly.outcome === 'assembled') expect(assembly.lines[0]?.amount).toBe(Number(amount));
  });

  test('one line more than Stripe takes is refused as a whole', () => {
    const lines = (count: number) => Array.from({ length: count }, (_, at) => line(`l${at}`, 'usage', 1n));
    expect(assembleInvoice(invoice(lines(LINES_MAX), 250n), o).outcome).toBe('assembled');
    expect(assembleInvoice(invoice(lines(LINES_MAX + 1), 251n), o)).toEqual({
      outcome: 'unsendable',
      code: 'too_many_lines',
      detail: '251 lines; Stripe takes 250',
    });
  });

  test('a long description is cut between characters', () => {
    const assembly = assembleInvoice(invoice([line('l1', 'usage', 0n, '🪙'.repeat(501))], 0n), o);
    const description = assembly.outcome === 'assembled' ? assembly.lines[0]?.description : '';
    expect(description).toBe(`${'🪙'.repeat(499)}…`);
  });
});
