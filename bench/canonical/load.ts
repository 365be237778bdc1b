// The load of the canonical benchmark: one process, plain sockets, one request under way on each. It reads a LoadPlan
// as its first argument (load-plan.ts). Every answer must be a 202 that rejects nothing, or it ends with exit code 1
// and says what came instead.
//
// With an open schedule, requests are due at fixed instants and are sent when the next millisecond's timer sees them,
// or as soon as a connection is free: a server that stands still for a second makes a second of requests late, and all
// of them count. What the timer adds stands in the result of its own (ownDelay).
import { connect, type Socket } from 'node:net';
import { RequestWriter, requestTemplate, type RequestTemplate } from './body.ts';
import { Fifo } from '../../runtime/fifo.ts';
import type { LoadPlan, LoadResult } from './load-plan.ts';
import { Quantiles } from './quantiles.ts';
import { LAYOUTS, Workload } from './workload.ts';

const PROGRESS_MS = 500;
const TICK_MS = 1;
const ANSWER_BYTES_MAX = 4_096;
const STATUS_BYTES = 'HTTP/1.1 202'.length;
/** Beyond the planned time, for answers under way; then it fails. */
const OVERTIME_MS = 30_000;

const epochMs = (): number => performance.timeOrigin + performance.now();

function fail(what: string, bytes?: Uint8Array): never {
  const said = bytes === undefined ? '' : `: ${Buffer.from(bytes).toString('latin1', 0, 500)}`;
  process.stderr.write(`${what}${said}\n`);
  process.exit(1);
}

/** A connection, with a template of its own for each layout: what is under way must not be written over. */
class Connection {
  readonly templates: readonly RequestTemplate[];
  #socket!: Socket;
  #answer = Buffer.alloc(0);
  #onAnswer: (connection: Connection, answer: Buffer) => void;
  #isOver = false;
  dueMs = 0;
  busy = false;

  constructor(
    templates: readonly RequestTemplate[],
    onAnswer: (connection: Connection, answer: Buffer) => void,
  ) {
    this.templates = templates;
    this.#onAnswer = onAnswer;
  }

  open(port: number): Promise<void> {
    const buffer = Buffer.alloc(ANSWER_BYTES_MAX);
    return new Promise((resolve, reject) => {
      this.#socket = connect({
        host: '127.0.0.1',
        port,
        noDelay: true,
        onread: {
          buffer,
          callback: (length) => {
            this.#read(buffer.subarray(0, length));
            return true;
          },
        },
      });
      this.#socket.once('error', reject);
      this.#socket.once('connect', resolve);
      this.#socket.once('close', () => {
        if (this.busy) fail('a connection was closed with a request under way');
        if (!this.#isOver) fail('a connection was closed that had nothing to do');
      });
    });
  }

  send(bytes: Buffer): void {
    this.busy = true;
    this.#socket.write(bytes);
  }

  close(): void {
    this.#isOver = true;
    this.#socket.destroy();
  }

  #read(bytes: Buffer): void {
    const all = this.#answer.length === 0 ? bytes : Buffer.concat([this.#answer, bytes]);
    // The bodies of answers are short JSON objects, and so they end.
    if (all[all.length - 1] !== 0x7d) {
      if (all.length > ANSWER_BYTES_MAX) fail('an answer that is too long', all);
      this.#answer = Buffer.from(all);
      return;
    }
    this.#answer = Buffer.alloc(0);
    this.busy = false;
    this.#onAnswer(this, all);
  }
}

class Load {
  readonly #plan: LoadPlan;
  readonly #writer: RequestWriter;
  readonly #connections: Connection[];
  /** The one that was used longest ago is used next: a server closes connections that do nothing for ten seconds. */
  readonly #free = new Fifo<Connection>();
  readonly #took = new Quantiles();
  readonly #own = new Quantiles();
  readonly #requestsMax: number;
  #startMs = 0;
  #sent = 0;
  #answered = 0;
  #queuedMax = 0;
  #firstAnswerMs = 0;
  #lastAnswerMs = 0;
  #expected: Buffer | null = null;
  #isOver = false;
  #done!: () => void;

