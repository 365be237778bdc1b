// What an event takes on disk: in the logs, and in each table of ClickHouse with the parts that are in use.
import { streamName } from '../../contract/subjects.ts';
import type { World } from './world.ts';

export interface Disk {
  readonly bytesPerEvent: DiskBytesPerEvent;
  /** Of all hours and shards. */
  readonly rollupRows: number;
}

export interface DiskBytesPerEvent {
  /** In the logs; what was purged is counted as if it were there. */
  readonly nats: number;
  readonly clickhouse: number;
  /** By table, those with the most first; below a hundredth of a byte it is left out. */
  readonly tables: Readonly<Record<string, number>>;
}

const LEAST = 0.01;

export async function diskOf(world: World, events: number): Promise<Disk> {
  let log = 0;
  for (let shard = 0; shard < world.shards; shard++) {
    const { state } = await world.link.jsm.streams.info(streamName(shard));
    if (state.messages > 0) log += (state.bytes / state.messages) * state.last_seq;
  }
  const rows = await world.ch.rows<{ table: string; bytes: string }>(
    `SELECT table, toString(sum(bytes_on_disk)) AS bytes FROM system.parts
     WHERE active AND database = currentDatabase() GROUP BY table ORDER BY sum(bytes_on_disk) DESC`,
  );
  const tables = rows
    .map(({ table, bytes }) => [table, Number(bytes) / events] as const)
    .filter(([, bytes]) => bytes >= LEAST);
  const [rollups] = await world.ch.rows<{ total: string }>(
    'SELECT toString(count()) AS total FROM usage_rows',
  );
  return {
    bytesPerEvent: {
      nats: log / events,
      clickhouse: rows.reduce((sum, { bytes }) => sum + Number(bytes), 0) / events,
      tables: Object.fromEntries(tables),
    },
    rollupRows: Number(rollups!.total),
  };
}
