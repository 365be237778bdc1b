// `npx tallyline log replace`: the operator's command for a log that holds messages and delivers none of them.
import { parseArgs } from 'node:util';
import { connectClickHouse } from '../runtime/clickhouse.ts';
import { createLog } from '../runtime/log.ts';
import { connectNats } from '../runtime/nats.ts';
import { layoutOf } from './layout.ts';
import { examineLog, replaceLog, type Examination } from './log-replacement.ts';
import { readRunFile } from './run-file.ts';

const natsTimeoutMs = 5_000;
const requestTimeoutMs = 60_000;
const shardMax = 1_023;

export const logUsage = `usage: npx tallyline log replace --shard N [--yes]

Takes away the log of a shard that holds messages and delivers none of them, and makes it again: the aggregator begins
a new incarnation, and the edges send again what their journals hold. Looks first, and refuses at any doubt: while a
message behind the watermark can be read, or the tables are not of this stream. Without --yes it only looks.
`;

/** Which shard, or what is wrong with the arguments. */
export function replacementOf(
  args: readonly string[],
): { readonly shard: number; readonly yes: boolean } | { readonly mistake: string } {
  let parsed;
  try {
    const options = { shard: { type: 'string' }, yes: { type: 'boolean', default: false } } as const;
    parsed = parseArgs({ args: [...args], options, allowPositionals: true });
  } catch (error) {
    return { mistake: error instanceof Error ? error.message : String(error) };
  }
  const { shard, yes } = parsed.values;
  if (parsed.positionals.join(' ') !== 'replace') return { mistake: 'the command is: log replace' };
  if (shard === undefined || !/^[0-9]{1,4}$/.test(shard) || Number(shard) > shardMax)
    return { mistake: `--shard is a number from 0 to ${shardMax}` };
  return { shard: Number(shard), yes };
}

/** Returns the exit code: 0 when it was replaced, or may be; 1 when it must not be; 2 when it could not be done. */
export async function logCommand(args: readonly string[]): Promise<number> {
  const asked = replacementOf(args);
  if ('mistake' in asked) return complain(`${asked.mistake}\n\n${logUsage}`);
  const run = readRunFile(layoutOf(process.env));
  const nats = process.env['NATS_URL'] || run?.engines.nats;
  const clickhouse = process.env['CLICKHOUSE_URL'] || run?.engines.clickhouse;
  if (nats === undefined || clickhouse === undefined) {
    return complain('No stack runs here: start it with npm start, or set NATS_URL and CLICKHOUSE_URL.\n');
  }
  const name = 'tallyline log';
  const log = createLog('log', 'silent');
  const ch = connectClickHouse({ url: clickhouse, name, requestTimeoutMs });
  try {
    const link = await connectNats({ url: nats, name, log, connectTimeoutMs: natsTimeoutMs });
    try {
      const engines = { link, ch };
      const { shard, yes } = asked;
      const examination = await (yes ? replaceLog(engines, shard) : examineLog(engines, shard));
      process.stdout.write(told(examination, shard, yes));
      return examination.refusal === null ? 0 : 1;
    } finally {
      await link.close();
    }
  } finally {
    await ch.close();
  }
}

/** What was found and done, for people. */
export function told(
  { name, stream, counted, refusal }: Examination,
  shard: number,
  replaced: boolean,
): string {
  const lines: string[] = [];
  if (stream !== null) {
    const { messages, firstSequence, lastSequence, created } = stream;
    lines.push(`${name}: ${messages} messages, ${firstSequence} to ${lastSequence}; made ${created}.`);
  }
  if (counted !== null)
    lines.push(
      `Shard ${shard} is counted up to message ${counted.sequence} of incarnation ${counted.incarnation}.`,
    );
  if (refusal !== null || stream === null || counted === null) {
    return [...lines, `It is not replaced: ${refusal}.`, ''].join('\n');
  }
  lines.push(
    stream.contradiction ??
      `What it holds behind that was acknowledged, and none of it can be read any more: neither a consumer nor a ` +
        'request for a single message finds it.',
    replaced
      ? `It was taken away and made again. A new incarnation begins when an aggregator looks at it, within seconds.`
      : `It can be replaced; nothing was changed: npx tallyline log replace --shard ${shard} --yes`,
    'Edges with a journal send again by themselves what is not counted. Without one, have the producers send ' +
      `everything again since a minute before ${counted.acceptedAt}, with the same ids: what is counted counts once. ` +
      'Meters that were defined since then may be missing from this shard: compare /v1/meters with what counts.',
    '',
  );
  return lines.join('\n');
}

function complain(text: string): number {
  process.stderr.write(text);
  return 2;
}
