/**
 * A correction as it stands in the log: an event with two reserved fields behind those of its `data`, the id of the
 * original and the identity of the original (contract/corrections.ts). A void has its own type and, without one from
 * its sender, an empty subject.
 *
 * There is only room for the identity here: whoever packs the event has the key, and writes it there.
 */
import { PATH_AMENDS, PATH_TARGET, PATH_VOIDS } from '../../contract/corrections.ts';
import { ATTRIBUTES_KEPT, TYPE, type EventBatch } from '../../contract/event-batch.ts';
import { FIELD_TEXT } from '../../contract/fields.ts';
import { IDENTITY_TEXT_BYTES } from '../../contract/identity.ts';
import { PathTable } from '../../contract/path-table.ts';
import { AMENDS, TEXT, VOIDS, type Draft } from './draft.ts';
import { VOID_TYPE } from './reserved.ts';

const keysOf = (path: string): Uint8Array[] => path.split('.').map((key) => new TextEncoder().encode(key));
const KEYS_VOIDS = keysOf(PATH_VOIDS);
const KEYS_AMENDS = keysOf(PATH_AMENDS);
const KEYS_TARGET = keysOf(PATH_TARGET);

/** Of a draft that was admitted and `corrects`. */
export function isVoid(draft: Draft): boolean {
  return draft.kind[VOIDS] === TEXT;
}

/** Commits a draft that was admitted and `corrects`. */
export function commitCorrection(batch: EventBatch, draft: Draft): void {
  const original = isVoid(draft) ? VOIDS : AMENDS;
  const keys = isVoid(draft) ? KEYS_VOIDS : KEYS_AMENDS;
  const made = batch.make(VOID_TYPE.length + IDENTITY_TEXT_BYTES);
  const target = made + VOID_TYPE.length;
  const targetEnd = target + IDENTITY_TEXT_BYTES;
  if (isVoid(draft)) {
    batch.bytes.set(VOID_TYPE, made);
    batch.start[batch.count * ATTRIBUTES_KEPT + TYPE] = made;
    batch.end[batch.count * ATTRIBUTES_KEPT + TYPE] = target;
  }
  batch.bytes.fill(0, target, targetEnd);
  batch.made(targetEnd);
  const [start, end] = [draft.start[original]!, draft.end[original]!];
  batch.addField(placeOf(batch.paths, keys), FIELD_TEXT, 0, 0, start, end);
  batch.addField(placeOf(batch.paths, KEYS_TARGET), FIELD_TEXT, 0, 0, target, targetEnd);
  batch.commitCorrection();
}

/**
 * The place of one of our paths. Its keys stand one in the other, as a sender's would: after a key with a dot in it the
 * table would have to look for other places with the same path.
 */
function placeOf(paths: PathTable, keys: readonly Uint8Array[]): number {
  let place: number = PathTable.ROOT;
  for (const key of keys) place = paths.child(place, key, 0, key.length);
  return place;
}
