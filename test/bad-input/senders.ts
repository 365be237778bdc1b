/** Sends bad inputs to an edge, many at a time, and says which of them were not answered as they must be. */
import { Agent, request } from 'node:http';
import { connect } from 'node:net';
import { Packr } from 'msgpackr';
import { REJECTIONS } from '../../contract/rejections.ts';
import WebSocket from 'ws';
import * as msgpack from '../msgpack-encoder.ts';
import { isMsgpack, isRequest, sentBody, wayOf, type BadInput, type Expected } from './deck.ts';

const CONNECTIONS = 24;
/** A stream has credit for 64 batches; fewer are under way here. */
const BATCHES_UNDER_WAY = 32;
const BYTES_UNDER_WAY = 4_000_000;
const LARGE_BYTES = 300_000;
const PIECE_BYTES = 65_536;

export interface Wrong {
  readonly name: string;
  readonly body: string;
  readonly expected: unknown;
  readonly found: unknown;
}

interface Answer {
  readonly status: number;
  readonly body: unknown;
}

export const isSmall = ({ sent, body }: BadInput): boolean =>
  Math.max(body.length, sent?.length ?? 0) < LARGE_BYTES;

const packr = new Packr({ useRecords: false });

export class Senders {
  readonly #agent = new Agent({ keepAlive: true, maxSockets: CONNECTIONS });
  readonly #url: string;
  readonly #key: string;
  readonly #wrong: Wrong[] = [];

  constructor(url: string, key: string) {
    this.#url = url;
    this.#key = key;
  }

  /** Resolves when all are answered. What is large goes one after the other, beside the others. */
  async sendAll(inputs: readonly BadInput[]): Promise<readonly Wrong[]> {
    const requests = inputs.filter(({ way }) => isRequest(way));
    const streams = inputs.filter(({ way }) => !isRequest(way));
    const ended = streams.filter(({ expected }) => expected.kind === 'ended');
    const kept = streams.filter(({ expected }) => expected.kind !== 'ended');
    await Promise.all([
      this.#inTurns(requests.filter(isSmall), CONNECTIONS, (input) => this.#request(input)),
      this.#inTurns(
        requests.filter((input) => !isSmall(input)),
        1,
        (input) => this.#request(input),
      ),
      this.#inTurns(ended, 4, (input) => this.#untilEnded(input)),
      this.#stream(kept.filter(({ way }) => !isMsgpack(way))),
      this.#stream(kept.filter(({ way }) => isMsgpack(way))),
    ]);
    this.#agent.destroy();
    return this.#wrong;
  }

  /** All at the same time, each over a connection of its own. */
  async statusesOf(inputs: readonly BadInput[]): Promise<number[]> {
    const agent = new Agent({ maxSockets: inputs.length });
    const answers = await Promise.all(inputs.map((input) => this.#post(input, agent)));
    return answers.map(({ status }) => status);
  }

  async #inTurns(
    inputs: readonly BadInput[],
    atOnce: number,
    send: (input: BadInput) => Promise<void>,
  ): Promise<void> {
    const left = inputs.values();
    const lane = async (): Promise<void> => {
      for (const input of left) await send(input);
    };
    await Promise.all(Array.from({ length: atOnce }, lane));
  }

  #check(input: BadInput, found: unknown, expected: unknown): void {
    if (JSON.stringify(found) === JSON.stringify(expected)) return;
    const text = Buffer.from(input.body).toString('latin1');
    const body = text.length > 1_000 ? `${text.slice(0, 500)} … ${text.slice(-300)}` : text;
    this.#wrong.push({ name: input.name, body, expected, found });
  }

  async #request(input: BadInput): Promise<void> {
    let answer: Answer;
    try {
      answer = await this.#post(input);
    } catch (error) {
      return this.#check(input, String(error), answerTo(input));
    }
    this.#check(input, inShort(answer, input.expected), answerTo(input));
  }

  #post(input: BadInput, agent = this.#agent): Promise<Answer> {
    const way = wayOf(input.way);
    const body = sentBody(input);
    const headers: Record<string, string | string[]> = {
      authorization: `Bearer ${this.#key}`,
      'content-type': way.type,
      ...(input.encoding === 'identity' ? {} : { 'content-encoding': input.encoding }),
      ...(input.isChunked ? {} : { 'content-length': String(body.length) }),
      ...input.headers,
    };
    return new Promise((resolve, reject) => {
      const sending = request(`${this.#url}${way.path}`, { method: 'POST', agent, headers });
      sending.once('response', (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.once('error', reject);
        response.once('end', () => {
          const text = Buffer.concat(chunks).toString();
          resolve({ status: response.statusCode ?? 0, body: text === '' ? null : JSON.parse(text) });
        });
      });
      sending.on('error', reject);
      if (!input.isChunked) return sending.end(body);
      for (let at = 0; at < body.length; at += PIECE_BYTES)
        sending.write(body.subarray(at, at + PIECE_BYTES));
      sending.end();
    });
  }

  #open(input: BadInput): WebSocket {
    const headers = { authorization: `Bearer ${this.#key}` };
    const url = `${this.#url.replace(/^http/, 'ws')}/v1/stream`;
    return new WebSocket(url, wayOf(input.way).type, { headers, perMessageDeflate: false });
  }

  /** A connection of its own, which this input ends. */
  #untilEnded(input: BadInput): Promise<void> {
    return new Promise((resolve) => {
      const socket = this.#open(input);
      socket.on('error', () => undefined);
      socket.once('message', () =>
        socket.send(input.sent ?? frameOf(input, 1), { binary: isMsgpack(input.way) }),
      );
      socket.once('close', (code) => {
        const { codes } = input.expected as Extract<Expected, { kind: 'ended' }>;
        if (!codes.includes(code)) this.#check(input, code, codes);
        resolve();
      });
    });
  }

  /** All of them over one connection, which must outlive them. */
  #stream(inputs: readonly BadInput[]): Promise<void> {
    if (inputs.length === 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const socket = this.#open(inputs[0]!);
      const binary = isMsgpack(inputs[0]!.way);
      const underWay = new Map<number, BadInput>();
      let next = 0;
      let bytes = 0;
      const send = (): void => {
        while (next < inputs.length && underWay.size < BATCHES_UNDER_WAY && bytes < BYTES_UNDER_WAY) {
          const input = inputs[next]!;
          underWay.set(next, input);
          bytes += input.body.length;
          socket.send(frameOf(input, next), { binary });
          next += 1;
        }
        if (underWay.size === 0) socket.close();
      };
      socket.on('message', (data: Buffer) => {
        const message = (binary ? packr.unpack(data) : JSON.parse(data.toString())) as Record<
          string,
          unknown
        >;
        if (message['type'] === 'welcome') return send();
        const batch = Number(message['batch']);
        const input = underWay.get(batch);
        if (input === undefined) return reject(new Error(`no batch ${batch} is under way`));
        underWay.delete(batch);
        bytes -= input.body.length;
        this.#check(input, messageInShort(message, input.expected), messageTo(input.expected));
        send();
      });
      socket.once('error', reject);
      socket.once('close', (code) => {
        if (next === inputs.length && underWay.size === 0) return resolve();
        const names = [...underWay.values()].map(({ name }) => name);
        reject(new Error(`the stream ended with ${code} while these were under way: ${names.join('; ')}`));
      });
    });
  }
}

