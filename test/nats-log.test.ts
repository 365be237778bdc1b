import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { markOf } from '../aggregator/log-mark.ts';
import { natsLog } from '../aggregator/nats-log.ts';
import { streamName, streamSubject } from '../contract/subjects.ts';
import { createLog } from '../runtime/log.ts';
import { connectNats, ensureStream, type NatsLink } from '../runtime/nats.ts';
import { startEngines, type Engines } from './engines.ts';

let engines: Engines;
let link: NatsLink;

beforeAll(async () => {
  engines = await startEngines({ nats: true });
  link = await connectNats({ url: engines.natsUrl, name: 'test', log: createLog('test', 'silent') });
});

afterAll(async () => {
  await link.close();
  await engines.stop();
});

/** A log of as many messages. */
async function logOf(shard: number, messages: number): Promise<ReturnType<typeof natsLog>> {
  const subjects = [streamSubject(shard)];
  await ensureStream(link, { name: streamName(shard), subjects, maxBytes: 2 ** 20, replicas: 1 });
  for (let at = 1; at <= messages; at++) await link.js.publish(subjects[0]!, Uint8Array.of(at));
  return natsLog(link, shard);
}

describe('a log on NATS with a hole', () => {
  test('tells what comes next in one request, up to where it is asked', async () => {
    const log = await logOf(0, 6);
    for (const sequence of [2, 3, 4]) await link.jsm.streams.deleteMessage(streamName(0), sequence);
    const from = async (sequence: number, until: number): Promise<number | undefined> =>
      (await log.messageFrom(sequence, until))?.sequence;
    expect(await from(1, 6)).toBe(1);
    expect(await from(2, 6)).toBe(5);
    expect(await from(2, 4)).toBeUndefined();
    expect(await from(7, 9)).toBeUndefined();
    const { sequence, timeMs, message, checksum } = (await log.messageAt(5))!;
    expect([...message]).toEqual([5]);
    expect({ sequence, timeMs, checksum }).toEqual(markOf(5, timeMs, Uint8Array.of(5)));
  });

  test('is not purged when there is something again in what it lacked', async () => {
    const log = await logOf(1, 5);
    const { created } = await log.facts();
    const has = (await log.messageAt(5))!;
    const lacks = [{ from: 2, to: 3 }];
    expect(await log.purge(5, { created, has, lacks })).toBeNull();
    expect((await log.facts()).firstSequence).toBe(1);
    for (const sequence of [2, 3]) await link.jsm.streams.deleteMessage(streamName(1), sequence);
    expect(await log.purge(5, { created, has: { ...has, timeMs: has.timeMs + 1 }, lacks })).toBeNull();
    expect(await log.purge(5, { created, has, lacks })).toBe(2);
    expect((await log.facts()).firstSequence).toBe(5);
  });
});
