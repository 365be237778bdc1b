import { spawn, type ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { afterEach, expect, test } from 'vitest';

// A stage is a process, so these run real ones, from the build.
const lifecycle = new URL('../dist/runtime/lifecycle.js', import.meta.url).href;
const config = new URL('../dist/runtime/config.js', import.meta.url).href;

interface Line {
  readonly message?: string;
  readonly ready?: boolean;
  readonly ops?: string;
  readonly [field: string]: unknown;
}

const children: ChildProcess[] = [];
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
});

/** Runs `start` (the body of a stage's start function) as a stage. */
function stage(start: string, env: Record<string, string> = {}, args: string[] = []) {
  const source = `
    import { runStage } from ${JSON.stringify(lifecycle)};
    import { integer, text } from ${JSON.stringify(config)};
    runStage({
      name: 'probe',
      fields: {
        shards: integer('SHARDS', { describe: 'streams', default: 4, min: 1, max: 64 }),
        key: text('KEY', { describe: 'signing key', secret: true, default: 'swordfish' }),
      },
      start: async (stage, config) => { ${start} },
    });`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', source, '--', ...args], {
    env: { PATH: process.env['PATH'], ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  children.push(child);
  const lines: Line[] = [];
  let raw = '';
  let stderr = '';
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const exited = new Promise<number | null>((resolve) => child.once('close', resolve));
  const waiting = new Set<() => void>();
  createInterface({ input: child.stdout }).on('line', (line) => {
    raw += `${line}\n`;
    if (line.startsWith('{')) lines.push(JSON.parse(line) as Line);
    for (const check of [...waiting]) check();
  });
  const line = (wanted: (line: Line) => boolean) =>
    new Promise<Line>((resolve, reject) => {
      const check = () => {
        const found = lines.find(wanted);
        if (found === undefined) return;
        waiting.delete(check);
        resolve(found);
      };
      waiting.add(check);
      check();
      void exited.then(() => reject(new Error(`it ended first: ${raw}${stderr}`)));
    });
  const messages = () => lines.map((one) => one.message);
  return {
    child,
    exited,
    line,
    lines,
    messages,
    ready: () => line((one) => one.ready === true),
    output: () => raw,
    errors: () => stderr,
  };
}

const READY = `stage.announce({ api: 'http://here' }); stage.setReady(true);`;
const THREE_STOPS = `
  for (const what of ['store', 'consumer', 'server']) stage.onStop(what, () => stage.log.info('end ' + what));
  ${READY}`;

test('a ready stage says where it is, answers its ops endpoints, and stops in reverse order', async () => {
  const probe = stage(`stage.metrics.counter('tallyline_probe_total', 'help').inc(); ${THREE_STOPS}`);
  const ready = await probe.ready();
  expect(ready).toMatchObject({ stage: 'probe', api: 'http://here', ops: expect.stringMatching(/^http:/) });
  const get = async (path: string) => {
    const answer = await fetch(`${ready.ops}${path}`);
    return [answer.status, await answer.text()] as const;
  };
  expect((await get('/healthz'))[0]).toBe(200);
  expect((await get('/readyz'))[0]).toBe(200);
  expect((await get('/metrics'))[1]).toContain('tallyline_probe_total{stage="probe"} 1');
  expect((await get('/else'))[0]).toBe(404);
  probe.child.kill('SIGTERM');
  expect(await probe.exited).toBe(0);
  expect(probe.messages().filter((message) => message?.startsWith('end '))).toEqual([
    'end server',
    'end consumer',
    'end store',
  ]);
});

test('a stage that is not ready says why, and that it is stopping', async () => {
  const probe = stage(`
    ${READY}
    stage.setReady(false, 'the log is full');
    stage.onStop('slow', () => new Promise((resolve) => stage.log.info('stopping slowly')));`);
  const { ops } = await probe.ready();
  await probe.line((one) => one.message === 'not ready');
  const first = await fetch(`${ops}/readyz`);
  expect([first.status, await first.json()]).toEqual([503, { ready: false, reason: 'the log is full' }]);
  probe.child.kill('SIGTERM');
  await probe.line((one) => one.message === 'stopping slowly');
  const second = await fetch(`${ops}/readyz`);
  expect([second.status, await second.json()]).toEqual([503, { ready: false, reason: 'stopping' }]);
});

test('the end of stdin stops a stage that shall not outlive its parent, and only such a one', async () => {
  const probe = stage(THREE_STOPS, { TALLYLINE_STOP_WITH_PARENT: '1' });
  await probe.ready();
  probe.child.stdin?.end();
  expect(await probe.exited).toBe(0);
  expect(probe.messages()).toContain('end store');

  const other = stage(THREE_STOPS);
  const { ops } = await other.ready();
  other.child.stdin?.end();
  expect((await fetch(`${ops}/readyz`)).status).toBe(200);
});

test('a stop that hangs is left behind at the drain deadline, with exit code 1', async () => {
  const probe = stage(`stage.onStop('stuck consumer', () => new Promise(() => {})); ${READY}`, {
    TALLYLINE_DRAIN_SECONDS: '1',
  });
  await probe.ready();
  const started = performance.now();
  probe.child.kill('SIGINT');
  expect(await probe.exited).toBe(1);
  expect(performance.now() - started).toBeLessThan(5_000);
  expect(probe.lines.at(-1)).toMatchObject({ level: 'error', stoppingNow: 'stuck consumer' });
});

test('a second signal exits at once', async () => {
  const probe = stage(`
    stage.onStop('stuck', () => new Promise(() => stage.log.info('waiting')));
    ${READY}`);
  await probe.ready();
  probe.child.kill('SIGTERM');
  await probe.line((one) => one.message === 'waiting');
  probe.child.kill('SIGTERM');
  expect(await probe.exited).toBe(1);
});

test('a stop that fails keeps nobody else from stopping, and shows in the exit code', async () => {
  const probe = stage(`
    stage.onStop('store', () => stage.log.info('end store'));
    stage.onStop('bad', () => { throw new Error('cannot'); });
    ${READY}`);
  await probe.ready();
  probe.child.kill('SIGTERM');
  expect(await probe.exited).toBe(1);
  expect(probe.messages()).toContain('end store');
});

test.each([
  { name: 'a start that fails', start: `throw new Error('no store');` },
  { name: 'an unhandled rejection', start: `void Promise.reject(new Error('no store'));` },
  { name: 'an uncaught exception', start: `setTimeout(() => { throw new Error('no store'); });` },
  { name: 'a fatal error', start: `stage.fatal(new Error('no store'));` },
])('$name stops in order and exits 1', async ({ start }) => {
  const probe = stage(`stage.onStop('store', () => stage.log.info('end store')); ${start}`);
  expect(await probe.exited).toBe(1);
  expect(probe.lines.find((one) => one['level'] === 'fatal')).toMatchObject({
    error: { message: 'no store' },
  });
  expect(probe.messages()).toContain('end store');
});

test('every mistake in the configuration is a line of stderr, and the exit code is 78', async () => {
  const probe = stage(READY, { SHARDS: '0', TALLYLINE_OPS_PORT: 'http', TALLYLINE_DRAIN_SECONDS: '301' });
  expect(await probe.exited).toBe(78);
  expect(probe.errors().trim().split('\n')).toEqual([
    'probe: SHARDS must be a whole number from 1 to 64, not "0"',
    'probe: TALLYLINE_OPS_PORT must be a whole number from 0 to 65535, not "http"',
    'probe: TALLYLINE_DRAIN_SECONDS must be a whole number from 1 to 300, not "301"',
  ]);
});

test('--help describes every field and no secret, and starts nothing', async () => {
  const probe = stage(READY, {}, ['--help']);
  expect(await probe.exited).toBe(0);
  expect(probe.output()).toContain('SHARDS');
  expect(probe.output()).toContain('TALLYLINE_DRAIN_SECONDS');
  expect(probe.output()).not.toContain('swordfish');
  expect(probe.lines).toEqual([]);
});

test('the log shows no secret', async () => {
  const probe = stage(`
    stage.log.info({ key: 'hunter2', headers: { authorization: 'Bearer hunter2' }, config: { password: 'hunter2' } }, 'one');
    stage.log.info('connecting to postgres://me:hunter2@db/x');
    stage.log.error({ error: new Error('cannot reach nats://me:hunter2@db', { cause: new Error('http://u:hunter2@x/') }) }, 'two');
    ${READY}`);
  await probe.ready();
  expect(probe.messages()).toEqual(['one', 'connecting to postgres://me:***@db/x', 'two', 'ready']);
  expect(probe.output()).not.toContain('hunter2');
});
