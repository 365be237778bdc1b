// The stand-in as a process. It prints one line of JSON, {"ready": true, "url": …}, when it answers. SIGTERM and
// SIGINT stop it; so does the end of stdin when TALLYLINE_STOP_WITH_PARENT=1. Whatever was answered is on disk
// already, so a kill loses nothing either.
//
//   TALLYLINE_STRIPE_PORT            0 takes a free one; 12111 when absent
//   TALLYLINE_STRIPE_DATA            the folder of the journal
//   TALLYLINE_STRIPE_KEY             sk_test_…
//   TALLYLINE_STRIPE_WEBHOOK_URL     where events go, together with
//   TALLYLINE_STRIPE_WEBHOOK_SECRET  whsec_…
//   TALLYLINE_STRIPE_FAULTS          1 serves /_test/…
import { startStripeStandIn } from './server.ts';
import type { StripeStandIn, StripeStandInOptions } from './server.ts';

const host = '127.0.0.1';
const portDefault = '12111';

/** Reads the environment and reports every mistake at once. */
function readOptions(env: NodeJS.ProcessEnv): StripeStandInOptions | string[] {
  const mistakes: string[] = [];
  const get = (name: string): string | undefined => (env[name] === '' ? undefined : env[name]);
  const port = Number(get('TALLYLINE_STRIPE_PORT') ?? portDefault);
  if (!Number.isInteger(port) || port < 0 || port > 65_535)
    mistakes.push('TALLYLINE_STRIPE_PORT must be a port from 0 to 65535');
  const dataDir = get('TALLYLINE_STRIPE_DATA');
  if (dataDir === undefined)
    mistakes.push('TALLYLINE_STRIPE_DATA is required: the folder to keep the journal in');
  const key = get('TALLYLINE_STRIPE_KEY');
  if (key === undefined || !/^sk_test_[A-Za-z0-9_]+$/.test(key)) {
    mistakes.push('TALLYLINE_STRIPE_KEY is required and begins with sk_test_');
  }
  const url = get('TALLYLINE_STRIPE_WEBHOOK_URL');
  const secret = get('TALLYLINE_STRIPE_WEBHOOK_SECRET');
  if ((url === undefined) !== (secret === undefined)) {
    mistakes.push('TALLYLINE_STRIPE_WEBHOOK_URL and TALLYLINE_STRIPE_WEBHOOK_SECRET go together');
  }
  if (url !== undefined && !URL.canParse(url)) mistakes.push('TALLYLINE_STRIPE_WEBHOOK_URL must be a URL');
  if (mistakes.length > 0 || dataDir === undefined || key === undefined) return mistakes;
  return {
    host,
    port,
    dataDir,
    key,
    ...(url === undefined || secret === undefined ? {} : { webhook: { url, secret } }),
    faults: get('TALLYLINE_STRIPE_FAULTS') === '1',
    onFailure: (error) => fail(`the journal in ${dataDir} cannot be written`, error),
  };
}

function fail(what: string, error?: unknown): never {
  const reason = error instanceof Error ? `: ${error.message}` : '';
  process.stderr.write(`stripe stand-in: ${what}${reason}\n`);
  process.exit(1);
}

async function main(): Promise<void> {
  const options = readOptions(process.env);
  if (Array.isArray(options)) fail(options.join('; '));
  let standIn: StripeStandIn;
  try {
    standIn = await startStripeStandIn(options);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') {
      fail(`port ${options.port} on ${host} is taken; choose another with TALLYLINE_STRIPE_PORT`, error);
    }
    fail('cannot start', error);
  }

  let stopping = false;
  const stop = (): void => {
    if (stopping) return;
    stopping = true;
    standIn.close().then(
      () => process.exit(0),
      (error: unknown) => fail('did not stop cleanly', error),
    );
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  if (process.env['TALLYLINE_STOP_WITH_PARENT'] === '1') {
    process.stdin.on('end', stop).on('error', stop).resume();
  }
  process.stdout.write(`${JSON.stringify({ ready: true, url: standIn.url })}\n`);
}

main().catch((error: unknown) => fail('cannot start', error));
