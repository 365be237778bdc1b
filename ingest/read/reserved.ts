/** What of an event belongs to us: no sender may send it, or it could pass for a correction (contract/corrections.ts). */
import { RESERVED_PREFIX, TYPE_VOID } from '../../contract/corrections.ts';

const utf8 = new TextEncoder();
const PREFIX = utf8.encode(RESERVED_PREFIX);
/** Its first four bytes, the first byte lowest. */
const PREFIX_WORD = new DataView(PREFIX.buffer).getInt32(0, true);
const DOT = 0x2e;

export const VOID_TYPE = utf8.encode(TYPE_VOID);

/** Whether a key of `data` itself is reserved, and with it every path that begins there. */
export function isReservedKey(bytes: Uint8Array, start: number, end: number): boolean {
  const behind = start + PREFIX.length;
  if (end < behind) return false;
  for (let at = 0; at < PREFIX.length; at++) if (bytes[start + at] !== PREFIX[at]) return false;
  return end === behind || bytes[behind] === DOT;
}

/** Asked of every event, so that the first four bytes decide at once. There may be less: others stand behind them. */
export function isReservedType(view: DataView, start: number, end: number): boolean {
  if (view.getInt32(start, true) !== PREFIX_WORD) return false;
  return (
    isAt(view, start, end, PREFIX) &&
    end > start + PREFIX.length &&
    view.getUint8(start + PREFIX.length) === DOT
  );
}

export function isVoidType(view: DataView, start: number, end: number): boolean {
  return end - start === VOID_TYPE.length && isAt(view, start, end, VOID_TYPE);
}

function isAt(view: DataView, start: number, end: number, text: Uint8Array): boolean {
  if (end - start < text.length) return false;
  for (let at = 0; at < text.length; at++) if (view.getUint8(start + at) !== text[at]) return false;
  return true;
}
