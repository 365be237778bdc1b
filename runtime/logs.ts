/**
 * The ordered logs of a deployment, as every stage that touches them needs them: the settings, the streams, and
 * the facts that all processes must agree on for ever.
 */
import { integer } from './config.ts';
import { ensureStream, type KeyValue, type NatsLink } from './nats.ts';

const SHARDS_MAX = 1_024;

/** Configuration fields; the same names and bounds in every stage. */
export const logFields = {
  shards: integer('TALLYLINE_SHARDS', {
    describe: 'ordered logs; the same for the whole deployment, for ever',
    default: 4,
    min: 1,
    max: SHARDS_MAX,
  }),
  streamBytesMax: integer('TALLYLINE_STREAM_BYTES_MAX', {
    describe: 'bytes one log may take on disk; when it is full, senders are told to wait',
    default: 1_073_741_824,
    min: 65_536,
    max: Number.MAX_SAFE_INTEGER,
  }),
  streamReplicas: integer('TALLYLINE_STREAM_REPLICAS', {
    describe: 'copies of each log in a NATS cluster',
    default: 1,
    min: 1,
    max: 5,
  }),
};

export interface LogSettings {
  readonly shards: number;
  readonly streamBytesMax: number;
  readonly streamReplicas: number;
}

/** Makes the streams that are missing. Whichever stage starts first does it. */
export async function ensureLogs(
  link: NatsLink,
  settings: LogSettings,
  log: (shard: number) => { readonly name: string; readonly subject: string },
): Promise<void> {
  for (let shard = 0; shard < settings.shards; shard++) {
    const { name, subject } = log(shard);
    await ensureStream(link, {
      name,
      subjects: [subject],
      maxBytes: settings.streamBytesMax,
      replicas: settings.streamReplicas,
    });
  }
}

/**
 * Agrees on a fact with the other processes of the deployment: the first one to start writes it, each one after
 * that compares. Throws on a difference; the message names the setting.
 */
export async function agreeOn(facts: KeyValue, fact: string, ours: string, setting: string): Promise<void> {
  if ((await facts.create(fact, ours)) !== null) return;
  const theirs = (await facts.get(fact))?.value;
  if (theirs === ours) return;
  throw new Error(
    `${setting} is ${ours} here, but this deployment was started with ${theirs ?? 'a value since removed'}: ` +
      'set it to that again. It never changes, or events sent twice would be counted twice',
  );
}
