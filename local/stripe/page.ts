// The page a newcomer opens to see what arrived: customers and their invoices with every line. Plain HTML, no script.
import { formatMoney, sum } from './amount.ts';
import type { CustomerRecord, InvoiceRecord, Reader } from './state.ts';

const invoicesMax = 200;
const customersMax = 500;

const style = `body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#1a1f36}
table{border-collapse:collapse;width:100%;margin:.5rem 0 1.5rem}th,td{text-align:left;padding:.25rem .6rem;
border-bottom:1px solid #e3e8ee}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
h2{margin-top:2.5rem}h3{margin:1.5rem 0 0}code{background:#f2f4f7;padding:0 .25rem}.s{color:#697386}`;

export function renderPage(state: Reader): string {
  const customers = state.all('customer').filter((each) => !each.deleted);
  const invoices = state.all('invoice').reverse();
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Stripe stand-in</title><style>${style}</style>
<h1>Stripe stand-in</h1>
<p class="s">This is not Stripe. It is a local process that keeps what Tallyline sends to Stripe, so that you can look at it.
${customers.length} customers, ${invoices.length} invoices, ${state.all('event').length} events.</p>
<h2>Customers</h2>
${customers.length === 0 ? '<p>None yet.</p>' : customerTable(customers.slice(-customersMax).reverse())}
<h2>Invoices</h2>
${invoices.length === 0 ? '<p>None yet.</p>' : ''}
${invoices
  .slice(0, invoicesMax)
  .map((invoice) => invoiceSection(state, invoice))
  .join('\n')}
${invoices.length > invoicesMax ? `<p class="s">The newest ${invoicesMax} are shown.</p>` : ''}
</html>
`;
}

function customerTable(customers: CustomerRecord[]): string {
  const rows = customers.map((customer) => {
    const balances = Object.entries(customer.balances).map(([currency, amount]) =>
      formatMoney(amount, currency),
    );
    const cells = [customer.name ?? customer.description ?? '', customer.email ?? ''].map(
      (text) => `<td>${escape(text)}</td>`,
    );
    return `<tr><td><code>${escape(customer.id)}</code></td>${cells.join('')}<td class="n">${balances.join(', ')}</td></tr>`;
  });
  return `<table><tr><th>Id</th><th>Name</th><th>Email</th><th class="n">Balance</th></tr>${rows.join('\n')}</table>`;
}

function invoiceSection(state: Reader, invoice: InvoiceRecord): string {
  const customer = state.get('customer', invoice.customer);
  const items = invoice.items.flatMap((id) => state.get('invoiceitem', id) ?? []);
  const money = (amount: number) => formatMoney(amount, invoice.currency);
  const rows = items.map(
    (item) =>
      `<tr><td>${escape(item.description ?? '')}</td><td>${day(item.period.start)} – ${day(item.period.end)}</td>` +
      `<td class="n">${item.quantityDecimal}</td><td class="n">${money(item.amount)}</td></tr>`,
  );
  const summary = [
    `total ${money(sum(items.map((item) => item.amount)))}`,
    ...(invoice.status === 'draft'
      ? []
      : [`due ${money(invoice.amountDue)}`, `paid ${money(invoice.amountPaid)}`]),
  ];
  return `<h3 id="${escape(invoice.id)}">${escape(invoice.number ?? 'Draft')} · ${invoice.status}</h3>
<p class="s"><code>${escape(invoice.id)}</code> for ${escape(customer?.name ?? invoice.customer)}, ${summary.join(', ')}</p>
<table><tr><th>Line</th><th>Period (UTC)</th><th class="n">Quantity</th><th class="n">Amount</th></tr>${rows.join('\n')}</table>`;
}

/** A day in UTC, for a number of seconds that a caller chose freely. */
function day(seconds: number): string {
  const date = new Date(seconds * 1000);
  return Number.isNaN(date.getTime()) ? String(seconds) : date.toISOString().slice(0, 10);
}

function escape(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
