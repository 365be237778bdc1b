// How far the aggregator is, by its flush notices: asking ClickHouse again and again would cost it a good part of an
// event. Notices are hints; that everything is counted is compared at the end.
import type { FlushNotice } from '../../contract/notice.ts';
import { unpackPosition } from '../../contract/position.ts';
import { FLUSH_NOTICE, streamName } from '../../contract/subjects.ts';
import type { NatsLink } from '../../runtime/nats.ts';

interface Waiting {
  readonly ends: readonly number[];
  readonly resolve: () => void;
}

export class Watermarks {
  readonly #sequences: number[];
  readonly #link: NatsLink;
  #waiting: Waiting | null = null;

  constructor(link: NatsLink, shards: number) {
    this.#link = link;
    this.#sequences = new Array<number>(shards).fill(0);
    link.nc.subscribe(FLUSH_NOTICE, {
      callback: (error, message) => {
        if (error !== null) return;
        const { shard, position } = JSON.parse(new TextDecoder().decode(message.data)) as FlushNotice;
        const { sequence } = unpackPosition(BigInt(position));
        this.#sequences[shard] = Math.max(sequence, this.#sequences[shard] ?? 0);
        this.#look();
      },
    });
  }

  /** The last sequence of each log. */
  ends(): Promise<number[]> {
    return Promise.all(
      this.#sequences.map(
        async (_, shard) => (await this.#link.jsm.streams.info(streamName(shard))).state.last_seq,
      ),
    );
  }

  /** Resolves when the watermarks are at the ends that the logs have now. */
  async atEnds(withinMs: number): Promise<void> {
    const ends = await this.ends();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        const behind = ends.map((end, shard) => end - this.#sequences[shard]!).join(', ');
        reject(
          new Error(`the watermarks did not reach the ends of the logs in ${withinMs} ms: ${behind} behind`),
        );
      }, withinMs);
    });
    const reached = new Promise<void>((resolve) => {
      this.#waiting = { ends, resolve };
      this.#look();
    });
    await Promise.race([reached, late]).finally(() => clearTimeout(timer));
  }

  #look(): void {
    if (this.#waiting === null) return;
    const { ends, resolve } = this.#waiting;
    if (ends.some((end, shard) => this.#sequences[shard]! < end)) return;
    this.#waiting = null;
    resolve();
  }
}
