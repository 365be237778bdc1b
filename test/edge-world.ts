/**
 * The edge as a process, from the build, against a real NATS, for one test file:
 *
 *   const world = await EdgeWorld.start();
 *   afterEach(() => world.endEdges());
 *   afterAll(() => world.stop());
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { decodeBlock, idOf, textOf, type Block } from '../contract/block.ts';
import { FIELD_NUMBER } from '../contract/fields.ts';
import { makeKey, type KeyRecord, type Scope } from '../contract/key.ts';
import { BUCKET_KEYS, streamName } from '../contract/subjects.ts';
import { createLog } from '../runtime/log.ts';
import { connectNats, openKeyValue, readLog, type KeyValue, type NatsLink } from '../runtime/nats.ts';
import { startEngines, type Engines } from './engines.ts';
import { until } from './until.ts';

const main = fileURLToPath(new URL('../dist/ingest/main.js', import.meta.url));
export const IDENTITY_KEY = '000102030405060708090a0b0c0d0e0f';

export interface RunningEdge {
  readonly url: string;
  readonly port: number;
  /** Of /readyz and /metrics. */
  readonly ops: string;
  readonly child: ChildProcess;
  /** Its exit code. */
  readonly exited: Promise<number | null>;
}

/** An event as it stands in the log. */
export interface LoggedEvent {
  readonly id: string;
  readonly tenant: string;
  readonly source: string;
  readonly type: string;
  readonly subject: string;
  readonly timeMs: number;
  readonly timeGiven: boolean;
  readonly identity: string;
  readonly payload: string;
  /** By path: a number as mantissa and scale, everything else as its text. */
  readonly fields: Readonly<Record<string, string>>;
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  /** Empty when there is no body. */
  readonly body: Record<string, unknown>;
}

export class EdgeWorld {
  readonly engines: Engines;
  readonly link: NatsLink;
  readonly keys: KeyValue;
  readonly shards: number;
  readonly #edges: ChildProcess[] = [];
  #keysMade = 0;

  private constructor(engines: Engines, link: NatsLink, keys: KeyValue, shards: number) {
    this.engines = engines;
    this.link = link;
    this.keys = keys;
    this.shards = shards;
  }

  static async start(shards = 2): Promise<EdgeWorld> {
    const engines = await startEngines({ nats: true });
    const link = await connectNats({ url: engines.natsUrl, name: 'test', log: createLog('test', 'silent') });
    return new EdgeWorld(engines, link, await openKeyValue(link, BUCKET_KEYS), shards);
  }

  async stop(): Promise<void> {
    await this.endEdges();
    await this.link.close();
    await this.engines.stop();
  }

  /** Stops NATS as it stands: it keeps what it has, and answers nothing, until the function is called. */
  async pauseNats(): Promise<() => void> {
    const { pid } = this.engines.nats.engine();
    process.kill(pid, 'SIGSTOP');
    const state = (): string => spawnSync('ps', ['-o', 'state=', '-p', String(pid)]).stdout.toString();
    await until('NATS stands still', () => state().startsWith('T'));
    return () => void process.kill(pid, 'SIGCONT');
  }

  /** Kills every edge that runs still. */
  async endEdges(): Promise<void> {
    for (const edge of this.#edges.splice(0)) {
      if (edge.exitCode !== null || edge.signalCode !== null) continue;
      const closed = new Promise((resolve) => edge.once('close', resolve));
      edge.kill('SIGKILL');
      await closed;
    }
  }

