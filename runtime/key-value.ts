/**
 * Key-value buckets of NATS: entitlements that edges watch, leases taken by compare-and-set.
 *
 * An entry's revision is its sequence in the bucket's stream, so the revisions of all keys together
 * increase. `create` and `update` succeed only if nobody wrote in between: of any number of contenders one
 * wins. A request that times out has an unknown effect; who needs to know reads again and compares.
 */
import { StorageType, type KV } from 'nats';
import { backoffMs } from './backoff.ts';
import { decodeKey, encodeKey } from './kv-key.ts';
import { jetStreamCode, type NatsLink } from './nats.ts';
import { pull } from './pull.ts';
import { sleep } from './retry.ts';

export interface KeyValue {
  get(key: string): Promise<{ value: string; revision: number } | null>;
  /** Writes whatever is there. Returns the new revision, as the others do. */
  put(key: string, value: string): Promise<number>;
  /** Null: the key exists. A deleted key can be created again. */
  create(key: string, value: string): Promise<number | null>;
  /** Null: `revision` is not the newest any more, the race is lost. */
  update(key: string, value: string, revision: number): Promise<number | null>;
  delete(key: string): Promise<void>;
  /**
   * Calls `onEntry` with every entry there is, then with every change; null is a deletion (also of keys
   * never told of). Resolves once the present entries were delivered and goes on until the signal. Survives
   * reconnects without missing the newest value of a key; values in between may be skipped, and entries
   * told again; keys that vanished with a lost bucket are told as null. Rejects when the bucket cannot be
   * read at first. `onEntry` must not throw. A lost bucket begins its revisions anew.
   */
  watch(
    onEntry: (key: string, value: string | null, revision: number) => void,
    signal: AbortSignal,
  ): Promise<void>;
}

export interface BucketOptions {
  readonly replicas?: number;
  /** Bytes the bucket may take on disk; writes are refused beyond. Default 64 MiB. */
  readonly maxBytes?: number;
}

const BYTES_MAX = 64 * 1024 * 1024;
const WATCH_BYTES_IN_FLIGHT = 4 * 1024 * 1024;
const REREAD = { baseMs: 50, maxMs: 2_000 };
/** "wrong last sequence": somebody else wrote first. */
const WRONG_LAST_SEQUENCE = 10_071;

/** Opens the bucket, creating it when it is missing. Keys may be any non-empty text; see kv-key.ts. */
export async function openKeyValue(
  link: NatsLink,
  bucket: string,
  options: BucketOptions = {},
): Promise<KeyValue> {
  const kv = await link.js.views.kv(bucket, {
    history: 1,
    storage: StorageType.File,
    replicas: options.replicas ?? 1,
    max_bytes: options.maxBytes ?? BYTES_MAX,
  });
  return new Bucket(link, kv, bucket);
}

class Bucket implements KeyValue {
  private readonly link: NatsLink;
  private readonly kv: KV;
  private readonly bucket: string;

  constructor(link: NatsLink, kv: KV, bucket: string) {
    this.link = link;
    this.kv = kv;
    this.bucket = bucket;
  }

  async get(key: string): Promise<{ value: string; revision: number } | null> {
    const entry = await this.kv.get(encodeKey(key));
    if (entry === null || entry.operation !== 'PUT') return null;
    return { value: entry.string(), revision: entry.revision };
  }

  put(key: string, value: string): Promise<number> {
    return this.kv.put(encodeKey(key), value);
  }

  create(key: string, value: string): Promise<number | null> {
    return nullWhenLost(this.kv.create(encodeKey(key), value));
  }

  async update(key: string, value: string, revision: number): Promise<number | null> {
    return nullWhenLost(this.kv.update(encodeKey(key), value, revision));
  }

  delete(key: string): Promise<void> {
    return this.kv.delete(encodeKey(key));
  }

  watch(
    onEntry: (key: string, value: string | null, revision: number) => void,
    signal: AbortSignal,
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      this.follow(onEntry, signal, resolve).then(resolve, reject);
    });
  }

  /**
   * Reads the bucket until the signal aborts. Whatever ends a reading, the next one starts with all entries
   * again, and a key that was told of and is not among them is told to be gone.
   */
  private async follow(
    onEntry: (key: string, value: string | null, revision: number) => void,
    signal: AbortSignal,
    onPresent: () => void,
  ): Promise<void> {
    let told = new Set<string>();
    let present = false; // Whether the entries that were there have been delivered, ever.
    for (let attempt = 0; !signal.aborted; attempt++) {
      const fresh = new Set<string>();
      const entries = this.entries(signal, () => {
        for (const key of told) if (!fresh.has(key)) onEntry(key, null, 0);
        told = fresh;
        present = true;
        attempt = 0;
        onPresent();
      });
      try {
        for await (const { key, value, revision } of entries) {
          if (value === null) fresh.delete(key);
          else fresh.add(key);
          onEntry(key, value, revision);
        }
      } catch (error) {
        if (this.link.nc.isClosed() || !present) throw error;
        for (const key of fresh) told.add(key);
      }
      await sleep(backoffMs(attempt, REREAD, Math.random), signal);
    }
  }

  /** `onPresent` is called once, when the entries that were there at the start have been taken. */
  private async *entries(
    signal: AbortSignal,
    onPresent: () => void,
  ): AsyncGenerator<{ key: string; value: string | null; revision: number }, void, void> {
    const prefix = `$KV.${this.bucket}.`;
    let present = false;
    const noneWaits = (pending: number) => {
      if (pending > 0 || present) return;
      present = true;
      onPresent();
    };
    const messages = pull(this.link, {
      stream: `KV_${this.bucket}`,
      from: { newestOf: `${prefix}>` },
      maxBytesInFlight: WATCH_BYTES_IN_FLIGHT,
      signal,
      take: (message) => message,
      onPosition: noneWaits,
    });
    for await (const { value: message, sequence, pending } of messages) {
      const operation = message.headers?.get('KV-Operation') ?? '';
      const deleted = operation === 'DEL' || operation === 'PURGE';
      yield {
        key: decodeKey(message.subject.slice(prefix.length)),
        value: deleted ? null : message.string(),
        revision: sequence,
      };
      noneWaits(pending);
    }
  }
}

async function nullWhenLost(revision: Promise<number>): Promise<number | null> {
  try {
    return await revision;
  } catch (error) {
    if (jetStreamCode(error) === WRONG_LAST_SEQUENCE) return null;
    throw error;
  }
}
