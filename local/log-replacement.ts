/**
 * Taking away a log that holds messages and delivers none of them, so that another one can be made in its place.
 *
 * The new stream is not the one that was counted: the aggregator begins a new incarnation by itself, the edges find
 * their blocks in doubt and send again what their journals hold, and nothing counts twice. What goes is what the old
 * stream held and nobody could read: with an edge journal nothing, without one every event in it.
 *
 * So it is done only when that is certain, and each doubt is a refusal with its reason:
 *
 *   1. the tables were counted from this very stream: it was made at the instant that the watermark names. Otherwise
 *      these are other tables, or an aggregator has yet to look at a stream that was made anew;
 *   2. the log goes on behind the watermark, and none of that can be read: a consumer delivers nothing within seconds,
 *      and neither the next messages nor the newest can be got one by one. While one can, an aggregator can count it;
 *   3. the watermark did not move meanwhile: nobody is counting;
 *   4. a log that contradicts itself (runtime/stream-state.ts) needs no 2: it can be read, and answers with the wrong
 *      messages, so no aggregator reads it.
 *
 * A crash between taking away and making again leaves no stream: whichever stage looks next makes it.
 */
import { streamName } from '../contract/subjects.ts';
import type { ClickHouse } from '../runtime/clickhouse.ts';
import { ensureStream, isStreamNotFound, readLog, type NatsLink } from '../runtime/nats.ts';
import { contradictionOf } from '../runtime/stream-state.ts';

const PROBES_MAX = 256;
const DELIVER_WITHIN_MS = 3_000;
const READ_BYTES_MAX = 1024 ** 2;

export interface CountedTo {
  readonly incarnation: number;
  readonly sequence: number;
  readonly streamCreated: string;
  /** When the newest event behind it was accepted, as ISO 8601. */
  readonly acceptedAt: string;
}

interface StreamNow {
  readonly created: string;
  readonly firstSequence: number;
  readonly lastSequence: number;
  readonly messages: number;
  readonly subjects: readonly string[];
  readonly bytesMax: number;
  readonly replicas: number;
  readonly contradiction: string | null;
}

export interface Examination {
  readonly name: string;
  readonly stream: StreamNow | null;
  readonly counted: CountedTo | null;
  /** Why it must not be replaced; null when it may. */
  readonly refusal: string | null;
}

export interface Engines {
  readonly link: NatsLink;
  readonly ch: ClickHouse;
}

/** Looks, and changes nothing. Takes some seconds. */
export async function examineLog({ link, ch }: Engines, shard: number): Promise<Examination> {
  const name = streamName(shard);
  const counted = await countedTo(ch, shard);
  const stream = await streamNow(link, name);
  const told = (refusal: string | null): Examination => ({ name, stream, counted, refusal });

  if (stream === null)
    return told(`there is no stream ${name}: an aggregator or an edge makes it when it starts`);
  if (counted === null)
    return told(`these tables know nothing of shard ${shard}: is it the right CLICKHOUSE_URL?`);
  if (counted.streamCreated !== stream.created) {
    return told(
      `the tables were counted from a stream that was made ${counted.streamCreated}, and this one was made ` +
        `${stream.created}: they are not of one deployment, or an aggregator has yet to look at it`,
    );
  }
  if (stream.contradiction === null) {
    if (stream.lastSequence <= counted.sequence) {
      return told(`everything in it is counted, up to ${counted.sequence}: there is nothing to mend`);
    }
    const readable = await findReadable(link, name, counted.sequence + 1, stream.lastSequence);
    if (readable !== null) {
      return told(
        `message ${readable} can be read and is behind ${counted.sequence}, up to where it is counted: ` +
          'let an aggregator count it first (its /readyz says what keeps it)',
      );
    }
  }
  const again = await countedTo(ch, shard);
  if (again?.sequence !== counted.sequence || again.incarnation !== counted.incarnation)
    return told(`it is being counted: the watermark moved from ${counted.sequence} to ${again?.sequence}`);
  return told(null);
}

/** Looks again, and replaces the log when nothing speaks against it; returns what was found. */
export async function replaceLog(engines: Engines, shard: number): Promise<Examination> {
  const examination = await examineLog(engines, shard);
  const { name, stream, refusal } = examination;
  if (refusal !== null || stream === null) return examination;
  const { jsm } = engines.link;
  try {
    await jsm.streams.delete(name);
  } catch (error) {
    throw new Error(
      `NATS does not take ${name} away. Stop NATS, remove the folder jetstream/$G/streams/${name} of its store (of ` +
        'your account, where it is not $G), and start it: the stages make the stream again',
      { cause: error },
    );
  }
  await ensureStream(engines.link, {
    name,
    subjects: [...stream.subjects],
    maxBytes: stream.bytesMax,
    replicas: stream.replicas,
  });
  return examination;
}

async function countedTo(ch: ClickHouse, shard: number): Promise<CountedTo | null> {
  const [row] = await ch.rows<{ incarnation: number; sequence: string; created: string; accepted: string }>(
    `SELECT incarnation, toString(sequence) AS sequence, stream_created AS created,
       formatDateTime(accepted_at, '%Y-%m-%dT%H:%i:%SZ', 'UTC') AS accepted
     FROM watermarks FINAL WHERE shard = {shard:UInt16}`,
    { shard },
  );
  if (row === undefined) return null;
  const { incarnation, sequence, created: streamCreated, accepted: acceptedAt } = row;
  return { incarnation, sequence: Number(sequence), streamCreated, acceptedAt };
}

async function streamNow(link: NatsLink, name: string): Promise<StreamNow | null> {
  try {
    const { created, state, config } = await link.jsm.streams.info(name);
    return {
      created: String(created),
      firstSequence: state.first_seq,
      lastSequence: state.last_seq,
      messages: state.messages,
      subjects: config.subjects,
      bytesMax: config.max_bytes,
      replicas: config.num_replicas,
      contradiction: contradictionOf(name, state),
    };
  } catch (error) {
    if (isStreamNotFound(error)) return null;
    throw error;
  }
}

/** A message from a sequence on that can be read; null when none was found. */
async function findReadable(
  link: NatsLink,
  stream: string,
  from: number,
  last: number,
): Promise<number | null> {
  const within = new AbortController();
  const timer = setTimeout(() => within.abort(), DELIVER_WITHIN_MS);
  try {
    const messages = readLog(link, {
      stream,
      fromSequence: from,
      maxBytesInFlight: READ_BYTES_MAX,
      signal: within.signal,
    });
    for await (const { sequence } of messages) return sequence;
  } finally {
    clearTimeout(timer);
    within.abort();
  }
  const probed = Math.min(last, from + PROBES_MAX - 1);
  for (let sequence = from; sequence <= probed; sequence++) {
    const got = await canBeGot(link, stream, sequence);
    if (got === 'yes') return sequence;
    // It waits for seconds and then gives up; so it would for the others.
    if (got === 'not answered') break;
  }
  return last > probed && (await canBeGot(link, stream, last)) === 'yes' ? last : null;
}

async function canBeGot(
  link: NatsLink,
  stream: string,
  sequence: number,
): Promise<'yes' | 'no' | 'not answered'> {
  const began = performance.now();
  try {
    await link.jsm.streams.getMessage(stream, { seq: sequence });
    return 'yes';
  } catch {
    const tookMs = performance.now() - began;
    // A broken record answers in many ways: no message found, a partial cache, or not at all. When it is the broker
    // itself that does not answer, this fails too, and with it the command.
    await link.jsm.streams.info(stream);
    return tookMs > DELIVER_WITHIN_MS ? 'not answered' : 'no';
  }
}
