/** Every name that Tallyline uses in NATS, so that an operator can grep for one place. */

/** The ordered log of a shard. */
export const streamName = (shard: number): string => `USAGE_${shard}`;
export const streamSubject = (shard: number): string => `tallyline.usage.${shard}`;

export const logOfShard = (shard: number): { name: string; subject: string } => ({
  name: streamName(shard),
  subject: streamSubject(shard),
});

/** Published by an aggregator after a watermark moved; the ledger wakes on it. A hint, never the truth. */
export const FLUSH_NOTICE = 'tallyline.flush';

/** KV buckets. Postgres is the master of all three; the edges watch. */
export const BUCKET_KEYS = 'tallyline_keys';
export const BUCKET_METERS = 'tallyline_meters';
export const BUCKET_QUOTAS = 'tallyline_quotas';
/** How far each shard is durable, told by its aggregator; see notice.ts. A hint to be checked, never the truth. */
export const BUCKET_WATERMARKS = 'tallyline_watermarks';
/** How many events each edge has answered with yes, by tenant; acknowledged.ts. For the conservation report. */
export const BUCKET_ACKNOWLEDGED = 'tallyline_acknowledged';
/** Which aggregators live, and which of them counts which shard; aggregator/ownership.ts. */
export const BUCKET_LEASES = 'tallyline_leases';
/** Facts about the deployment that all processes must agree on: shard count, identity key fingerprint. */
export const BUCKET_DEPLOYMENT = 'tallyline_deployment';

export const SHARDS_MAX = 1024;

/** The kind of a log message, first byte after the magic; see block.ts and control.ts. */
export const MESSAGE_EVENTS = 1;
export const MESSAGE_METER = 2;
export const MESSAGE_BACKFILL = 3;
