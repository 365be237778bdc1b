// `npm run demo -- FILE.csv [--json]`: a real usage trace from the client to the invoice, checked at every step
// against the file itself. Exits 1 when anything does not add up.
//
// 1. Meters, plan and customers are put; putting them again changes nothing.
// 2. The trace is replayed through the client. Row n has always the same identity: a second replay is all
//    duplicates.
// 3. The demo waits until the log has drained into rollups and ledger.
// 4. Usage by customer must equal the sum of the file to the digit, and received = counted + duplicate + ….
// 5. The periods of the trace are closed, if they are over, and every invoice must equal Stripe's.
import { formatQuantity } from '../../contract/quantity.ts';
import { formatInstant, monthlyPeriod } from '../../contract/window.ts';
import { sleep } from '../../runtime/retry.ts';
import { ApiClient, ApiError } from '../api-call.ts';
import { EngineError } from '../engines/engine.ts';
import { layoutOf, projectRoot } from '../layout.ts';
import { Progress } from '../progress.ts';
import { readRunFile, type RunFile } from '../run-file.ts';
import { Stack } from '../stack.ts';
import { DEMO_PLAN, meterFor, putCustomer } from '../seed.ts';
import { grouped, replay, type ReplayResult } from './replay.ts';
import {
  conservationDelta,
  conservationTable,
  invoiceText,
  usageTable,
  type Conservation,
  type Invoice,
  type UsageLine,
} from './report.ts';
import { readTrace, sumTrace, TraceError, type Trace } from './trace.ts';

const drainDeadlineMs = 120_000;
const pollMs = 200;

interface Options {
  readonly file: string;
  readonly json: boolean;
}

function readOptions(args: readonly string[]): Options {
  const files = args.filter((arg) => !arg.startsWith('--'));
  const unknown = args.filter((arg) => arg.startsWith('--') && arg !== '--json');
  if (unknown.length > 0 || files.length > 1) {
    throw new TraceError(
      `usage: npm run demo -- [FILE.csv] [--json]   (not understood: ${[...unknown, ...files.slice(1)].join(' ')})`,
    );
  }
  return { file: files[0] ?? `${projectRoot()}/local/demo/trace.csv`, json: args.includes('--json') };
}

