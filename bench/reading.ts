// What an event costs from the bytes of a body to the bytes of a block, without any network, beside JSON.parse of
// the same body, with the kernel and without. All are measured in turns, so that whatever else the machine does meets all.
import { EventBatch } from '../contract/event-batch.ts';
import { PathTable } from '../contract/path-table.ts';
import { EdgeKernel } from '../ingest/edge-kernel.ts';
import { Admission } from '../ingest/read/admit.ts';
import { readBody } from '../ingest/read/body.ts';
import { JsonScanner } from '../ingest/read/json-scanner.ts';
import { MeterBook } from '../ingest/tenant/meters.ts';
import { Pack } from '../ingest/pack.ts';
import { bodyOf, METERS, TENANT } from './event.ts';

export interface ReadingFigures {
  readonly eventsPerBody: number;
  /** Nanoseconds an event, the median of the rounds. */
  readonly parseNs: number;
  /** Reading and admission alone. */
  readonly readNs: number;
  /** Reading, admission, identity, payload hash and packing into blocks. */
  readonly packNs: number;
  /** The same two without the kernel: what an event costs of which the kernel takes nothing. */
  readonly plainReadNs: number;
  readonly plainPackNs: number;
}

const ROUNDS = 15;
const BODIES_BYTES = 4_000_000;
const SHARDS = 4;

export async function measureReading(eventsPerBody: number, seconds: number): Promise<ReadingFigures> {
  const nowMs = Math.floor(Date.now() / 60_000) * 60_000;
  const time = new Date(nowMs).toISOString();
  const bytes = bodyOf(0, eventsPerBody, time).length;
  const bodies = Array.from({ length: Math.max(4, Math.floor(BODIES_BYTES / bytes)) }, (_, at) =>
    bodyOf(at * eventsPerBody, eventsPerBody, time),
  );
  const admission = new Admission({
    eventAgeDaysMax: 3_660,
    eventAheadSecondsMax: 3_600,
    batchEventsMax: 10_000,
  });
  const meters = new MeterBook();
  for (const defined of METERS) meters.set(`${TENANT}.${defined.meter.key}`, JSON.stringify(defined));
  const tenant = TENANT;
  const tenantBytes = new TextEncoder().encode(tenant);
  let blocks = 0;
  const limits = { blockEventsMax: 2_000, blockBytesMax: 92_160, lingerMs: 4 };
  const deployment = { shards: SHARDS, identityKey: '000102030405060708090a0b0c0d0e0f' };
  const edgeWith = (kernel: EdgeKernel | null) => {
    const batch = new EventBatch(new PathTable(), kernel?.home ?? null);
    const scanner = kernel === null ? null : new JsonScanner(kernel);
    const pack = new Pack({
      ...deployment,
      limits,
      kernel,
      port: {
        async publish() {
          blocks += 1;
        },
        now: () => nowMs,
        defer: () => undefined,
        after: () => () => undefined,
      },
    });
    const read = (body: Buffer): void => {
      const context = { admission, meters, tenant, tenantBytes, nowMs, scanner };
      const outcome = readBody(body, 'json', context, batch);
      if (!outcome.read || batch.count !== eventsPerBody) throw new Error('the body was not admitted');
    };
    const readAndPack = (body: Buffer): void => {
      read(body);
      pack.addAll(pack.begin(), batch);
    };
    return { read, readAndPack };
  };
  const kernel = EdgeKernel.load({
    ...deployment,
    ...limits,
    batchEventsMax: 10_000,
    bodyBytesMax: 8_388_608,
  });
  const [usual, plain] = [edgeWith(kernel), edgeWith(null)];
  const steps = {
    parse: (body: Buffer): void => void JSON.parse(body.toString('utf8')),
    read: usual.read,
    pack: usual.readAndPack,
    plainRead: plain.read,
    plainPack: plain.readAndPack,
  };
  const names = ['parse', 'read', 'pack', 'plainRead', 'plainPack'] as const;
  const found: Record<(typeof names)[number], number[]> = {
    parse: [],
    read: [],
    pack: [],
    plainRead: [],
    plainPack: [],
  };
  const roundMs = (seconds * 1_000) / ROUNDS;
  for (let round = 0; round < ROUNDS; round++) {
    for (const name of names) {
      const step = steps[name];
      let ms = 0;
      let events = 0;
      do {
        const startMs = performance.now();
        for (const body of bodies) step(body);
        ms += performance.now() - startMs;
        events += bodies.length * eventsPerBody;
        // Blocks are settled between two passes, as they are between two turns of an edge.
        await new Promise((resolve) => setImmediate(resolve));
      } while (ms < roundMs);
      found[name].push((ms * 1e6) / events);
    }
  }
  if (blocks === 0) throw new Error('no block was made');
  const median = (values: number[]): number => values.sort((a, b) => a - b)[Math.floor(values.length / 2)]!;
  return {
    eventsPerBody,
    parseNs: median(found.parse),
    readNs: median(found.read),
    packNs: median(found.pack),
    plainReadNs: median(found.plainRead),
    plainPackNs: median(found.plainPack),
  };
}
