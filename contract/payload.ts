import { FIELD_NUMBER } from './fields.ts';
import type { AdmittedEvent } from './event.ts';

/**
 * A 64-bit fingerprint of what an event says besides its identity: type, subject, time as given, data.
 * A retry has the same one; a different one under the same identity is a conflict. The order of keys in
 * `data` does not matter (the hashes of its fields are added), nor does a time that the edge filled in.
 * It guards against mistakes, not against an adversary, who could only contradict himself.
 */
export function hashPayload(event: AdmittedEvent, out: Uint32Array): void {
  let low = mixText(mixText(0x9e3779b1, event.type), event.subject);
  let high = mixText(mixText(0x85ebca77, event.subject), event.type);
  if (event.timeGiven) {
    low = mixNumber(low, event.timeMs);
    high = mixNumber(high, event.timeMs);
  }
  const { fields } = event;
  for (let at = 0; at < fields.count; at++) {
    const path = fields.paths[at]!;
    const tag = fields.tags[at]!;
    if (tag === FIELD_NUMBER) {
      low += finish(mixNumber(mixText(0xc2b2ae3d + fields.scales[at]!, path), fields.mantissas[at]!));
      high += finish(mixNumber(mixText(0x27d4eb2f - fields.scales[at]!, path), fields.mantissas[at]!));
    } else {
      low += finish(mixText(mixText(0x165667b1 + tag, path), fields.texts[at]!));
      high += finish(mixText(mixText(0xd3a2646c - tag, path), fields.texts[at]!));
    }
    low |= 0;
    high |= 0;
  }
  out[0] = finish(low);
  out[1] = finish(high);
}

function mixText(seed: number, text: string): number {
  let hash = seed ^ text.length;
  for (let at = 0; at < text.length; at++)
    hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193) ^ (hash >>> 15);
  return hash;
}

function mixNumber(seed: number, value: number): number {
  const high = Math.floor(value / 2 ** 32);
  const hash = Math.imul(seed ^ (value - high * 2 ** 32), 0x85ebca6b);
  return Math.imul((hash ^ (hash >>> 13)) + high, 0xc2b2ae35);
}

function finish(hash: number): number {
  let mixed = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}
