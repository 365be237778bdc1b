import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Body } from './body.ts';
import { splitStatement } from './split.ts';
import { Spool } from './spool.ts';

const plenty = 1024 ** 3;

/** A connection on which these pieces arrive, each in a turn of its own. */
function arriving(pieces: readonly Uint8Array[]): Readable {
  return Readable.from(
    pieces.filter((piece) => piece.length > 0).map((piece) => Buffer.from(piece)),
    { objectMode: false },
  );
}

async function everything(body: Body, bytesMin: number): Promise<Buffer> {
  const groups: Buffer[] = [];
  for (let group = await body.take(bytesMin); group.length > 0; group = await body.take(bytesMin))
    groups.push(...group);
  return Buffer.concat(groups);
}

const somePieces = fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 30 });

describe('a body', () => {
  it('gives every byte once and in order, however it was cut and is taken', async () => {
    await fc.assert(
      fc.asyncProperty(somePieces, fc.integer({ min: 1, max: 200 }), async (pieces, bytesMin) => {
        const body = new Body(arriving(pieces), plenty);
        expect(await everything(body, bytesMin)).toEqual(Buffer.concat(pieces));
        expect(body.atEnd).toBe(true);
      }),
    );
  });

  it('is taken in groups of at least the bytes asked for, but for the last', async () => {
    const body = new Body(arriving(Array.from({ length: 100 }, () => new Uint8Array(10))), plenty);
    const sizes: number[] = [];
    for (let group = await body.take(95); group.length > 0; group = await body.take(95))
      sizes.push(Buffer.concat(group).length);
    expect(sizes).toEqual([100, 100, 100, 100, 100, 100, 100, 100, 100, 100]);
  });

  it('holds a bounded number of pieces, however small they are', async () => {
    const body = new Body(arriving(Array.from({ length: 5_000 }, () => new Uint8Array(1))), plenty);
    const sizes: number[] = [];
    for (let group = await body.take(1024 ** 2); group.length > 0; group = await body.take(1024 ** 2))
      sizes.push(group.length);
    expect(Math.max(...sizes)).toBe(1024);
    expect(sizes.reduce((sum, size) => sum + size)).toBe(5_000);
  });

  it('is not received further than it is taken, but for one group', async () => {
    let sent = 0;
    const source = new Readable({
      highWaterMark: 1,
      read() {
        sent += 10;
        this.push(Buffer.alloc(10));
      },
    });
    const body = new Body(source, plenty);
    for (let taken = 0; taken < 10; taken += 1) await body.take(100);
    // Many turns of the loop, in which an open stream would go on.
    for (let turn = 0; turn < 1_000; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    // 10 groups taken, one held, and what the stream itself holds.
    expect(sent).toBeLessThanOrEqual(10 * 100 + 100 + 20);
    body.discard();
    source.destroy();
  });

  it('is refused when it is larger than it may be, and at no other size', async () => {
    await fc.assert(
      fc.asyncProperty(somePieces, fc.integer({ min: 0, max: 400 }), async (pieces, bytesMax) => {
        const bytes = Buffer.concat(pieces);
        const outcome = await everything(new Body(arriving(pieces), bytesMax), 7).catch(
          (error: unknown) => (error as { error: { code: number } }).error.code,
        );
        expect(outcome).toEqual(bytes.length > bytesMax ? 229 : bytes);
      }),
    );
  });

  it('that breaks off is never taken for whole', async () => {
    const source = new Readable({ read: () => undefined });
    source.push('some');
    const body = new Body(source, plenty);
    const taken = everything(body, 100);
    source.destroy();
    await expect(taken).rejects.toMatchObject({ code: 'ERR_STREAM_PREMATURE_CLOSE' });
    await expect(body.take(1)).rejects.toMatchObject({ code: 'ERR_STREAM_PREMATURE_CLOSE' });
    expect(body.atEnd).toBe(false);
  });

  it('that is discarded is received to its end and given to nobody', async () => {
    const source = arriving([new Uint8Array(10), new Uint8Array(10)]);
    const ended = new Promise((resolve) => source.once('end', resolve));
    const body = new Body(source, plenty);
    body.discard();
    await ended;
    await expect(body.take(1)).rejects.toThrow();
  });
});

describe('an INSERT', () => {
  const data = fc.array(fc.constantFrom(...Buffer.from('\n; INSERT\0\xff', 'latin1')), { maxLength: 60 });

  it('is split from its data, to the byte, wherever its body was cut', async () => {
    const cuts = fc.array(fc.nat(200), { maxLength: 5 });
    await fc.assert(
      fc.asyncProperty(data, cuts, fc.boolean(), async (bytes, at, inUrl) => {
        const statement = 'INSERT INTO `tä` (a) FORMAT Native';
        const whole = Buffer.from([...(inUrl ? [] : Buffer.from(`${statement}\n`)), ...bytes]);
        const ends = [...at.map((cut) => Math.min(cut, whole.length)).sort((a, b) => a - b), whole.length];
        const pieces = ends.map((end, index) => whole.subarray(index === 0 ? 0 : ends[index - 1], end));
        const body = new Body(arriving(pieces), plenty);
        const read = await splitStatement(inUrl ? statement : '', body, 1_000);
        expect(read).toMatchObject({ kind: 'insert', head: 'INSERT INTO `tä` (a)', format: 'Native' });
        expect(await everything(body, 1)).toEqual(Buffer.from(bytes));
      }),
    );
  });

  it('whose statement does not end is refused before all of it has come', async () => {
    const body = new Body(arriving(Array.from({ length: 1_000 }, () => Buffer.from('INSERT '))), plenty);
    await expect(splitStatement('', body, 100)).rejects.toMatchObject({ error: { code: 229 } });
    expect(body.atEnd).toBe(false);
  });
});

describe('the spool', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'tallyline-spool-'));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  const bytesLeft = (): number =>
    readdirSync(folder).reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);

  it('has the data to the byte while it is used, and nothing of it afterwards', async () => {
    const spool = new Spool(folder, 2);
    // Around the size that is written at once, and the group of larger ones; longer and shorter in turn, so that a
    // file that is used again would show what it held.
    const sizes = [3, 0, 262_144, 1, 262_145, 5_000_000, 2, 1_310_720, 262_143, 70_000];
    for (const [index, size] of sizes.entries()) {
      const bytes = Buffer.alloc(size, index + 1);
      const pieces = Array.from({ length: Math.ceil(size / 65_536) }, (_, piece) =>
        bytes.subarray(piece * 65_536, (piece + 1) * 65_536),
      );
      const file = spool.take();
      await file.fill(new Body(arriving(pieces), plenty));
      expect(readFileSync(file.path).equals(bytes)).toBe(true);
      await spool.giveBack(file);
      expect(bytesLeft()).toBe(0);
    }
    expect(readdirSync(folder).length).toBeLessThanOrEqual(2);
  });

  it('keeps no more empty files than it may, and nothing of a body that broke off', async () => {
    const spool = new Spool(folder, 2);
    const files = await Promise.all(
      Array.from({ length: 5 }, async () => {
        const file = spool.take();
        await file.fill(new Body(arriving([new Uint8Array(9)]), plenty));
        return file;
      }),
    );
    for (const file of files) await spool.giveBack(file);
    const before = readdirSync(folder).length;
    for (const size of [5, 5_000_000]) {
      const source = new Readable({ read: () => undefined });
      source.push(Buffer.alloc(size));
      const file = spool.take();
      const filled = file.fill(new Body(source, plenty));
      source.destroy();
      await expect(filled).rejects.toThrow();
      await spool.giveBack(file);
    }
    expect(readdirSync(folder).length).toBe(before - 2);
    expect(bytesLeft()).toBe(0);
  });
});
