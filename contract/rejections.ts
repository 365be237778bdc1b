/**
 * The one table of what Tallyline refuses and why. A code is stable: clients branch on it, the refused
 * events are stored under it and the metrics are labelled with it.
 *
 * `edge` codes are answered to the sender at once; the event was never in the log. `log` codes are
 * decided by the aggregator from the log alone; the event is kept in `refused_events`. `both`: the edge answers
 * them for the meters that it knows of, and the log decides for those that it did not know of yet.
 */
export interface Rejection {
  readonly stage: 'edge' | 'log' | 'both';
  /** HTTP status when the whole request is refused for it (edge), or the status a re-send would get. */
  readonly status: 400 | 413 | 415 | 422;
  /** What is wrong and what to change, in one sentence. */
  readonly message: string;
}

const edge = (status: Rejection['status'], message: string) => ({ stage: 'edge', status, message }) as const;
const log = (message: string) => ({ stage: 'log', status: 422, message }) as const;
const both = (message: string) => ({ stage: 'both', status: 422, message }) as const;

export const REJECTIONS = {
  event_not_an_object: edge(422, 'An event is an object with id, source, type, subject and data.'),
  field_missing: edge(422, 'A required field is missing: send it as a non-empty string.'),
  field_not_text: edge(422, 'This field must be a string.'),
  field_too_long: edge(
    422,
    'This field is too long: id, subject, voids and amends take 256 bytes, source 512, type 128.',
  ),
  field_unknown: edge(
    422,
    'An event has no such field: put it into data. (With specversion, CloudEvents extensions are let through.)',
  ),
  key_repeated: edge(422, 'A key stands twice in one object: keep one.'),
  key_not_text: edge(422, 'The key of a map is not a string: msgpack keys must be strings.'),
  specversion_unknown: edge(422, 'specversion must be "1.0", the version of CloudEvents that is taken here.'),
  text_not_unicode: edge(422, 'The text is not well-formed Unicode: send UTF-8 without lone surrogates.'),
  text_has_control: edge(422, 'The text holds a control character: remove it.'),
  type_reserved: edge(
    422,
    'Types that begin with tallyline. are reserved: name the type otherwise. (A void has voids and needs no type.)',
  ),
  void_has_type: edge(
    422,
    'A void takes an event out, whatever its type: leave the type out. To count another event in its place, send amends.',
  ),
  correction_ambiguous: edge(422, 'An event voids another or amends it: send one of the two.'),
  time_not_rfc3339: edge(422, 'The time is not RFC 3339, such as 2026-11-21T08:30:00Z.'),
  time_too_old: edge(422, 'The time lies before the accepted window.'),
  time_too_far_ahead: edge(422, 'The time lies too far in the future: check the clock of the sender.'),
  data_not_an_object: edge(422, 'data must be an object.'),
  data_not_json: edge(422, 'data must be JSON: send datacontenttype application/json and no data_base64.'),
  data_too_deep: edge(422, 'data is nested too deeply: flatten it to 8 levels or fewer.'),
  data_too_many_fields: edge(422, 'data has too many fields: 64 at most, counted after flattening.'),
  data_path_too_long: edge(422, 'A key path of data is too long: 256 bytes at most.'),
  data_path_reserved: edge(
    422,
    'Keys of data that are tallyline, or begin with it and a dot, are reserved: name the field otherwise.',
  ),
  data_path_repeated: edge(422, 'Two keys of data mean the same dotted path: keep one.'),
  number_not_exact: edge(
    422,
    'A number cannot be kept exactly: send it as a string of at most 18 digits before and 9 after the point.',
  ),
  value_not_json: edge(422, 'msgpack binary and extension values are not taken: send text or numbers.'),
  event_too_large: edge(422, 'The event is too large: 64 KiB at most.'),
  line_not_json: edge(422, 'The line is not JSON: send one event a line, UTF-8, without line breaks inside.'),
  body_not_json: edge(400, 'The body is not JSON.'),
  body_not_msgpack: edge(400, 'The body is not msgpack.'),
  body_not_unicode: edge(400, 'The body is not UTF-8.'),
  body_not_decompressed: edge(400, 'The body is not what its Content-Encoding says.'),
  body_too_large: edge(413, 'The body is too large: send the events in several requests.'),
  batch_too_large: edge(413, 'The request has too many events: send them in several requests.'),
  content_type_unknown: edge(
    415,
    'Send application/json, application/x-ndjson, application/msgpack, or CloudEvents as ' +
      'application/cloudevents+json, application/cloudevents-batch+json or in binary mode.',
  ),
  content_encoding_unknown: edge(415, 'The Content-Encoding must be gzip, br or identity.'),
  meter_value_missing: both(
    'The event lacks the value that a meter of its type needs: add it and send again.',
  ),
  meter_value_not_a_number: both('The value that a meter of its type needs is not a decimal number.'),
  meter_value_out_of_range: both('The value is 10^18 or more, or has more than 9 decimals.'),
  correction_target_unknown: log(
    'No event that counts has the source and id that this one voids or amends: send that event first, then this again.',
  ),
  block_unreadable: log('The message in the log could not be decoded; it is kept whole.'),
} as const satisfies Record<string, Rejection>;

export type RejectionCode = keyof typeof REJECTIONS;
export type EdgeRejectionCode = {
  [C in RejectionCode]: (typeof REJECTIONS)[C]['stage'] extends 'log' ? never : C;
}[RejectionCode];

/** One line of a 202 or 422 answer. `index` counts from 0 in the request's order. */
export interface RejectedEvent {
  readonly index: number;
  readonly id: string | null;
  readonly code: RejectionCode;
  readonly message: string;
}
