// What a hostile client is asked to do; see hostile-load.ts.
export const HOSTILE = [
  'flood',
  'slow-headers',
  'slow-bodies',
  'one-byte-frames',
  'unread-answers',
  'half-open',
  'idle-streams',
] as const;
export type Hostile = (typeof HOSTILE)[number];

export interface HostilePlan {
  readonly kind: Hostile;
  readonly port: number;
  readonly key: string;
  readonly connections: number;
}