  constructor(plan: LoadPlan) {
    this.#plan = plan;
    this.#writer = new RequestWriter(new Workload(plan), plan.eventsPerRequest);
    const most = plan.eventsMax === 0 ? Infinity : Math.ceil(plan.eventsMax / plan.eventsPerRequest);
    this.#requestsMax =
      plan.schedule.kind === 'closed'
        ? most
        : Math.min(most, Math.floor((plan.seconds / this.#intervalMs) * 1_000));
    const head = (bodyBytes: number): string =>
      `POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer ${plan.key}\r\n` +
      `Content-Type: application/json\r\nContent-Length: ${bodyBytes}\r\n\r\n`;
    const layouts = plan.eventsPerRequest === 1 ? LAYOUTS : 1;
    this.#connections = Array.from(
      { length: plan.connections },
      () =>
        new Connection(
          Array.from({ length: layouts }, (_, layout) =>
            requestTemplate(plan.eventsPerRequest, layout, head),
          ),
          (connection, answer) => this.#onAnswer(connection, answer),
        ),
    );
  }

  async open(): Promise<void> {
    await Promise.all(this.#connections.map((connection) => connection.open(this.#plan.port)));
  }

  async run(): Promise<LoadResult> {
    const over = new Promise<void>((resolve) => (this.#done = resolve));
    this.#startMs = performance.now();
    const progress = setInterval(
      () =>
        process.stdout.write(
          `${JSON.stringify({ answered: this.#answered * this.#plan.eventsPerRequest })}\n`,
        ),
      PROGRESS_MS,
    );
    const overtime = setTimeout(
      () => fail(`${this.#sent - this.#answered} requests were not answered in time`),
      this.#plan.seconds * 1_000 + OVERTIME_MS,
    );
    if (this.#plan.schedule.kind === 'closed')
      for (const connection of this.#connections) this.#next(connection);
    else {
      for (const connection of this.#connections) this.#free.push(connection);
      this.#tick();
    }
    await over;
    clearInterval(progress);
    clearTimeout(overtime);
    for (const connection of this.#connections) connection.close();
    return this.#result();
  }

  get #intervalMs(): number {
    const { schedule, eventsPerRequest } = this.#plan;
    return schedule.kind === 'closed' ? 0 : (eventsPerRequest * 1_000) / schedule.eventsPerSecond;
  }

  #result(): LoadResult {
    const { eventsPerRequest } = this.#plan;
    const { user, system } = process.cpuUsage();
    return {
      requests: this.#answered,
      events: this.#answered * eventsPerRequest,
      beginMs: performance.timeOrigin + this.#startMs,
      firstAnswerMs: this.#firstAnswerMs,
      lastAnswerMs: this.#lastAnswerMs,
      p50Ms: this.#took.ms(0.5),
      p99Ms: this.#took.ms(0.99),
      ownDelayP50Ms: this.#own.ms(0.5),
      ownDelayP99Ms: this.#own.ms(0.99),
      queuedMax: this.#queuedMax,
      requestBytes: this.#connections[0]!.templates[0]!.bytes.length,
      cpuMs: (user + system) / 1_000,
    };
  }

  /** Of a closed load: its next request, if there is time for one. */
  #next(connection: Connection): void {
    const now = performance.now();
    if (now - this.#startMs >= this.#plan.seconds * 1_000 || this.#sent >= this.#requestsMax) {
      this.#isOver = true;
      if (this.#answered === this.#sent) this.#done();
      return;
    }
    this.#send(connection, now);
  }

  /** Of an open load: sends what is due, and comes again until all of it was. */
  #tick(): void {
    const now = performance.now();
    const due = Math.min(this.#requestsMax, Math.floor((now - this.#startMs) / this.#intervalMs) + 1);
    while (this.#sent < due && this.#free.length > 0) {
      const dueMs = this.#dueMs;
      this.#own.addMs(now - dueMs);
      this.#send(this.#free.take()!, dueMs);
    }
    this.#queuedMax = Math.max(this.#queuedMax, due - this.#sent);
    if (this.#sent < this.#requestsMax) setTimeout(() => this.#tick(), TICK_MS);
    else this.#isOver = true;
    if (this.#isOver && this.#answered === this.#sent) this.#done();
  }

  /** When the request that is sent next is due. */
  get #dueMs(): number {
    return this.#startMs + this.#sent * this.#intervalMs;
  }

  #send(connection: Connection, dueMs: number): void {
    const request = this.#sent++;
    const template =
      connection.templates[connection.templates.length === 1 ? 0 : this.#writer.layoutOf(request)]!;
    this.#writer.write(template, request, Date.now());
    connection.dueMs = dueMs;
    connection.send(template.bytes);
  }

  #onAnswer(connection: Connection, answer: Buffer): void {
    if (this.#expected === null) {
      const text = answer.toString('latin1');
      if (!text.startsWith('HTTP/1.1 202') || !text.endsWith('"rejected":[]}')) fail('not accepted', answer);
      this.#expected = Buffer.from(answer);
      this.#firstAnswerMs = epochMs();
    } else if (!isLike(answer, this.#expected)) fail('another answer than before', answer);
    this.#answered += 1;
    const now = performance.now();
    this.#took.addMs(now - connection.dueMs);
    this.#lastAnswerMs = performance.timeOrigin + now;
    if (this.#plan.schedule.kind === 'closed') return this.#next(connection);
    // What has waited for a connection takes this one at once.
    if (this.#sent < this.#requestsMax && this.#dueMs <= now) return this.#send(connection, this.#dueMs);
    this.#free.push(connection);
    if (this.#isOver && this.#answered === this.#sent) this.#done();
  }
}

/** The same status and body; the date between them may differ. */
function isLike(answer: Buffer, expected: Buffer): boolean {
  const { length } = expected;
  const body = expected.lastIndexOf(0x7b);
  return (
    answer.length === length &&
    answer.compare(expected, 0, STATUS_BYTES, 0, STATUS_BYTES) === 0 &&
    answer.compare(expected, body, length, body, length) === 0
  );
}

async function main(): Promise<void> {
  const load = new Load(JSON.parse(process.argv[2] ?? '') as LoadPlan);
  await load.open();
  const begun = new Promise<void>((resolve) => process.stdin.once('data', () => resolve()));
  // Whoever started it has gone.
  process.stdin.once('end', () => process.exit(1));
  process.stdout.write('{"ready":true}\n');
  await begun;
  const result = await load.run();
  process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0));
}

await main();
