/** The bucket of leases on NATS. Requests that get no answer in time fail; who made them asks again. */
import { BUCKET_LEASES } from '../contract/subjects.ts';
import { openKeyValue, type KeyValue, type NatsLink } from '../runtime/nats.ts';
import type { Timing } from './ports.ts';

export interface LeaseBucket {
  readonly connected: boolean;
  get(key: string): Promise<{ value: string; revision: number } | null>;
  put(key: string, value: string): Promise<number>;
  /** Writes if the entry has this revision, 0 for no entry. Resolves with the new one, or null when it has another. */
  write(key: string, value: string, revision: number): Promise<number | null>;
  delete(key: string): Promise<void>;
  /** See KeyValue. */
  watch: KeyValue['watch'];
  /** Called after each new connection. */
  onReconnect(listener: () => void): void;
}

/** An entry takes some 250 bytes in its stream; there are at most 1,024 shards, and a few members. */
const BYTES_MAX = 4 * 1024 ** 2;

export interface LeaseBucketOptions {
  readonly link: NatsLink;
  readonly replicas: number;
  readonly answerWithinMs: number;
  readonly timing: Timing;
  readonly signal: AbortSignal;
}

export function natsLeaseBucket(o: LeaseBucketOptions): LeaseBucket {
  const { link, replicas, answerWithinMs, timing, signal } = o;
  let opening: Promise<KeyValue> | undefined;
  const open = (): Promise<KeyValue> =>
    (opening ??= openKeyValue(link, BUCKET_LEASES, { maxBytes: BYTES_MAX, replicas }));

  const asking = async <T>(ask: (bucket: KeyValue) => Promise<T>): Promise<T> => {
    const answered = new AbortController();
    const answer = open().then(ask);
    answer.catch(() => {});
    const late = timing.sleep(answerWithinMs, answered.signal).then((): never => {
      throw new Error(`NATS did not answer within ${answerWithinMs} ms`);
    });
    late.catch(() => {});
    try {
      return await Promise.race([answer, late]);
    } catch (error) {
      // Opened again: the bucket may be gone.
      opening = undefined;
      throw error;
    } finally {
      answered.abort();
    }
  };

  return {
    get connected() {
      return link.connected;
    },
    get: (key) => asking((bucket) => bucket.get(key)),
    put: (key, value) => asking((bucket) => bucket.put(key, value)),
    write: (key, value, revision) =>
      asking((bucket) => (revision === 0 ? bucket.create(key, value) : bucket.update(key, value, revision))),
    delete: (key) => asking((bucket) => bucket.delete(key)),
    watch: async (...of) => (await open()).watch(...of),
    onReconnect(listener) {
      const forget = link.onConnection((connected) => connected && listener());
      signal.addEventListener('abort', forget, { once: true });
    },
  };
}
