// The secrets of a local stack, made once. The identity key must never change under the same data: another
// key would give every event a new identity and count it again.
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { makeKey } from '../contract/key.ts';
import type { Layout } from './layout.ts';

export interface Secrets {
  readonly identityKey: string;
  readonly key: string;
  readonly adminKey: string;
  readonly stripeKey: string;
  readonly webhookSecret: string;
}

export function secretsOf(layout: Layout): Secrets {
  if (existsSync(layout.secretsFile)) return JSON.parse(readFileSync(layout.secretsFile, 'utf8')) as Secrets;
  const secrets: Secrets = {
    identityKey: randomBytes(16).toString('hex'),
    key: makeKey(randomBytes(64)).key,
    adminKey: makeKey(randomBytes(64)).key,
    stripeKey: `sk_test_${randomBytes(16).toString('hex')}`,
    webhookSecret: `whsec_${randomBytes(16).toString('hex')}`,
  };
  const staged = `${layout.secretsFile}.new`;
  writeFileSync(staged, `${JSON.stringify(secrets, null, 2)}\n`, { mode: 0o600 });
  renameSync(staged, layout.secretsFile);
  return secrets;
}
