// A broker that acknowledges messages and never hands them over, on a real one: its files are damaged where NATS 2.9.10
// comes to that, edges and aggregator run as they do, and in the end every acknowledged event is counted once.
import { execFile } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { checkInvariants } from '../bench/faults/invariants.ts';
import { Load } from '../bench/faults/load.ts';
import { streamFolder } from '../bench/faults/storage.ts';
import { World } from '../bench/faults/world.ts';
import { examineLog, replaceLog, type Engines } from '../local/log-replacement.ts';
import { streamName } from '../contract/subjects.ts';
import { createLog } from '../runtime/log.ts';
import { connectNats, type NatsLink } from '../runtime/nats.ts';
import { until } from './until.ts';

const PATIENCE_MS = 240_000;
const DEADLINE_MS = 60_000;
const UNDELIVERED = 'tallyline_aggregator_log_undelivered_messages';
const HELD = 'tallyline_edge_journal_held_blocks';
/** Of a record of NATS's file: its length (4 bytes), sequence (8), time (8), length of its subject (2). */
const HEADER_BYTES = 22;
const LENGTH_MASK = 0x7fff_ffff;

let world: World;
let load: Load;
let link: NatsLink;
let engines: Engines;

beforeAll(async () => {
  world = await World.start({ journal: true });
  link = await connectNats({
    url: world.engines.natsUrl,
    name: 'log silence',
    log: createLog('test', 'silent'),
  });
  engines = { link, ch: world.ch };
  load = new Load({ url: world.url, key: world.key });
  await load.flowing();
}, PATIENCE_MS);
afterAll(async () => {
  await load?.close();
  await link?.close();
  await world?.stop();
}, PATIENCE_MS);

async function silentAndCounted(): Promise<void> {
  await load.pause();
  await checkInvariants(world, load);
}

/** Damages the file of each log at its middle record, while NATS does not run. Everything in them is counted by then. */
async function damage(hows: readonly ((file: Buffer, at: number) => void)[]): Promise<void> {
  await world.engines.nats.kill();
  hows.forEach((how, shard) => {
    const path = join(streamFolder(world.store.folder, shard), 'msgs', '1.blk');
    const file = readFileSync(path);
    const records: number[] = [];
    for (let at = 0; at < file.length; at += file.readUInt32LE(at) & LENGTH_MASK) records.push(at);
    how(file, records[Math.floor(records.length / 2)]!);
    writeFileSync(path, file);
  });
  await world.engines.nats.restart();
}

/** When the stream of a shard was made. */
async function created(shard: number): Promise<string> {
  return String((await link.jsm.streams.info(streamName(shard))).created);
}

describe('a log that delivers', () => {
  test(
    'is not replaced when everything in it is counted',
    async () => {
      await silentAndCounted();
      const { refusal } = await replaceLog(engines, 0);
      expect(refusal).toMatch(/everything in it is counted/);
      expect(await world.aggregator.metric(UNDELIVERED)).toBe(0);
    },
    PATIENCE_MS,
  );

  test(
    'is not replaced while a message of it can be read that nobody has counted',
    async () => {
      await world.killAggregator();
      load.resume();
      await load.flowing();
      await load.pause();
      await until('it is in the log', () => world.isSettled(), DEADLINE_MS);
      const { refusal, stream } = await replaceLog(engines, 1);
      expect(refusal).toMatch(/^message \d+ can be read and is behind \d+/);
      const after = await link.jsm.streams.info('USAGE_1');
      expect(String(after.created)).toBe(stream?.created);
      await world.startAggregator();
      await silentAndCounted();
    },
    PATIENCE_MS,
  );

  test(
    'is not replaced when the tables are of another stream',
    async () => {
      await world.killAggregator();
      await link.jsm.streams.delete('USAGE_1');
      expect((await replaceLog(engines, 1)).refusal).toMatch(/there is no stream USAGE_1/);
      await world.startAggregator();
      await silentAndCounted();
    },
    PATIENCE_MS,
  );
});

test(
  'what a damaged log acknowledged and does not deliver stays in the journals, and counts once when it is replaced',
  async () => {
    // The stream that was made again has nothing in it yet.
    load.resume();
    await load.flowing();
    await silentAndCounted();
    await damage([
      // One bit of a message: NATS ends its file before it, and never finds what it writes behind.
      (file, at) => (file[at + HEADER_BYTES + 40]! ^= 1),
      // Zeros from the fourth byte of a record on: NATS reads 0 as its last sequence, and begins again at 1 in front of
      // what it has. An aggregator that reads on gets the old messages, and would vouch for the sequences of the new.
      (file, at) => file.fill(0, at + 3),
    ]);
    load.resume();
    await load.flowing();
    await load.pause();
    const recorded = load.recorded;
    await until(
      'the aggregator has found both',
      async () => {
        const said = await world.aggregator.unreadyBecause();
        return [0, 1].every((shard) => said.includes(`log of shard ${shard} does not deliver`));
      },
      DEADLINE_MS,
    );
    expect(await world.aggregator.metric(UNDELIVERED)).toBeGreaterThan(1);
    const counted = await world.ch.rows<{ n: string }>('SELECT toString(count()) AS n FROM event_rows');
    expect(Number(counted[0]?.n)).toBeLessThan(recorded);
    expect(await world.edge.metric(HELD)).toBeGreaterThan(0);
    expect((await examineLog(engines, 1)).stream?.contradiction).toMatch(
      /gives sequences to messages that older ones have/,
    );

    const env = { NATS_URL: world.engines.natsUrl, CLICKHOUSE_URL: world.engines.clickhouseUrl };
    const before = await created(0);
    const look = await command(['log', 'replace', '--shard', '0'], env);
    expect(look).toMatchObject({ code: 0 });
    expect(look.text).toContain('nothing was changed');
    expect(await created(0)).toBe(before);
    const done = await command(['log', 'replace', '--shard', '0', '--yes'], env);
    expect(done).toMatchObject({ code: 0 });
    expect(done.text).toContain('It was taken away and made again');
    expect((await replaceLog(engines, 1)).refusal).toBeNull();

    await checkInvariants(world, load);
    expect(await world.aggregator.metric(UNDELIVERED)).toBe(0);
    const ready = async (): Promise<boolean> => (await world.aggregator.unreadyBecause()) === '';
    await until('it is ready', ready, DEADLINE_MS);
    const released = async (): Promise<boolean> => (await world.edge.metric(HELD)) === 0;
    await until('nothing is held any more', released, DEADLINE_MS);
  },
  PATIENCE_MS,
);

function command(
  args: string[],
  env: Record<string, string>,
): Promise<{ readonly code: number; readonly text: string }> {
  const cli = fileURLToPath(new URL('../dist/local/cli.js', import.meta.url));
  return new Promise((resolve) => {
    execFile(process.execPath, [cli, ...args], { env: { ...process.env, ...env } }, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : Number(error.code), text: stdout + stderr }),
    );
  });
}
