/** The logs of the shards, and the board of their watermarks, on NATS. */
import { BUCKET_WATERMARKS, FLUSH_NOTICE, streamName } from '../contract/subjects.ts';
import {
  isConnectionError,
  isStreamNotFound,
  jetStreamCode,
  LogRewoundError,
  openKeyValue,
  type KeyValue,
  type NatsLink,
} from '../runtime/nats.ts';
import { pull } from '../runtime/pull.ts';
import { contradictionOf } from '../runtime/stream-state.ts';
import { firstIn } from './gap.ts';
import { findDifference, markOf, type StoredMessage } from './log-mark.ts';
import {
  LogError,
  type PulledMessage,
  type ReadOptions,
  type ShardLog,
  type WatermarkBoard,
} from './ports.ts';

const NO_MESSAGE_FOUND = 10_037;

export function natsLog(link: NatsLink, shard: number): ShardLog {
  const name = streamName(shard);
  const message = async (wanted: { seq: number; next_by_subj?: string }): Promise<StoredMessage | null> => {
    if (wanted.seq < 1) return null;
    try {
      const { seq, time, data } = await link.jsm.streams.getMessage(name, wanted);
      return { ...markOf(seq, time.getTime(), data), message: data };
    } catch (error) {
      if (jetStreamCode(error) === NO_MESSAGE_FOUND) return null;
      throw error;
    }
  };
  const own: ShardLog = {
    name,
    facts: () =>
      telling(async () => {
        const { created, state } = await link.jsm.streams.info(name);
        return {
          name,
          created: String(created),
          firstSequence: state.first_seq,
          lastSequence: state.last_seq,
          contradiction: contradictionOf(name, state),
        };
      }),
    messageAt: (sequence) => telling(() => message({ seq: sequence })),
    messageFrom: (sequence, until) =>
      telling(async () => {
        const next = await message({ seq: sequence, next_by_subj: '>' });
        if (next !== null) return next.sequence <= until ? next : null;
        if ((await own.facts()).lastSequence < sequence) return null;
        // The last message is always there. So the broker failed to read a file of its storage, and then it looks into
        // none behind that.
        for (let at = sequence; at <= until; at++) {
          const present = await message({ seq: at });
          if (present !== null) return present;
        }
        return null;
      }),
    read: (o) => read(link, name, o),
    size: () =>
      telling(async () => {
        const { state, config } = await link.jsm.streams.info(name);
        const { bytes, messages, first_seq: firstSequence } = state;
        return { bytes, bytesMax: config.max_bytes, messages, firstSequence };
      }),
    // The broker knows no condition for a purge, so the comparison comes right before it. A process that is put to
    // sleep between these two requests for so long that the broker loses its log, comes back and has grown beyond
    // `before`, would purge what nobody has counted: nothing here can prevent it.
    purge: async (before, { created, has, lacks }) => {
      if ((await findDifference(own, created, has)) !== null) return null;
      for (const gap of lacks) if ((await firstIn(own, gap)) !== null) return null;
      // Of a log that contradicts itself nobody knows which messages would go.
      if ((await own.facts()).contradiction != null) return null;
      return telling(async () => (await link.jsm.streams.purge(name, { seq: before })).purged);
    },
    tell: (notice) => link.nc.publish(FLUSH_NOTICE, new TextEncoder().encode(JSON.stringify(notice))),
  };
  return own;
}

async function* read(
  link: NatsLink,
  stream: string,
  { from, maxBytesInFlight, signal, onPosition }: ReadOptions,
): AsyncGenerator<PulledMessage, void, void> {
  try {
    const take = (message: { readonly data: Uint8Array }): Uint8Array => message.data;
    const messages = pull(link, { stream, from, maxBytesInFlight, signal, take, onPosition });
    for await (const { sequence, timeMs, value } of messages) yield { sequence, timeMs, data: value };
  } catch (error) {
    throw told(error);
  }
}

async function telling<T>(ask: () => Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    throw told(error);
  }
}

/** In the words of the port; anything else is thrown as it is. */
function told(error: unknown): unknown {
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof LogRewoundError) return new LogError('rewound', message, { cause: error });
  if (isStreamNotFound(error)) return new LogError('gone', message, { cause: error });
  if (isConnectionError(error)) return new LogError('away', message, { cause: error });
  return error;
}

/** A record takes some 250 bytes in its stream, and there are at most 1,024 shards. */
const BUCKET_BYTES_MAX = 1024 ** 2;

export function natsBoard(link: NatsLink, replicas: number): WatermarkBoard {
  let opening: Promise<KeyValue> | undefined;
  return {
    async put(shard, record) {
      try {
        opening ??= openKeyValue(link, BUCKET_WATERMARKS, { maxBytes: BUCKET_BYTES_MAX, replicas });
        await (await opening).put(String(shard), record);
      } catch (error) {
        // Opened again after a failure: it may be gone.
        opening = undefined;
        throw error;
      }
    },
    // After every new connection: the broker may have come back with an earlier state of the bucket.
    onForgotten: (listener) => link.onConnection((connected) => connected && listener()),
  };
}