/** What comes back over a connection of its own until it is closed. */
export function rawAnswer(url: string, text: string): Promise<string> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve) => {
    let answer = '';
    const socket = connect(Number(port), hostname, () => socket.end(text, 'latin1'));
    socket.on('data', (chunk: Buffer) => (answer += chunk.toString('latin1')));
    socket.on('error', () => undefined);
    socket.once('close', () => resolve(answer));
  });
}

/** The envelope, its members in either order. */
function frameOf({ body, way }: BadInput, batch: number): Uint8Array {
  if (isMsgpack(way)) {
    const number = [msgpack.text('batch'), msgpack.integer(batch, 'u32')] as const;
    const events = [msgpack.text('events'), body] as const;
    return msgpack.map(batch % 2 === 0 ? [number, events] : [events, number]);
  }
  const parts =
    batch % 2 === 0 ? [`{"batch":${batch},"events":`, body, '}'] : ['{"events":', body, `,"batch":${batch}}`];
  return Buffer.concat(parts.map((part) => Buffer.from(part as Uint8Array)));
}

type Named = { readonly index: number; readonly id: string | null; readonly code: string | null };

/** Without the messages; of a rejection whose code is not known beforehand, the place alone. */
function namesOf(rejected: unknown, expected: Expected): Named[] {
  const known = expected.kind === 'events' ? expected.rejected : [];
  return (rejected as Named[]).map(({ index, id, code }, nth) =>
    known[nth]?.code === null ? { index, id: null, code: null } : { index, id, code },
  );
}

function inShort({ status, body }: Answer, expected: Expected): unknown {
  if (body === null) return { status };
  const { accepted, rejected, unmatched, code } = body as Record<string, unknown>;
  if (rejected === undefined) return { status, code };
  const names = namesOf(rejected, expected);
  return { status, code, accepted, rejected: names, unmatched };
}

/** What the edge must answer over HTTP. */
function answerTo({ way, expected }: BadInput): unknown {
  if (expected.kind === 'ended') throw new Error('a request ends no stream');
  if (expected.kind === 'refused') return { status: REJECTIONS[expected.code].status, code: expected.code };
  const { stored, rejected, unmatched } = expected;
  const counts = { accepted: stored.length, rejected, unmatched: unmatched === 0 ? undefined : unmatched };
  if (wayOf(way).path === '/api/v1/events') {
    return rejected.length === 0 ? { status: 204 } : { status: 400, code: 'events_rejected', ...counts };
  }
  if (stored.length === 0 && rejected.length > 0)
    return { status: 422, code: 'no_event_admitted', ...counts };
  return { status: 202, ...counts };
}

function messageInShort(message: Record<string, unknown>, expected: Expected): unknown {
  const { type, code, retry, accepted, rejected, unmatched } = message;
  if (type !== 'ack') return { type, code, retry };
  return { type, accepted, rejected: namesOf(rejected, expected), unmatched };
}

/** What the edge must say in a stream. */
function messageTo(expected: Expected): unknown {
  if (expected.kind === 'ended') throw new Error('it has a connection of its own');
  if (expected.kind === 'refused') return { type: 'refused', code: expected.code, retry: false };
  const { stored, rejected, unmatched } = expected;
  return {
    type: 'ack',
    accepted: stored.length,
    rejected,
    unmatched: unmatched === 0 ? undefined : unmatched,
  };
}
