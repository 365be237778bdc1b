// Sends a trace through the client, as a product would, and shows how far it is.
import { TallylineClient } from '../../client/index.ts';
import { jsonOfCell } from '../csv.ts';
import type { RunFile } from '../run-file.ts';
import { EVENT_TYPE } from '../seed.ts';
import type { Trace } from './trace.ts';

const progressIntervalMs = 200;

export interface ReplayResult {
  readonly sent: number;
  readonly accepted: number;
  readonly rejected: number;
  readonly retried: number;
  readonly seconds: number;
}

/** Resolves when every event is acknowledged: from then on it survives any crash. */
export async function replay(
  run: RunFile,
  trace: Trace,
  onProgress: (line: string) => void,
): Promise<ReplayResult> {
  const begun = performance.now();
  const rejections: string[] = [];
  const client = new TallylineClient({
    url: run.edge,
    key: run.key,
    batchEventsMax: 250,
    onRejected: (rejected) => {
      if (rejections.length < 5)
        rejections.push(`${rejected.event.id}: ${rejected.code}: ${rejected.message}`);
    },
  });
  const total = trace.rows.length;
  const show = (): void => {
    const { accepted, retried } = client.stats;
    const percent = Math.floor((accepted * 100) / total);
    onProgress(
      `replayed ${grouped(accepted)} of ${grouped(total)} events (${percent} %), ${retried} retries`,
    );
  };
  const timer = setInterval(show, progressIntervalMs);
  try {
    for (const row of trace.rows) {
      await client.record({
        id: row.id,
        source: trace.source,
        type: EVENT_TYPE,
        subject: row.subject,
        time: row.time,
        data: Object.fromEntries(
          Object.entries(row.values).map(([name, text]) => [name, JSON.parse(jsonOfCell(text)) as unknown]),
        ),
      });
    }
    await client.flush();
    show();
  } finally {
    clearInterval(timer);
    await client.close();
  }
  const { accepted, rejected, retried } = client.stats;
  if (rejected > 0) onProgress(`${rejected} events were refused, the first: ${rejections.join('; ')}`);
  return { sent: total, accepted, rejected, retried, seconds: (performance.now() - begun) / 1_000 };
}

export function grouped(value: number | bigint | string): string {
  const [whole = '', fraction] = String(value).split('.');
  const spaced = whole.replace(/\B(?=(\d{3})+(?!\d))/g, ',');
  return fraction === undefined ? spaced : `${spaced}.${fraction}`;
}
