/**
 * Options of Node itself for the stages on the path of an event.
 *
 * What passes through them is memory outside of the engine's heap (bodies, messages, blocks), hundreds of megabytes a
 * second, and each 64 MB of it make the engine look through the heap for what can be let go: ten times a second, 10 to
 * 15 MB each time. With the engine's helper threads that costs more than without them: of the edge a third (1.05 instead
 * of 0.68 us an event), of the aggregator a twentieth. The option is not allowed in NODE_OPTIONS, and cannot be set from
 * inside of a process.
 */
const FLAGS = ['--single-threaded-gc'];
const ENTRIES = ['ingest/main.js', 'aggregator/main.js'];

/** For the stage with this file, in the build or beside it. */
export function nodeFlagsOf(entry: string): readonly string[] {
  return ENTRIES.some((one) => entry.endsWith(one)) ? FLAGS : [];
}
