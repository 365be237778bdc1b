/**
 * The index of a shard from `events`, at a start: the newest keys into the hot tier, all others into one filter that is
 * made for their number. Entries at positions behind the watermark, which a crashed flush wrote, are among them: what
 * comes there again is its own replay.
 *
 * Where the newest keys begin is estimated (a quantile over a sample of positions); it only splits the work, and what
 * does not fit goes into the filter. What matters is that every row is in one of the two: rows are counted before and
 * after, and an answer that was cut is an error and no index with holes.
 */
import type { ClickHouse } from '../../runtime/clickhouse.ts';
import { ENTRY_ROW_BYTES, IDENTITY_BYTES, IdentityRows, type IdentityRow } from './identity-rows.ts';
import { DedupeIndex } from './index.ts';

/** Told every {@link PROGRESS_ROWS} keys. */
export type OnProgress = (loaded: number, of: number) => void;
const PROGRESS_ROWS = 10_000_000;
/** The filter has room for this much more than was counted, because the estimate may send it more. */
const FILTER_MARGIN = 1.05;

export async function loadIndex(
  ch: ClickHouse,
  shard: number,
  incarnation: number,
  keysMax: number,
  filterBytesMax: number | undefined,
  onProgress: OnProgress = () => undefined,
): Promise<DedupeIndex> {
  const [facts] = await ch.rows<{ rows: string; top: string }>(
    'SELECT count() AS rows, max(position) AS top FROM events WHERE shard = {shard:UInt16}',
    { shard },
  );
  const rows = Number(facts?.rows ?? 0);
  const index = new DedupeIndex(keysMax, rows, filterBytesMax);
  if (rows === 0) return index;
  const third = index.generationKeys;
  const top = BigInt(facts!.top);
  const middle = rows > third ? await positionAt(ch, shard, rows - third, rows) : 0n;
  const floor = rows > third * 2 ? await positionAt(ch, shard, rows - third * 2, rows) : 0n;

  let loaded = 0;
  const load = async (range: Range, rowBytes: RowBytes, take: (row: IdentityRow) => void): Promise<void> => {
    await readRows(ch, { shard, incarnation, ...range }, rowBytes, (row) => {
      take(row);
      if (++loaded % PROGRESS_ROWS === 0) onProgress(loaded, rows);
    });
  };
  const exactly = ({ identity, position, payloadHash }: IdentityRow): void =>
    index.load(identity, 0, position, payloadHash, 0);
  if (floor > 0n) {
    index.expectCold(Math.ceil((rows - third * 2) * FILTER_MARGIN));
    await load({ from: 0n, to: floor - 1n }, IDENTITY_BYTES, ({ identity }) => index.loadCold(identity, 0));
  }
  if (middle > floor) {
    await load({ from: floor, to: middle - 1n }, ENTRY_ROW_BYTES, exactly);
    index.seal();
  }
  await load({ from: middle, to: top }, ENTRY_ROW_BYTES, exactly);
  return index;
}

/** About the position of the n-th row in log order. */
async function positionAt(ch: ClickHouse, shard: number, n: number, rows: number): Promise<bigint> {
  const [row] = await ch.rows<{ position: string }>(
    'SELECT toUInt64(quantile({level:Float64})(position)) AS position FROM events WHERE shard = {shard:UInt16}',
    { shard, level: n / rows },
  );
  return BigInt(row?.position ?? 0);
}

interface Range {
  readonly from: bigint;
  /** Included. */
  readonly to: bigint;
}
type RowBytes = typeof IDENTITY_BYTES | typeof ENTRY_ROW_BYTES;

async function readRows(
  ch: ClickHouse,
  { shard, incarnation, from, to }: Range & { readonly shard: number; readonly incarnation: number },
  rowBytes: RowBytes,
  take: (row: IdentityRow) => void,
): Promise<void> {
  const where = 'WHERE shard = {shard:UInt16} AND position >= {from:UInt64} AND position <= {to:UInt64}';
  const params = { shard, from: from.toString(), to: to.toString() };
  const columns = rowBytes === IDENTITY_BYTES ? 'identity' : 'identity, position, payload_hash';
  const stream = await ch.stream(`SELECT ${columns} FROM events ${where}`, params, 'RowBinary');
  const decoder = new IdentityRows(rowBytes, incarnation);
  for await (const chunk of stream) decoder.take(chunk as Buffer, take);
  // Merges only make the count smaller.
  const [after] = await ch.rows<{ rows: string }>(`SELECT count() AS rows FROM events ${where}`, params);
  if (!decoder.whole || decoder.rows < Number(after?.rows ?? 0))
    throw new Error(
      `the identities of shard ${shard} came back incomplete: ${decoder.rows} of ${after?.rows}`,
    );
}
