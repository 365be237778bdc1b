// The load: one process, plain sockets, bodies made beforehand, so that it costs as little as it can.
//
// Each connection has a number of requests under way (one over HTTP, where servers answer in order; several
// over WebSocket) and sends the next one when an answer has come: what is measured is how fast the server
// answers, not how long a queue we can build. Every answer must be the expected one, or the run fails.
//
// Reads a LoadPlan as its first argument; prints a LoadResult as JSON on a line of its own.
import { connect, type Socket } from 'node:net';
import { bodyOf } from './event.ts';

export interface LoadPlan {
  readonly transport: 'http' | 'websocket';
  readonly port: number;
  readonly key: string;
  readonly eventsPerRequest: number;
  readonly connections: number;
  /** Requests under way on a connection; over HTTP always 1. */
  readonly depth: number;
  readonly warmupMs: number;
  readonly runMs: number;
}

export interface LoadResult {
  readonly requests: number;
  readonly events: number;
  readonly seconds: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** Different bodies that a connection cycles through. */
const BODIES_BYTES = 4_000_000;
const ANSWER_BYTES_MAX = 4_096;

class Samples {
  readonly #ms: number[] = [];

  add(ms: number): void {
    this.#ms.push(ms);
  }

  quantile(part: number): number {
    const sorted = Float64Array.from(this.#ms).sort();
    return sorted.length === 0 ? 0 : sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))]!;
  }
}

function makeBodies(plan: LoadPlan): Buffer[] {
  const time = new Date(Math.floor(Date.now() / 60_000) * 60_000).toISOString();
  const one = bodyOf(0, plan.eventsPerRequest, time).length;
  const count = Math.max(4, Math.floor(BODIES_BYTES / one));
  return Array.from({ length: count }, (_, at) =>
    bodyOf(at * plan.eventsPerRequest, plan.eventsPerRequest, time),
  );
}

function httpRequest(plan: LoadPlan, body: Buffer): Buffer {
  const head =
    `POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer ${plan.key}\r\n` +
    `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n`;
  return Buffer.concat([Buffer.from(head), body]);
}

/** A masked text frame whose mask is zero, so that the payload stands in it as it is. */
function frame(payload: Buffer): Buffer {
  const { length } = payload;
  const head = Buffer.alloc(length < 126 ? 6 : length < 65_536 ? 8 : 14);
  head[0] = 0x81;
  if (length < 126) head[1] = 0x80 | length;
  else if (length < 65_536) {
    head[1] = 0x80 | 126;
    head.writeUInt16BE(length, 2);
  } else {
    head[1] = 0x80 | 127;
    head.writeBigUInt64BE(BigInt(length), 2);
  }
  return Buffer.concat([head, payload]);
}

/** Counts down the time and collects what the connections measure. */
class Run {
  readonly samples = new Samples();
  requests = 0;
  readonly plan: LoadPlan;
  readonly bodies: Buffer[];
  readonly #startMs = performance.now();
  #measuredFrom = 0;
  #measuredTo = 0;

  constructor(plan: LoadPlan) {
    this.plan = plan;
    this.bodies = makeBodies(plan).map((body) =>
      plan.transport === 'http' ? httpRequest(plan, body) : body,
    );
  }

