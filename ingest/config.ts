import { integer, optional, text, url } from '../runtime/config.ts';
import { logFields } from '../runtime/logs.ts';

export const fields = {
  natsUrl: url('NATS_URL', { describe: 'the NATS server', protocols: ['nats', 'tls'], secret: true }),
  port: integer('TALLYLINE_EDGE_PORT', {
    describe: 'port of POST /v1/events; 0 takes any free one',
    default: 8080,
    min: 0,
    max: 65_535,
  }),
  ...logFields,
  identityKey: text('TALLYLINE_IDENTITY_KEY', {
    describe: 'key of the identity hash; the same for the whole deployment, for ever',
    pattern: /^[0-9a-f]{32}$/,
    secret: true,
  }),
  eventAgeDaysMax: integer('TALLYLINE_EDGE_EVENT_AGE_DAYS_MAX', {
    describe: 'how old the time of an event may be',
    default: 3_660,
    min: 1,
    max: 20_000,
  }),
  eventAheadSecondsMax: integer('TALLYLINE_EDGE_EVENT_AHEAD_SECONDS_MAX', {
    describe: 'how far ahead of our clock the time of an event may be',
    default: 3_600,
    min: 0,
    // Less than METER_LIMITS.versionLeadMs by ten minutes, in which clocks may disagree.
    max: 6_600,
  }),
  batchEventsMax: integer('TALLYLINE_EDGE_BATCH_EVENTS_MAX', {
    describe: 'events of one request',
    default: 10_000,
    min: 1,
    max: 50_000,
  }),
  bodyBytesMax: integer('TALLYLINE_EDGE_BODY_BYTES_MAX', {
    describe: 'body bytes of one request',
    default: 8_388_608,
    min: 1_024,
    max: 67_108_864,
  }),
  bodySecondsMax: integer('TALLYLINE_EDGE_BODY_SECONDS_MAX', {
    describe: 'how long a body may take to come in',
    default: 30,
    min: 1,
    max: 600,
  }),
  connectionsMax: integer('TALLYLINE_EDGE_CONNECTIONS_MAX', {
    describe: 'connections open at a time, streams included; keep it below the open files of the process',
    default: 18_432,
    min: 1,
    max: 1_000_000,
  }),
  decompressionsMax: integer('TALLYLINE_EDGE_DECOMPRESSIONS_MAX', {
    describe: 'bodies decompressed at a time, each holding up to twice the largest body',
    default: 2,
    min: 1,
    max: 64,
  }),
  requestsInFlightMax: integer('TALLYLINE_EDGE_REQUESTS_IN_FLIGHT_MAX', {
    describe: 'requests let in and not yet answered',
    default: 4_096,
    min: 1,
    max: 1_000_000,
  }),
  bytesInFlightMax: integer('TALLYLINE_EDGE_BYTES_IN_FLIGHT_MAX', {
    describe: 'body bytes of the requests in flight',
    default: 134_217_728,
    min: 65_536,
    max: 8_589_934_592,
  }),
  blockEventsMax: integer('TALLYLINE_EDGE_BLOCK_EVENTS_MAX', {
    describe: 'events in a block of the log',
    default: 2_000,
    min: 1,
    max: 65_536,
  }),
  blockBytesMax: integer('TALLYLINE_EDGE_BLOCK_BYTES_MAX', {
    describe: 'bytes at which a block of the log is sent',
    default: 92_160,
    min: 1_024,
    max: 262_144,
  }),
  lingerMs: integer('TALLYLINE_EDGE_LINGER_MS', {
    describe: 'how long an event waits at most for others to share its block, which it does only under load',
    default: 4,
    min: 0,
    max: 1_000,
  }),
  publishesInFlightMax: integer('TALLYLINE_EDGE_PUBLISHES_IN_FLIGHT_MAX', {
    describe: 'blocks waiting for their acknowledgement',
    default: 2_048,
    min: 1,
    max: 65_536,
  }),
  publishBytesInFlightMax: integer('TALLYLINE_EDGE_PUBLISH_BYTES_IN_FLIGHT_MAX', {
    describe: 'bytes of the blocks waiting for their acknowledgement',
    default: 67_108_864,
    min: 65_536,
    max: 8_589_934_592,
  }),
  ackTimeoutMs: integer('TALLYLINE_EDGE_ACK_TIMEOUT_MS', {
    describe: 'how long an acknowledgement may take',
    default: 5_000,
    min: 100,
    max: 60_000,
  }),
  journalFolder: optional(
    text('TALLYLINE_EDGE_JOURNAL', {
      describe: 'folder of the edge journal: events are taken while NATS is away; unset for none',
    }),
  ),
  journalBytesMax: integer('TALLYLINE_EDGE_JOURNAL_BYTES_MAX', {
    describe: 'bytes that the edge journal may take on disk',
    default: 1_073_741_824,
    min: 1_048_576,
    max: 1_099_511_627_776,
  }),
  journalSegmentBytes: integer('TALLYLINE_EDGE_JOURNAL_SEGMENT_BYTES', {
    describe: 'bytes of one file of the edge journal; at most a quarter of the whole',
    default: 16_777_216,
    min: 65_536,
    max: 268_435_456,
  }),
  keysProvedMax: integer('TALLYLINE_EDGE_KEYS_PROVED_MAX', {
    describe: 'API keys remembered as proved',
    default: 10_000,
    min: 1,
    max: 1_000_000,
  }),
  streamConnectionsMax: integer('TALLYLINE_EDGE_STREAM_CONNECTIONS_MAX', {
    describe: 'WebSocket streams open at a time',
    default: 16_384,
    min: 1,
    max: 1_000_000,
  }),
  streamConnectionsOfTenantMax: integer('TALLYLINE_EDGE_STREAM_CONNECTIONS_OF_TENANT_MAX', {
    describe: 'of these, streams of one tenant',
    default: 12_288,
    min: 1,
    max: 1_000_000,
  }),
  streamFrameBytesMax: integer('TALLYLINE_EDGE_STREAM_FRAME_BYTES_MAX', {
    describe: 'bytes of one frame of a stream',
    default: 1_048_576,
    min: 1_024,
    max: 67_108_864,
  }),
  streamCreditBatches: integer('TALLYLINE_EDGE_STREAM_CREDIT_BATCHES', {
    describe: 'batches that one stream may have under way',
    default: 64,
    min: 1,
    max: 65_536,
  }),
  streamCreditBytes: integer('TALLYLINE_EDGE_STREAM_CREDIT_BYTES', {
    describe: 'bytes of the frames that one stream may have under way',
    default: 8_388_608,
    min: 1_024,
    max: 1_073_741_824,
  }),
  streamIdleSeconds: integer('TALLYLINE_EDGE_STREAM_IDLE_SECONDS', {
    describe: 'how long a stream may be silent, pongs included',
    default: 60,
    min: 8,
    max: 960,
  }),
  streamUnreadBytesMax: integer('TALLYLINE_EDGE_STREAM_UNREAD_BYTES_MAX', {
    describe: 'bytes of answers that a stream may leave unread',
    default: 1_048_576,
    min: 4_096,
    max: 1_073_741_824,
  }),
  tenantEventsPerSecond: integer('TALLYLINE_EDGE_TENANT_EVENTS_PER_SECOND', {
    describe: 'events a second of a tenant without a quota of its own, at this edge; 0 for no limit',
    default: 0,
    min: 0,
    max: 1_000_000_000,
  }),
  tenantBytesPerSecond: integer('TALLYLINE_EDGE_TENANT_BYTES_PER_SECOND', {
    describe: 'body bytes a second of a tenant without a quota of its own, at this edge; 0 for no limit',
    default: 0,
    min: 0,
    max: 100_000_000_000,
  }),
  // A client that sends once a second may be late with one batch: two of them then come together.
  quotaBurstSeconds: integer('TALLYLINE_EDGE_QUOTA_BURST_SECONDS', {
    describe: "how many seconds' worth of its quota a tenant may send at once",
    default: 2,
    min: 1,
    max: 60,
  }),
  quotaTenantsMax: integer('TALLYLINE_EDGE_QUOTA_TENANTS_MAX', {
    describe: 'tenants whose use of their quota is remembered',
    default: 100_000,
    min: 1,
    max: 10_000_000,
  }),
};
