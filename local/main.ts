// `npm start`: a whole Tallyline on this machine, until Ctrl-C.
import { EngineError } from './engines/engine.ts';
import { layoutOf } from './layout.ts';
import { Progress } from './progress.ts';
import type { RunFile } from './run-file.ts';
import { Stack } from './stack.ts';

function welcome(run: RunFile, seconds: string): string {
  const curl = `curl -sS ${run.edge}/v1/events \\
    -H 'authorization: Bearer ${run.key}' -H 'content-type: application/json' \\
    -d '{"id":"hello-1","source":"readme","type":"llm.request","subject":"acme","data":{"input_tokens":1200,"output_tokens":300,"model":"small"}}'`;
  const read = `curl -sS '${run.api}/v1/usage?meter=input_tokens&subject=acme&window=total' \\
    -H 'authorization: Bearer ${run.key}'`;
  return `
Tallyline is ready after ${seconds} s.

  events   ${run.edge}/v1/events
  API      ${run.api}        reference: ${run.console}
  Stripe   ${run.stripe}${run.stripe.startsWith('http://127.') ? '        a stand-in that lives here' : ''}
  metrics  ${Object.values(run.metrics).join('\n           ')}
  key      ${run.key}
  data     ${run.data}
  embedded ${run.embedded.join(', ') || 'nothing: all engines are yours'}

Send an event (send it twice: it counts once):

  ${curl}

Read what it added up to:

  ${read}

Replay a trace up to its invoices: npm run demo    Stop: Ctrl-C    Remove the data: npm run reset
`;
}

async function main(): Promise<void> {
  const progress = new Progress(process.stdout);
  let failed = false;
  const stack = new Stack(layoutOf(process.env), process.env, progress, (error) => {
    failed = true;
    progress.note(`\n${error.message}`);
    void end();
  });
  let ending = false;
  const end = async (): Promise<void> => {
    if (ending) return;
    ending = true;
    progress.note('\nStopping: the edge first, the engines last …');
    await stack.stop();
    progress.note('Stopped. The data stays where it is; npm start continues it.');
    process.exit(failed ? 1 : 0);
  };
  process.on('SIGINT', () => void end());
  process.on('SIGTERM', () => void end());
  if (process.env['TALLYLINE_STOP_WITH_PARENT'] === '1') process.stdin.once('end', () => void end()).resume();

  progress.note('Starting Tallyline on this machine.');
  try {
    const run = await stack.start();
    progress.end();
    process.stdout.write(welcome(run, progress.elapsedSeconds()));
  } catch (error) {
    if (ending) return;
    progress.end();
    const known = error instanceof EngineError || (error instanceof Error && error.name === 'ApiError');
    process.stderr.write(`\n${known ? (error as Error).message : String((error as Error).stack)}\n`);
    process.exit(1);
  }
}

void main();
