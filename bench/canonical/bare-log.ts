// What JetStream alone takes and gives, with the same bytes in as many streams as the pipeline has: the best that any
// edge or aggregator on it can do.
//
//   publish, packed   messages of one request's JSON, with pipelined acknowledgements (runtime/publish-pipeline.ts)
//   publish, single   one event a message, by the driver's js.publish, 1,000 under way
//   read              the packed messages, in order and without acknowledgements, thrown away
import { ensureStream, PublishPipeline, readLog } from '../../runtime/nats.ts';
import { requestTemplate, RequestWriter } from './body.ts';
import { measured, type Ceiling } from './ceiling.ts';
import { Workload } from './workload.ts';
import { SHARDS, type World } from './world.ts';

const EVENTS_PER_MESSAGE = 100;
const SINGLE_IN_FLIGHT = 1_000;
const PACKED_IN_FLIGHT = 256;
const STREAM_BYTES_MAX = 1024 ** 3;
/** Different messages, published again and again: making them is no part of it. */
const MESSAGES = 200;
const READ_BYTES_MAX = 8 * 1024 ** 2;
const ACK_TIMEOUT_MS = 30_000;

const streamOf = (shard: number): string => `CEILING_${shard}`;
const subjectOf = (shard: number): string => `ceiling.${shard}`;

export async function bareLog(world: World, seconds: number): Promise<Ceiling[]> {
  const { link } = world;
  const make = async (): Promise<void> => {
    for (let shard = 0; shard < SHARDS; shard++)
      await ensureStream(link, {
        name: streamOf(shard),
        subjects: [subjectOf(shard)],
        maxBytes: STREAM_BYTES_MAX,
        replicas: 1,
      });
  };
  const remove = async (): Promise<void> => {
    for (let shard = 0; shard < SHARDS; shard++) await link.jsm.streams.delete(streamOf(shard));
  };
  const cpuOf = { own: process.pid, nats: world.engines.nats.engine().pid };
  await make();
  const packed = await measured('publish, packed', cpuOf, () => publishPacked(world, seconds));
  const read = await measured('read', cpuOf, () => readAll(world));
  await remove();
  await make();
  const single = await measured('publish, single', cpuOf, () => publishSingle(world, seconds));
  await remove();
  return [packed, single, read];
}

function messagesOf(eventsPerMessage: number): Buffer[] {
  const writer = new RequestWriter(new Workload({ seed: 1, subjects: 1_000, phase: 0 }), eventsPerMessage);
  const nowMs = Date.now();
  return Array.from({ length: MESSAGES }, (_, request) => {
    const template = requestTemplate(eventsPerMessage, writer.layoutOf(request), () => '');
    writer.write(template, request, nowMs);
    return template.bytes;
  });
}

async function publishPacked({ link }: World, seconds: number): Promise<number> {
  const messages = messagesOf(EVENTS_PER_MESSAGE);
  const pipeline = new PublishPipeline(link, {
    maxInFlight: PACKED_IN_FLIGHT + 1,
    maxInFlightBytes: 64 * 1024 ** 2,
    ackTimeoutMs: ACK_TIMEOUT_MS,
  });
  // Half of what the streams hold, so that a fast machine does not fill them.
  const most = (SHARDS * STREAM_BYTES_MAX) / 2 / messages[0]!.length;
  let published = 0;
  let failure: unknown;
  const endMs = performance.now() + seconds * 1_000;
  while (performance.now() < endMs && published < most && failure === undefined) {
    while (pipeline.inFlight < PACKED_IN_FLIGHT) {
      pipeline
        .publish(subjectOf(published % SHARDS), messages[published % MESSAGES]!)
        .catch((error: unknown) => (failure = error));
      published += 1;
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
  await pipeline.drain();
  pipeline.close();
  if (failure !== undefined) throw new Error('a bare publish failed', { cause: failure });
  return published * EVENTS_PER_MESSAGE;
}

async function publishSingle({ link }: World, seconds: number): Promise<number> {
  const messages = messagesOf(1);
  const endMs = performance.now() + seconds * 1_000;
  let published = 0;
  const one = async (): Promise<void> => {
    while (performance.now() < endMs) {
      const number = published++;
      await link.js.publish(subjectOf(number % SHARDS), messages[number % MESSAGES]!);
    }
  };
  await Promise.all(Array.from({ length: SINGLE_IN_FLIGHT }, one));
  return published;
}

async function readAll({ link }: World): Promise<number> {
  let messages = 0;
  for (let shard = 0; shard < SHARDS; shard++)
    messages += (await link.jsm.streams.info(streamOf(shard))).state.messages;
  await Promise.all(
    Array.from({ length: SHARDS }, async (_, shard) => {
      const { last_seq: last } = (await link.jsm.streams.info(streamOf(shard))).state;
      if (last === 0) return;
      const stop = new AbortController();
      const log = readLog(link, {
        stream: streamOf(shard),
        fromSequence: 1,
        maxBytesInFlight: READ_BYTES_MAX,
        signal: stop.signal,
      });
      for await (const { sequence } of log) if (sequence >= last) break;
      stop.abort();
    }),
  );
  return messages * EVENTS_PER_MESSAGE;
}