  /** False when the time is over. */
  answered(sentMs: number): boolean {
    const now = performance.now();
    const { warmupMs, runMs } = this.plan;
    if (now < this.#startMs + warmupMs) return true;
    if (this.#measuredFrom === 0) {
      this.#measuredFrom = now;
      process.stdout.write('{"measuring":true}\n');
    }
    if (now >= this.#measuredFrom + runMs) {
      if (this.#measuredTo === 0) {
        this.#measuredTo = now;
        process.stdout.write('{"measuring":false}\n');
      }
      return false;
    }
    this.requests += 1;
    this.samples.add(now - sentMs);
    return true;
  }

  result(): LoadResult {
    return {
      requests: this.requests,
      events: this.requests * this.plan.eventsPerRequest,
      seconds: (this.#measuredTo - this.#measuredFrom) / 1_000,
      p50Ms: this.samples.quantile(0.5),
      p99Ms: this.samples.quantile(0.99),
    };
  }
}

function open(
  run: Run,
  onBytes: (socket: Socket, bytes: Buffer) => void,
): Promise<{ socket: Socket; ended: Promise<void> }> {
  return new Promise((resolve, reject) => {
    const buffer = Buffer.alloc(65_536);
    const socket: Socket = connect({
      host: '127.0.0.1',
      port: run.plan.port,
      noDelay: true,
      onread: {
        buffer,
        callback(length) {
          onBytes(socket, buffer.subarray(0, length));
          return true;
        },
      },
    });
    socket.once('error', reject);
    const ended = new Promise<void>((done) => socket.once('close', () => done()));
    socket.once('connect', () => resolve({ socket, ended }));
  });
}

function fail(what: string, bytes: Buffer): never {
  process.stderr.write(`${what}: ${bytes.subarray(0, 500).toString('latin1')}\n`);
  process.exit(1);
}

/** All answers of a run have the same length, so they are counted by bytes once the first was looked at. */
async function httpConnection(run: Run, at: number): Promise<void> {
  let next = at * 17;
  let answerBytes = 0;
  let got = 0;
  let sentMs = 0;
  const { bodies } = run;
  const send = (socket: Socket): void => {
    sentMs = performance.now();
    socket.write(bodies[next++ % bodies.length]!);
  };
  const { socket, ended } = await open(run, (own, bytes) => {
    got += bytes.length;
    if (answerBytes === 0) {
      const text = bytes.toString('latin1');
      if (!text.startsWith('HTTP/1.1 202') || !text.endsWith('"rejected":[]}')) fail('not accepted', bytes);
      answerBytes = bytes.length;
    }
    if (got < answerBytes) return;
    if (got > answerBytes || got > ANSWER_BYTES_MAX) fail('another answer than before', bytes);
    got = 0;
    if (run.answered(sentMs)) send(own);
    else own.destroy();
  });
  send(socket);
  await ended;
}

const UPGRADE = (plan: LoadPlan): string =>
  `GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer ${plan.key}\r\nUpgrade: websocket\r\n` +
  'Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n' +
  'Sec-WebSocket-Protocol: tallyline.v1.json\r\n\r\n';

const ACK = '{"type":"ack","batch":';

async function streamConnection(run: Run, at: number): Promise<void> {
  const { bodies, plan } = run;
  // The number of a batch is one digit: the slot that it takes on this connection.
  const frames = Array.from({ length: plan.depth }, (_, slot) =>
    bodies.slice(0, 64).map((body) => {
      const events = body[0] === 0x5b ? body.toString('latin1') : `[${body.toString('latin1')}]`;
      return frame(Buffer.from(`{"batch":${slot},"events":${events}}`, 'latin1'));
    }),
  );
  const sentMs = new Float64Array(plan.depth);
  let next = at * 17;
  let upgraded = false;
  let rest = Buffer.alloc(0);
  const send = (socket: Socket, slot: number): void => {
    sentMs[slot] = performance.now();
    const own = frames[slot]!;
    socket.write(own[next++ % own.length]!);
  };
  const { socket, ended } = await open(run, (own, bytes) => {
    let all = rest.length === 0 ? bytes : Buffer.concat([rest, bytes]);
    if (!upgraded) {
      const end = all.indexOf('\r\n\r\n');
      if (end < 0) return void (rest = Buffer.from(all));
      if (!all.toString('latin1', 0, 12).startsWith('HTTP/1.1 101')) fail('no upgrade', all);
      upgraded = true;
      all = all.subarray(end + 4);
      for (let slot = 0; slot < plan.depth; slot++) send(own, slot);
    }
    while (all.length >= 2) {
      const short = all[1]! & 0x7f;
      if (short === 127) fail('a long frame', all);
      const head = short === 126 ? 4 : 2;
      if (all.length < head) break;
      const length = short === 126 ? all.readUInt16BE(2) : short;
      if (all.length < head + length) break;
      const message = all.toString('latin1', head, head + length);
      all = all.subarray(head + length);
      if (message.startsWith('{"type":"welcome"')) continue;
      if (!message.startsWith(ACK) || !message.endsWith('"rejected":[]}'))
        fail('not accepted', Buffer.from(message));
      const slot = message.charCodeAt(ACK.length) - 0x30;
      if (run.answered(sentMs[slot]!)) send(own, slot);
      else own.destroy();
    }
    rest = Buffer.from(all);
  });
  socket.write(UPGRADE(plan));
  await ended;
}

async function main(): Promise<void> {
  const plan = JSON.parse(process.argv[2] ?? '') as LoadPlan;
  if (plan.depth > 10) throw new Error('a batch number has one digit here: depth is 10 at most');
  const run = new Run(plan);
  const one = plan.transport === 'http' ? httpConnection : streamConnection;
  await Promise.all(Array.from({ length: plan.connections }, (_, at) => one(run, at)));
  process.stdout.write(`${JSON.stringify(run.result())}\n`);
}

await main();
