/** What becomes of a body as a whole. */
import type { EdgeRejectionCode } from '../../contract/rejections.ts';
import { WAY_NAMES, isMsgpack, type Expected } from './deck.ts';

export const NOT_JSON: Expected = { kind: 'refused', code: 'body_not_json' };
export const NOT_UNICODE: Expected = { kind: 'refused', code: 'body_not_unicode' };
export const NOT_MSGPACK: Expected = { kind: 'refused', code: 'body_not_msgpack' };
export const NOTHING: Expected = { kind: 'events', stored: [], rejected: [], unmatched: 0 };
/** A frame of text that is no UTF-8 (RFC 6455, section 8.1): the connection is lost, or ended with 1007. */
export const LOST: Expected = { kind: 'ended', codes: [1006, 1007] };

export const JSON_WAYS = WAY_NAMES.filter((way) => !isMsgpack(way));
export const MSGPACK_WAYS = WAY_NAMES.filter(isMsgpack);
export const refused = (code: EdgeRejectionCode): Expected => ({ kind: 'refused', code });
