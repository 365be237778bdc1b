// Products that record events as long as they are told to, each through a client of its own, and know what they
// recorded. A client repeats what was not acknowledged, so in the end everything recorded is acknowledged; an
// event that was acknowledged and then lost is never sent again, and is missing from the count.
import { TallylineClient } from '../../client/index.ts';
import { until } from '../../test/until.ts';
import { EVENT_TYPE } from './world.ts';

export type Transport = 'http' | 'websocket';

const PAUSE_MS = 12;
const EVENTS_A_PAUSE = 10;
const SUBJECTS = 7;
const CLOSE_MS = 500;
/** So that products wait while nothing is taken, and do not send minutes of it afterwards. */
const BUFFER_EVENTS_MAX = 2_000;

export class Product {
  readonly client: TallylineClient;
  readonly prefix: string;
  recorded = 0;
  sum = 0n;
  #going = false;
  #done: Promise<void> = Promise.resolve();
  #rejected: string | undefined;

  constructor(o: { url: string; key: string; transport: Transport; prefix: string }) {
    this.prefix = o.prefix;
    this.client = new TallylineClient({
      url: o.url,
      key: o.key,
      transport: o.transport,
      batchEventsMax: 50,
      bufferEventsMax: BUFFER_EVENTS_MAX,
      flushIntervalMs: 5,
      attemptsMax: 1_000_000,
      backoffBaseMs: 20,
      backoffMaxMs: 200,
      retryAfterMaxMs: 100,
      onRejected: ({ code, message }) => (this.#rejected = `${code}: ${message}`),
    });
    this.resume();
  }

  get accepted(): number {
    return this.client.stats.accepted;
  }

  get settled(): boolean {
    return this.accepted === this.recorded;
  }

  resume(): void {
    this.#going = true;
    this.#done = this.#record();
  }

  /** Records no more; resolves when all of it is acknowledged. */
  async pause(withinMs: number): Promise<void> {
    this.#going = false;
    await until(
      `everything that ${this.prefix} recorded is acknowledged`,
      () => this.settled || this.#rejected !== undefined,
      withinMs,
    ).catch((error: unknown) => {
      throw new Error(
        `${this.recorded} events were recorded by ${this.prefix}, ${this.accepted} acknowledged`,
        {
          cause: error,
        },
      );
    });
    if (this.#rejected !== undefined) throw new Error(`an event was rejected: ${this.#rejected}`);
    await this.#done;
  }

  /** Abandons what is not acknowledged: after a failure a client would try for ever. */
  async close(): Promise<void> {
    this.#going = false;
    const closed = this.client.close().catch(() => {});
    this.#done.catch(() => {});
    await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, CLOSE_MS).unref())]);
  }

  async #record(): Promise<void> {
    while (this.#going) {
      for (let at = 0; at < EVENTS_A_PAUSE && this.#going; at++) {
        const amount = 1 + (this.recorded % 1_000);
        const id = `${this.prefix}-${this.recorded}`;
        // Counted before it can be acknowledged, or an acknowledgement could be ahead of it.
        this.recorded += 1;
        this.sum += BigInt(amount);
        await this.client.record({
          id,
          type: EVENT_TYPE,
          subject: `subject-${this.recorded % SUBJECTS}`,
          data: { amount },
        });
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
}

const TRANSPORTS: readonly Transport[] = ['http', 'websocket', 'http', 'websocket'];
const FLOW_EVENTS = 100;
const FLOW_DEADLINE_MS = 60_000;

/** Two products over HTTP and two over WebSocket, which send all the while. */
export class Load {
  readonly products: readonly Product[];

  constructor(o: { url: string; key: string }) {
    this.products = TRANSPORTS.map(
      (transport, at) => new Product({ ...o, transport, prefix: `${transport}-${at}` }),
    );
  }

  get recorded(): number {
    return this.products.reduce((total, { recorded }) => total + recorded, 0);
  }

  get sum(): bigint {
    return this.products.reduce((total, { sum }) => total + sum, 0n);
  }

  /** Every product gets on: a transport that never recovers is no success of the others. */
  async flowing(withinMs = FLOW_DEADLINE_MS): Promise<void> {
    const before = this.products.map(({ accepted }) => accepted);
    await until(
      'events of every product are taken',
      () => this.products.every(({ accepted }, at) => accepted >= before[at]! + FLOW_EVENTS),
      withinMs,
    );
  }

  async pause(): Promise<void> {
    await Promise.all(this.products.map((product) => product.pause(FLOW_DEADLINE_MS)));
  }

  resume(): void {
    for (const product of this.products) product.resume();
  }

  async close(): Promise<void> {
    await Promise.all(this.products.map((product) => product.close()));
  }
}
