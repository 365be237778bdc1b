/**
 * The WebSocket protocol of `/v1/stream`, version 1. Both subprotocols carry the same messages: as JSON in text
 * frames, or as msgpack maps in binary frames. The key travels in the Authorization header of the upgrade.
 *
 * server: welcome                       first, with the credit and the limits of this connection
 * client: { batch: 7, events: [...] }   `batch` is the client's number, not in use by one under way
 * server: ack { batch: 7, ... }         every accepted event of the batch is durable
 *     or: refused { batch: 7, ... }     nothing is promised; when `retry` is true the same events may come again
 * server: goaway                        send nothing more here: what is under way is still answered
 *
 * Credit is what a client may have under way: batches, and bytes of frames. An answer gives back what its batch
 * took. Exceeding it closes the connection; a client that keeps to it never waits for anything else.
 *
 * There is no session to resume. A client that lost its connection sends every batch without an answer again,
 * with the same event ids, here or at another edge: identities make that harmless.
 */
import type { RejectedEvent } from './rejections.ts';

export const STREAM_PATH = '/v1/stream';
export const SUBPROTOCOL_JSON = 'tallyline.v1.json';
export const SUBPROTOCOL_MSGPACK = 'tallyline.v1.msgpack';

export interface StreamBatch {
  /** A safe integer of 0 or more. */
  readonly batch: number;
  readonly events: readonly unknown[];
}

export type ServerMessage =
  | {
      readonly type: 'welcome';
      readonly credit: { readonly batches: number; readonly bytes: number };
      readonly limits: {
        readonly batchEvents: number;
        readonly frameBytes: number;
        readonly idleSeconds: number;
      };
    }
  | {
      readonly type: 'ack';
      readonly batch: number;
      readonly accepted: number;
      readonly rejected: readonly RejectedEvent[];
      /** Accepted events that no meter counts; absent when there are none. */
      readonly unmatched?: number;
    }
  | {
      readonly type: 'refused';
      readonly batch: number;
      /** A code of the edge's problems or of the rejections of a whole body. */
      readonly code: string;
      readonly message: string;
      readonly retry: boolean;
      /** When to try again; 0 when `retry` is false. */
      readonly retryAfterMs: number;
    }
  | { readonly type: 'goaway'; readonly code: string; readonly message: string };

/** Close codes (RFC 6455 section 7.4; 4000 and up are ours). `retry`: whether to connect again with the same key. */
export const CLOSE_CODES = {
  going_away: { code: 1001, retry: true, reason: 'this server is stopping' },
  frame_type_wrong: { code: 1003, retry: false, reason: 'text frames for JSON, binary frames for msgpack' },
  frame_too_large: { code: 1009, retry: false, reason: 'the frame is larger than welcome.limits.frameBytes' },
  internal_error: { code: 1011, retry: true, reason: 'a mistake of ours' },
  frame_malformed: { code: 4400, retry: false, reason: 'the frame is not { batch, events }' },
  key_invalid: { code: 4401, retry: false, reason: 'the key was revoked or has expired' },
  batch_in_use: { code: 4409, retry: false, reason: 'a batch of this number is under way' },
  credit_exceeded: { code: 4429, retry: false, reason: 'more was under way than welcome.credit allows' },
  reader_too_slow: { code: 4430, retry: true, reason: 'the answers were not read' },
} as const satisfies Record<string, { code: number; retry: boolean; reason: string }>;

export type CloseName = keyof typeof CLOSE_CODES;
