// Settings and parameters of one request become SET statements in front of its query, in a session that no other
// request shares (sessions.ts).
// Names are checked against a pattern and values are always quoted, so nothing a client sends is ever SQL.
import { clickHouseError } from './error.ts';
import type { ClickHouseError } from './error.ts';
import { quoteName, quoteString } from './statement.ts';

/** Query parameters that mean something to the HTTP interface and are no settings of the engine. */
export const interfaceParameters: ReadonlySet<string> = new Set([
  'query',
  'database',
  'default_format',
  'query_id',
  'user',
  'password',
  'quota_key',
  'session_id',
  'session_timeout',
  'session_check',
  'close_session',
  'role',
  'compress',
  'decompress',
  'stacktrace',
  'buffer_size',
  'wait_end_of_query',
  'client_protocol_version',
  'enable_http_compression',
  'http_zlib_compression_level',
  'http_response_buffer_size',
  'send_progress_in_http_headers',
  'http_headers_progress_interval_ms',
  'http_write_exception_in_output_format',
  'cancel_http_readonly_queries_on_client_close',
  'add_http_cors_header',
]);

/** What the read-only user may not exceed. */
export interface ReaderLimits {
  readonly executionSecondsMax: number;
  readonly resultRowsMax: number;
  readonly memoryBytesMax: number;
}

const settingName = /^[a-z][a-z0-9_]{0,127}$/i;
const parameterName = /^[A-Za-z_][A-Za-z0-9_]{0,127}$/;
const valueCharactersMax = 1_048_576;

// How an answer looks, and nothing that names a file (format_schema, format_template_…) or lifts a limit.
const readerSettings = [
  /^output_format_(json|csv|tsv|parquet|native|arrow|pretty|values|xml|markdown|sql_insert|orc|avro|decimal|float|binary)_[a-z0-9_]+$/,
  /^(output_format_write_statistics|output_format_enable_streaming|date_time_output_format|bool_(true|false)_representation)$/,
  /^format_csv_(delimiter|null_representation)$/,
  /^(format_tsv_null_representation|interval_output_format)$/,
  /^(max_block_size|max_threads|final|join_use_nulls|session_timezone|do_not_merge_across_partitions_select_final)$/,
  /^(use_query_cache|select_sequential_consistency|optimize_read_in_order|log_comment)$/,
  // Unlimited by default, so whatever is set is lower.
  /^(max_rows_to_read|max_bytes_to_read)$/,
];

/** Limits a reader may lower: setting and the most it may be. */
function readerCaps(limits: ReaderLimits): ReadonlyMap<string, number> {
  return new Map([
    ['max_execution_time', limits.executionSecondsMax],
    ['max_result_rows', limits.resultRowsMax],
    ['max_memory_usage', limits.memoryBytesMax],
  ]);
}

export type SettingsResult =
  | {
      readonly kind: 'statements';
      /** Prepares a new session. */
      readonly sql: string;
      /** Sessions with the same key differ in the values of their parameters only. Null: for one request only. */
      readonly key: string | null;
      /** Prepares a session of the same key again; '' when there is nothing to do. */
      readonly again: string;
    }
  | { readonly kind: 'refused'; readonly error: ClickHouseError };

function refused(code: 36 | 115 | 164 | 452, message: string): SettingsResult {
  return { kind: 'refused', error: clickHouseError(code, message) };
}

export interface SessionSettings {
  readonly settings: ReadonlyMap<string, string>;
  /** Typed parameters, without the `param_` in front. */
  readonly parameters: ReadonlyMap<string, string>;
  readonly database: string;
  /** Limits of the read-only user, or null for the read-write user. */
  readonly reader: ReaderLimits | null;
  /** True for GET, which ClickHouse never lets write. */
  readonly isGet: boolean;
}

function checkReaderSetting(
  name: string,
  value: string,
  caps: ReadonlyMap<string, number>,
): SettingsResult | null {
  const cap = caps.get(name);
  if (cap !== undefined) {
    const asked = Number(value);
    if (Number.isFinite(asked) && asked > 0 && asked <= cap) return null;
    return refused(452, `Setting ${name} shouldn't be greater than ${cap}, and 0 means no limit.`);
  }
  if (readerSettings.some((pattern) => pattern.test(name))) return null;
  return refused(164, `Cannot modify '${name}' setting in readonly mode.`);
}

/** What prepares a session for a request. */
export function composeSettings(session: SessionSettings): SettingsResult {
  const { reader } = session;
  const caps = reader === null ? new Map<string, number>() : readerCaps(reader);
  const assignments = new Map<string, string>();
  // A reader's numbers are throttled before its own wishes, which can only be lower.
  for (const [name, cap] of caps) assignments.set(name, String(cap));
  for (const [name, value] of session.settings) {
    if (!settingName.test(name))
      return refused(36, `Not a name of a setting: ${JSON.stringify(name.slice(0, 128))}.`);
    // A session has one of its own.
    if (name === 'log_comment') continue;
    if (value.length > valueCharactersMax) return refused(36, `The value of setting ${name} is too long.`);
    const refusal = reader === null ? null : checkReaderSetting(name, value, caps);
    if (refusal !== null) return refusal;
    assignments.set(name, value);
  }
  const readonlyAsked = assignments.get('readonly');
  assignments.delete('readonly');

  const parameters: string[] = [];
  for (const [name, value] of session.parameters) {
    if (!parameterName.test(name))
      return refused(36, `Not a name of a parameter: ${JSON.stringify(name.slice(0, 128))}.`);
    parameters.push(`param_${name} = ${quoteString(value)}`);
  }
  const values = [...assignments].map(([name, value]) => `${name} = ${quoteString(value)}`);
  const all = [...values, ...parameters];
  const statements = [`USE ${quoteName(session.database)}`];
  if (all.length > 0) statements.unshift(`SET ${all.join(', ')}`);
  // Last, because nothing can be set after it.
  const readonly = reader !== null ? '1' : (readonlyAsked ?? (session.isGet ? '2' : null));
  if (readonly !== null) statements.push(`SET readonly = ${quoteString(readonly)}`);
  return {
    kind: 'statements',
    sql: statements.join('; '),
    key:
      readonly === null
        ? JSON.stringify([session.database, [...assignments], [...session.parameters.keys()]])
        : null,
    again: parameters.length === 0 ? '' : `SET ${parameters.join(', ')}`,
  };
}