  /** Starts an edge; resolves when it is ready, rejects with what it printed when it ends before. */
  async edge(env: Readonly<Record<string, string>> = {}): Promise<RunningEdge> {
    const child = spawn(process.execPath, [main], {
      env: {
        PATH: process.env['PATH'],
        NATS_URL: this.engines.natsUrl,
        TALLYLINE_EDGE_PORT: '0',
        TALLYLINE_SHARDS: String(this.shards),
        TALLYLINE_IDENTITY_KEY: IDENTITY_KEY,
        TALLYLINE_STOP_WITH_PARENT: '1',
        ...env,
      },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    this.#edges.push(child);
    let printed = '';
    child.stderr.on('data', (chunk: Buffer) => (printed += chunk.toString()));
    const exited = new Promise<number | null>((resolve) => child.once('close', resolve));
    const ready = new Promise<{ edge: string; ops: string }>((resolve) => {
      createInterface({ input: child.stdout }).on('line', (line) => {
        printed += `${line}\n`;
        const parsed = JSON.parse(line) as { ready?: boolean; edge: string; ops: string };
        if (parsed.ready === true) resolve(parsed);
      });
    });
    const ended = exited.then((code) => {
      throw new Error(`the edge ended with ${code}:\n${printed}`);
    });
    const { edge, ops } = await Promise.race([ready, ended]);
    ended.catch(() => undefined);
    return { url: edge, port: Number(new URL(edge).port), ops, child, exited };
  }

  /** Publishes a new key, as the ledger does. */
  async newKey(scopes: Scope[] = ['ingest'], tenant = 'acme'): Promise<{ key: string; id: string }> {
    this.#keysMade += 1;
    const random = Uint8Array.from(
      { length: 64 },
      (_, at) => (at * 7 + this.#keysMade * 13 + process.pid) % 248,
    );
    const { key, id, secret } = makeKey(random);
    const secretHash = createHash('sha256').update(secret).digest('hex');
    const record: KeyRecord = { id, tenant, scopes, secretHash, expiresAtMs: null };
    await this.keys.put(id, JSON.stringify(record));
    return { key, id };
  }

  get allShards(): readonly number[] {
    return Array.from({ length: this.shards }, (_, shard) => shard);
  }

  /** Every block that the logs of these shards hold now. */
  async blocks(shards = this.allShards): Promise<Block[]> {
    const found: Block[] = [];
    for (const shard of shards) {
      const stream = streamName(shard);
      const { state } = await this.link.jsm.streams.info(stream);
      if (state.messages === 0) continue;
      const stop = new AbortController();
      for await (const message of readLog(this.link, {
        stream,
        fromSequence: state.first_seq,
        maxBytesInFlight: 8_000_000,
        signal: stop.signal,
      })) {
        found.push(decodeBlock(message.data));
        if (message.sequence >= state.last_seq) break;
      }
      stop.abort();
    }
    return found;
  }

  async idsInLog(): Promise<Set<string>> {
    const ids = new Set<string>();
    for (const block of await this.blocks())
      for (let at = 0; at < block.count; at++) ids.add(idOf(block, at));
    return ids;
  }

  /** The events of the log whose id begins like this, each as often as it stands there. */
  async events(prefix: string, shards = this.allShards): Promise<LoggedEvent[]> {
    const found: LoggedEvent[] = [];
    for (const block of await this.blocks(shards)) {
      for (let at = 0; at < block.count; at++)
        if (idOf(block, at).startsWith(prefix)) found.push(loggedEvent(block, at));
    }
    return found;
  }
}

function loggedEvent(block: Block, at: number): LoggedEvent {
  const text = (number: number | undefined): string => textOf(block, number!);
  const hex = (words: Uint32Array): string =>
    [...words].map((word) => word.toString(16).padStart(8, '0')).join('');
  const fields: Record<string, string> = {};
  const shape = block.shape[at]!;
  let cell = block.cellStart[at]!;
  for (let field = block.shapeStart[shape]!; field < block.shapeStart[shape + 1]!; field++) {
    const code = block.shapeFields[field * 2 + 1]!;
    const value = block.cells[cell]!;
    cell += 1;
    const path = text(block.shapeFields[field * 2]);
    fields[path] = code >> 8 === FIELD_NUMBER ? `${value}e-${code & 0xff}` : text(value);
  }
  return {
    id: idOf(block, at),
    tenant: text(block.tenant[at]),
    source: text(block.source[at]),
    type: text(block.type[at]),
    subject: text(block.subject[at]),
    timeMs: block.time[at]!,
    timeGiven: (block.flags[at]! & 1) === 1,
    identity: hex(block.identity.subarray(at * 4, at * 4 + 4)),
    payload: hex(block.payloadHash.subarray(at * 2, at * 2 + 2)),
    fields,
  };
}

export interface PostOptions {
  readonly type?: string;
  readonly path?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

export async function post(
  url: string,
  key: string,
  body: string | Uint8Array,
  { type = 'application/json', path = '/v1/events', headers = {} }: PostOptions = {},
): Promise<Answer> {
  const response = await fetch(`${url}${path}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': type, ...headers },
    body: typeof body === 'string' ? body : new Uint8Array(body),
  });
  const text = await response.text();
  return {
    status: response.status,
    headers: response.headers,
    body: text === '' ? {} : (JSON.parse(text) as Record<string, unknown>),
  };
}

export const usageEvent = (id: string, more: object = {}): object => ({
  id,
  source: 'test',
  type: 'llm.request',
  subject: 'cus_1',
  data: { tokens: 12 },
  ...more,
});
