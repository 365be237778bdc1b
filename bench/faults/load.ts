// Products that record events as long as they are told to, each through a client of its own, and know what they
// recorded. A client repeats what was not acknowledged, so in the end everything recorded is acknowledged; an
// event that was acknowledged and then lost is never sent again, and is missing from the count.
import { TallylineClient } from '../../client/index.ts';
import { EVENT_TYPE } from './world.ts';

export type Transport = 'http' | 'websocket';

const PAUSE_MS = 4;
const EVENTS_A_PAUSE = 10;

export class Product {
  readonly client: TallylineClient;
  recorded = 0;
  sum = 0n;
  readonly #prefix: string;
  #going = true;
  readonly #done: Promise<void>;
  #rejected: string | undefined;

  constructor(o: { url: string; key: string; transport: Transport; prefix: string }) {
    this.#prefix = o.prefix;
    this.client = new TallylineClient({
      url: o.url,
      key: o.key,
      transport: o.transport,
      batchEventsMax: 50,
      flushIntervalMs: 5,
      attemptsMax: 10_000,
      backoffBaseMs: 20,
      backoffMaxMs: 200,
      retryAfterMaxMs: 100,
      onRejected: ({ code, message }) => (this.#rejected = `${code}: ${message}`),
    });
    this.#done = this.#record();
  }

  get accepted(): number {
    return this.client.stats.accepted;
  }

  /** Records no more; resolves when all of it is acknowledged. */
  async stop(): Promise<void> {
    this.#going = false;
    await this.#done;
    await this.client.close();
    if (this.#rejected !== undefined) throw new Error(`an event was rejected: ${this.#rejected}`);
    if (this.accepted !== this.recorded) {
      throw new Error(`${this.recorded} events were recorded, ${this.accepted} acknowledged`);
    }
  }

  async #record(): Promise<void> {
    while (this.#going) {
      for (let at = 0; at < EVENTS_A_PAUSE; at++) {
        const amount = 1 + (this.recorded % 1_000);
        await this.client.record({
          id: `${this.#prefix}-${this.recorded}`,
          type: EVENT_TYPE,
          subject: `subject-${this.recorded % 7}`,
          data: { amount },
        });
        this.recorded += 1;
        this.sum += BigInt(amount);
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
}
