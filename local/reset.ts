// `npm run reset`: removes the data of the local stack and nothing else. Refuses while it runs.
import { existsSync, rmSync } from 'node:fs';
import { layoutOf } from './layout.ts';
import { readRunFile } from './run-file.ts';

const layout = layoutOf(process.env);
const run = readRunFile(layout);
if (run !== null) {
  process.stderr.write(
    `Tallyline runs on ${layout.root} (pid ${run.pids['start']}). Stop it first: Ctrl-C there, or kill ${run.pids['start']}.\n`,
  );
  process.exitCode = 1;
} else if (!existsSync(layout.root)) {
  process.stdout.write(`There is nothing to remove: ${layout.root} does not exist.\n`);
} else {
  const parts = [
    ...[layout.nats, layout.postgres, layout.clickhouse, layout.stripe, layout.logs],
    ...[layout.secretsFile, layout.portsFile, layout.runFile, layout.lockFile],
  ];
  for (const path of parts) rmSync(path, { recursive: true, force: true, maxRetries: 3 });
  process.stdout.write(`Removed the data in ${layout.root}. npm start begins anew.\n`);
}
