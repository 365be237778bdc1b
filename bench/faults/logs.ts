/**
 * The logs of a world, as somebody sees them who talks to NATS past the edge and past the proxies: to tell what the edge
 * and the aggregator must know, to put poison in, and to do what an operator does when a log does not deliver.
 */
import { decodeBlock } from '../../contract/block.ts';
import { encodeMeterDefined, type MeterDefined } from '../../contract/control.ts';
import type { KeyRecord } from '../../contract/key.ts';
import { BUCKET_KEYS, streamName, streamSubject } from '../../contract/subjects.ts';
import { replaceLog } from '../../local/log-replacement.ts';
import type { ClickHouse } from '../../runtime/clickhouse.ts';
import { createLog } from '../../runtime/log.ts';
import { connectNats, openKeyValue, PublishPipeline, type NatsLink } from '../../runtime/nats.ts';
import { contradictionOf } from '../../runtime/stream-state.ts';
import { until } from '../../test/until.ts';
import type { Poison } from './poison.ts';

const MEND_DEADLINE_MS = 120_000;

export interface LogsOptions {
  readonly natsUrl: string;
  readonly ch: ClickHouse;
  readonly shards: number;
  /** Writes down what was done. */
  note(text: string): void;
}

export class Logs {
  /** Messages that were published beside the edge, and must be kept as they are. */
  readonly poison: { readonly shard: number; readonly poison: Poison }[] = [];
  readonly #o: LogsOptions;
  #link: NatsLink | undefined;
  #pipeline: PublishPipeline | undefined;

  constructor(options: LogsOptions) {
    this.#o = options;
  }

  async tellKey(record: KeyRecord): Promise<void> {
    const link = await this.#connected();
    await (await openKeyValue(link, BUCKET_KEYS)).put(record.id, JSON.stringify(record));
  }

  /** In every shard. */
  async defineMeter(defined: MeterDefined): Promise<void> {
    const pipeline = await this.#publisher();
    for (let shard = 0; shard < this.#o.shards; shard++) {
      await pipeline.publish(streamSubject(shard), encodeMeterDefined(defined));
    }
  }

  /** Publishes straight into a log. Resolves when they are in it. */
  async publishPoison(shard: number, poisons: readonly Poison[]): Promise<void> {
    const pipeline = await this.#publisher();
    for (const poison of poisons) {
      const { sequence } = await pipeline.publish(streamSubject(shard), poison.bytes);
      this.poison.push({ shard, poison });
      this.#o.note(`message ${sequence} of ${streamName(shard)} is ${poison.what}`);
    }
  }

  /** The newest block of a shard's log that an edge has published, to make poison from. */
  async newestBlock(shard: number): Promise<Uint8Array> {
    const { jsm } = await this.#connected();
    let sequence = (await jsm.streams.info(streamName(shard))).state.last_seq;
    for (; sequence > 0; sequence--) {
      const { data } = await jsm.streams.getMessage(streamName(shard), { seq: sequence });
      if (isBlock(data)) return data;
    }
    throw new Error(`${streamName(shard)} has no block yet`);
  }

  /** Bytes of a shard's log. */
  async bytes(shard: number): Promise<number> {
    const { jsm } = await this.#connected();
    return (await jsm.streams.info(streamName(shard))).state.bytes;
  }

  /**
   * What an operator has to do when NATS says that it has messages and cannot read them: `npx tallyline log replace`,
   * for each log of which that is so. The command refuses as long as an aggregator may yet get on with what is there,
   * and is done again then. Where NATS does not even take the stream away, `byHand` does.
   */
  async mend(byHand: (shard: number) => Promise<void>): Promise<void> {
    for (let shard = 0; shard < this.#o.shards; shard++) {
      const problem = await this.#unreadable(streamName(shard));
      if (problem === null) continue;
      this.#o.note(`${streamName(shard)} does not deliver: ${problem}`);
      await this.#replace(shard, () => byHand(shard));
    }
  }

  async close(): Promise<void> {
    this.#pipeline?.close();
    await this.#link?.nc.close();
  }

  async #replace(shard: number, byHand: () => Promise<void>): Promise<void> {
    let refusal = '';
    let noted = '';
    await until(
      `the log of shard ${shard} may be replaced`,
      async () => {
        try {
          const link = await this.#connected();
          const found = await replaceLog({ link, ch: this.#o.ch }, shard);
          refusal = found.refusal ?? `${found.name} is replaced`;
          // The same with other numbers, as an aggregator gets on, is written down once.
          const kind = refusal.replaceAll(/\d+/g, 'N');
          if (kind !== noted) this.#o.note(refusal);
          noted = kind;
          return found.refusal === null || (await this.#unreadable(found.name)) === null;
        } catch (error) {
          this.#o.note(
            `the log of shard ${shard} cannot be replaced: ${String(error)}; its folder is removed`,
          );
          await byHand();
          return true;
        }
      },
      MEND_DEADLINE_MS,
    ).catch((error: unknown) => {
      throw new Error(`a log that does not deliver is not to be replaced: ${refusal}`, { cause: error });
    });
  }

  /** Why a log does not deliver what it has, null when it does: NATS answers with an error of many kinds, or not at all. */
  async #unreadable(stream: string): Promise<string | null> {
    const { jsm } = await this.#connected();
    try {
      const { state } = await jsm.streams.info(stream);
      const contradiction = contradictionOf(stream, state);
      if (contradiction !== null) return contradiction;
      if (state.last_seq >= state.first_seq) await jsm.streams.getMessage(stream, { seq: state.last_seq });
      return null;
    } catch (error) {
      return String(error);
    }
  }

  async #connected(): Promise<NatsLink> {
    this.#link ??= await connectNats({
      url: this.#o.natsUrl,
      name: 'faults',
      log: createLog('faults', 'silent'),
    });
    return this.#link;
  }

  async #publisher(): Promise<PublishPipeline> {
    this.#pipeline ??= new PublishPipeline(await this.#connected(), {
      maxInFlight: 16,
      maxInFlightBytes: 1e6,
      ackTimeoutMs: 5_000,
    });
    return this.#pipeline;
  }
}

function isBlock(message: Uint8Array): boolean {
  try {
    decodeBlock(message);
    return true;
  } catch {
    return false;
  }
}
