/** What is known of a job's blocks when a thread has prepared them. */
import { unpack, type Packed, type Prepared } from './prepare.ts';
import { columnBytes } from './prepared-columns.ts';

/** The message lies where it lay, or where its memory came back to. */
export type PrepareAnswer = { readonly message: Uint8Array } & (
  | {
      readonly kind: 'prepared';
      readonly prepared: Prepared;
      /** What was found takes, wherever it lies. */
      readonly columnBytes: number;
    }
  | { readonly kind: 'unreadable'; readonly reason: string }
);

export interface PrepareAnswers {
  /** One for each message, in order. */
  readonly answers: readonly PrepareAnswer[];
  /** What was found takes, wherever it lies. */
  readonly columnBytes: number;
}

/** What is found in the blocks of a slot stands in its room in their order; what found no room there came along. */
export function answersOf(
  found: readonly (Packed | string)[],
  messages: readonly Uint8Array[],
  room: Uint8Array | null,
): PrepareAnswers {
  let [start, bytes] = [0, 0];
  const answers = found.map((one, at): PrepareAnswer => {
    const message = messages[at]!;
    if (typeof one === 'string') return { kind: 'unreadable', reason: one, message };
    const size = columnBytes(one.counts);
    bytes += size;
    const prepared = unpack(message, room, start, one);
    if (one.memory === null) start += size;
    return { kind: 'prepared', prepared, columnBytes: size, message };
  });
  return { answers, columnBytes: bytes };
}
