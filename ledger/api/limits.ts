/**
 * The limits of one query, as settings that ClickHouse itself holds, and the problem that says what to ask
 * instead when it was too large. A query is never answered in part: each limit throws.
 */
import type { QueryError, Settings } from '../../runtime/clickhouse.ts';
import { problem, type ProblemAnswer } from './problems.ts';

export interface QueryLimits {
  readonly queryRowsMax: number;
  readonly querySecondsMax: number;
}

/** For the connection that the routes ask with. */
export function querySettings(limits: QueryLimits): Settings {
  return {
    max_rows_to_read: limits.queryRowsMax,
    max_execution_time: limits.querySecondsMax,
    // RFC 4180 ends a line with CR and LF.
    output_format_csv_crlf_end_of_line: 1,
  };
}

/** ClickHouse's codes of limits that a narrower query keeps. */
const TOO_MANY_ROWS = 158;
const TOO_SLOW = 159;
const TOO_MUCH_MEMORY = 241;
const TOO_MANY_RESULTS = 396;

/** Null when the query failed for another reason. `narrower` ends the sentence "Ask for …". */
export function limitProblem(error: QueryError, limits: QueryLimits, narrower: string): ProblemAnswer | null {
  const ask = `Ask for ${narrower}.`;
  switch (error.code) {
    case TOO_MANY_ROWS:
      return problem('usage_query_too_large', `It would read more than ${limits.queryRowsMax} rows. ${ask}`);
    case TOO_SLOW:
      return problem(
        'usage_query_too_large',
        `It would take more than ${limits.querySecondsMax} seconds. ${ask}`,
      );
    case TOO_MUCH_MEMORY:
      return problem('usage_query_too_large', `It would take more memory than a query may have. ${ask}`);
    case TOO_MANY_RESULTS:
      return problem('usage_query_too_large', `Its result would have too many rows. ${ask}`);
    default:
      return null;
  }
}
