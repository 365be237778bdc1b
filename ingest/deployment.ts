/**
 * Facts that all processes of a deployment must agree on. The first process to start writes them; each one
 * after that compares, and refuses to run on a difference: another shard count or another identity key
 * would put an event sent again where its first copy is not found, and count it twice.
 */
import { createHash } from 'node:crypto';
import { agreeOn } from '../runtime/logs.ts';
import type { KeyValue } from '../runtime/nats.ts';

/** Throws when the deployment says otherwise. */
export async function agreeOnDeployment(
  facts: KeyValue,
  ours: { readonly shards: number; readonly identityKey: string },
): Promise<void> {
  await agreeOn(facts, 'shards', String(ours.shards), 'TALLYLINE_SHARDS');
  const fingerprint = createHash('sha256').update(ours.identityKey).digest('hex').slice(0, 16);
  await agreeOn(facts, 'identity-key', fingerprint, 'TALLYLINE_IDENTITY_KEY (its fingerprint)');
}