/** Says things on stderr under --json, so that stdout is JSON alone. */
class Voice {
  readonly #out: NodeJS.WriteStream;
  constructor(json: boolean) {
    this.#out = json ? process.stderr : process.stdout;
  }
  say(line: string): void {
    this.#out.write(`${line}\n`);
  }
  /** A line that the next one replaces on a terminal; elsewhere only every tenth percent is printed. */
  #lastTenth = -1;
  progress(line: string): void {
    if (this.#out.isTTY) {
      this.#out.write(`\r\x1b[K  ${line}${line.includes('(100 %)') ? '\n' : ''}`);
      return;
    }
    const tenth = Math.floor(Number(/\((\d+) %\)/.exec(line)?.[1] ?? 100) / 10);
    if (tenth === this.#lastTenth) return;
    this.#lastTenth = tenth;
    this.#out.write(`  ${line}\n`);
  }
}

async function prepare(api: ApiClient, trace: Trace, anchor: number): Promise<string[]> {
  for (const property of trace.properties) await api.post('/v1/meters', meterFor(property));
  const priced = trace.properties.filter((property) =>
    DEMO_PLAN.prices.some((price) => price.meter === property),
  );
  const plan = priced.length === trace.properties.length ? DEMO_PLAN : planFor(trace.properties);
  await api.post('/v1/plans', plan);
  for (const subject of trace.subjects) {
    await putCustomer(api, subject, {
      name: subject,
      currency: 'USD',
      subjects: [subject],
      plan: plan.key,
      anchor: formatInstant(anchor),
    });
  }
  return trace.properties.filter((property) => plan.prices.some((price) => price.meter === property));
}

/** A trace of other columns than tokens is priced at a tenth of a cent a unit. */
function planFor(properties: readonly string[]) {
  return {
    key: `demo_${properties.join('_')}`.slice(0, 64),
    name: `Demo: ${properties.join(', ')}`,
    currency: 'USD',
    prices: properties.map((meter) => ({
      key: meter,
      meter,
      model: 'per_unit',
      included: '0',
      unitPrice: '0.001',
    })),
    entitlements: [],
  };
}

async function conservation(api: ApiClient): Promise<Conservation> {
  return (await api.get<Conservation>('/v1/conservation')).body;
}

/** Waits until everything that was acknowledged is counted and posted. */
async function drain(api: ApiClient, received: bigint, voice: Voice): Promise<Conservation> {
  const deadline = performance.now() + drainDeadlineMs;
  let last = '';
  while (true) {
    const now = await conservation(api);
    const done = BigInt(now.received) >= received && now.unaccounted === '0' && now.drift.ledger === '0';
    if (done) return now;
    if (performance.now() > deadline) {
      throw new TraceError(
        `The log did not drain within ${drainDeadlineMs / 1_000} s: ${now.received} of ${received} events received, ${now.unaccounted} unaccounted, ledger drift ${now.drift.ledger}. See the logs of the stages.`,
      );
    }
    const line = `draining: ${grouped(now.received)} of ${grouped(received)} events in the rollups`;
    if (line !== last) voice.progress((last = line));
    await sleep(pollMs);
  }
}

async function readUsage(api: ApiClient, trace: Trace): Promise<UsageLine[]> {
  const sums = sumTrace(trace);
  const times = trace.rows.map((row) => row.timeMs);
  const [from, to] = [times.reduce((a, b) => Math.min(a, b)), times.reduce((a, b) => Math.max(a, b))];
  const day = (ms: number): string => formatInstant(Math.floor(ms / 86_400_000) * 86_400_000);
  const lines: UsageLine[] = [];
  for (const subject of trace.subjects) {
    for (const meter of trace.properties) {
      const query = new URLSearchParams({
        meter,
        subject,
        window: 'total',
        from: day(from),
        to: day(to + 86_400_000),
      });
      const { body } = await api.get<{ rows: { value: string }[] }>(`/v1/usage?${query.toString()}`);
      const expected = formatQuantity(sums.get(subject)?.get(meter) ?? 0n);
      lines.push({ subject, meter, value: body.rows[0]?.value ?? '0', expected });
    }
  }
  return lines;
}

interface Closed {
  readonly customer: string;
  readonly invoice: Invoice;
  readonly isNew: boolean;
}

async function closePeriods(api: ApiClient, trace: Trace, anchor: number, voice: Voice): Promise<Closed[]> {
  const starts = new Set(trace.rows.map((row) => monthlyPeriod(anchor, row.timeMs).start));
  const closed: Closed[] = [];
  for (const customer of trace.subjects) {
    for (const start of [...starts].sort((a, b) => a - b)) {
      try {
        const answer = await api.post<Invoice>(`/v1/customers/${customer}/invoices`, {
          periodStart: formatInstant(start),
        });
        closed.push({ customer, invoice: answer.body, isNew: answer.status === 201 });
      } catch (error) {
        if (!(error instanceof ApiError) || error.code !== 'period_open') throw error;
        voice.say(`  ${customer}: the period from ${formatInstant(start)} is still open; no invoice yet`);
      }
    }
  }
  return closed;
}

/** Waits until billing-sync has put every invoice into Stripe and read it back. */
async function deliver(api: ApiClient, closed: readonly Closed[]): Promise<Closed[]> {
  const deadline = performance.now() + drainDeadlineMs;
  const delivered: Closed[] = [];
  for (const one of closed) {
    let { invoice } = one;
    while (invoice.delivery === null && performance.now() < deadline) {
      await sleep(pollMs);
      invoice = (await api.get<Invoice>(`/v1/invoices/${invoice.id}`)).body;
    }
    delivered.push({ ...one, invoice });
  }
  return delivered;
}

function findFaults(
  result: ReplayResult,
  delta: Conservation,
  total: Conservation,
  usage: readonly UsageLine[],
  closed: readonly Closed[],
): string[] {
  const faults: string[] = [];
  if (result.accepted !== result.sent)
    faults.push(`${result.sent - result.accepted} events were not accepted`);
  const decided = BigInt(delta.counted) + BigInt(delta.duplicate);
  // A retry whose first attempt had arrived stands in the log twice and is a duplicate: more is right, less is not.
  if (decided < BigInt(result.sent))
    faults.push(`only ${decided} of ${result.sent} events were counted or known`);
  if (total.unaccounted !== '0') faults.push(`${total.unaccounted} events are unaccounted for`);
  for (const line of usage) {
    if (line.value !== line.expected) {
      faults.push(`${line.subject} ${line.meter}: usage ${line.value}, the file sums to ${line.expected}`);
    }
  }
  for (const [name, drift] of Object.entries(total.drift))
    if (drift !== '0') faults.push(`${name} drift is ${drift}`);
  for (const { invoice, customer } of closed) {
    if (invoice.delivery === null) faults.push(`${invoice.number} of ${customer} did not reach Stripe`);
    else if (invoice.delivery.stripeTotal !== invoice.total) {
      faults.push(`${invoice.number}: ${invoice.total} here, ${invoice.delivery.stripeTotal} in Stripe`);
    }
  }
  return faults;
}

async function demo(run: RunFile, options: Options, voice: Voice): Promise<boolean> {
  const trace = await readTrace(options.file);
  const api = new ApiClient(run.api, run.adminKey);
  const firstMs = trace.rows.reduce((least, row) => Math.min(least, row.timeMs), Infinity);
  const anchor = Date.UTC(new Date(firstMs).getUTCFullYear(), new Date(firstMs).getUTCMonth(), 1);
  voice.say(
    `${grouped(trace.rows.length)} rows, meters ${trace.properties.join(' and ')}, ${trace.subjects.length} customers.`,
  );
  await prepare(api, trace, anchor);

  const before = await conservation(api);
  const result = await replay(run, trace, (line) => voice.progress(line));
  const after = await drain(api, BigInt(before.received) + BigInt(result.accepted), voice);
  const usage = await readUsage(api, trace);
  const closed = await deliver(api, await closePeriods(api, trace, anchor, voice));
  const total = await conservation(api);
  const delta = conservationDelta(before, after);
  const repeated = delta.counted === '0';

  voice.say(`\nAcknowledged after ${result.seconds.toFixed(1)} s.\n\n${conservationTable(delta, after)}`);
  voice.say(`\n${usageTable(usage)}\n`);
  for (const one of closed) voice.say(`${invoiceText(one.customer, one.invoice)}\n`);
  if (repeated) {
    const invoices = closed.every((one) => !one.isNew)
      ? ', every invoice is the one of the first replay'
      : '';
    voice.say(
      `This trace had been replayed before: all events are duplicates, no total changed${invoices}.\n`,
    );
  }
  const faults = findFaults(result, delta, total, usage, closed);
  voice.say(faults.length === 0 ? 'Everything adds up.' : `It does NOT add up:\n  ${faults.join('\n  ')}`);
  if (options.json) {
    const report = {
      ok: faults.length === 0,
      repeated,
      replay: result,
      conservation: { replay: delta, total },
      usage,
      invoices: closed.map(({ customer, invoice, isNew }) => ({ customer, isNew, ...invoice })),
      faults,
    };
    process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
  }
  return faults.length === 0;
}

async function main(): Promise<void> {
  const options = readOptions(process.argv.slice(2));
  const voice = new Voice(options.json);
  const layout = layoutOf(process.env);
  const running = readRunFile(layout);
  if (running !== null) {
    process.exitCode = (await demo(running, options, voice)) ? 0 : 1;
    return;
  }
  voice.say('No stack runs here: starting one for this demo (npm start keeps one running).');
  const progress = new Progress(options.json ? process.stderr : process.stdout);
  const stack = new Stack(layout, process.env, progress, (error) => {
    voice.say(error.message);
    process.exitCode = 1;
  });
  const stop = (): void => void stack.stop().then(() => process.exit(130));
  process.once('SIGINT', stop).once('SIGTERM', stop);
  try {
    const run = await stack.start();
    progress.end();
    process.exitCode = (await demo(run, options, voice)) ? 0 : 1;
  } finally {
    await stack.stop();
  }
}

main().then(
  () => process.exit(),
  (error: unknown) => {
    const known = error instanceof TraceError || error instanceof ApiError || error instanceof EngineError;
    process.stderr.write(`\n${known ? (error as Error).message : String((error as Error).stack)}\n`);
    process.exit(1);
  },
);
