import { integer, text, url } from '../runtime/config.ts';
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
    max: 31_536_000,
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
    describe: 'how long an event waits at most for others while a block is in flight',
    default: 2,
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
  keysProvedMax: integer('TALLYLINE_EDGE_KEYS_PROVED_MAX', {
    describe: 'API keys remembered as proved',
    default: 10_000,
    min: 1,
    max: 1_000_000,
  }),
};
