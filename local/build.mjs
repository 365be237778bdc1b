// Compiles what runs (no tests) to dist/ and puts the SQL files beside the code that reads them,
// so that `new URL('./schema/', import.meta.url)` means the same in the sources and in dist.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const dist = join(root, 'dist');

const tsc = spawnSync(
  process.execPath,
  [join(root, 'node_modules/typescript/bin/tsc'), '-p', join(root, 'tsconfig.build.json')],
  {
    stdio: 'inherit',
  },
);
if (tsc.status !== 0) process.exit(tsc.status ?? 1);

// The Stripe stand-in checks requests against the SDK's own declarations; deriving them takes a second, once.
const derived = join(dist, 'local/stripe/operations.json');
const sdk = join(root, 'node_modules/stripe/package.json');
if (!existsSync(derived) || statSync(derived).mtimeMs < statSync(sdk).mtimeMs) {
  const derive = spawnSync(process.execPath, [join(dist, 'local/stripe/derive.js')], { stdio: 'inherit' });
  if (derive.status !== 0) process.exit(derive.status ?? 1);
}

// The kernels (runtime/kernel.ts): each file directly in a folder `assembly` is one, compiled when anything beside it
// changed.
const kernelFolders = ['aggregator/assembly', 'ingest/assembly'];
for (const folder of kernelFolders.filter((one) => existsSync(join(root, one)))) {
  const files = readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).filter((name) =>
    name.endsWith('.ts'),
  );
  const newest = Math.max(...files.map((name) => statSync(join(root, folder, name)).mtimeMs));
  for (const name of files.filter((file) => !/[/\\]/.test(file))) {
    const target = join(dist, folder, name.replace(/\.ts$/, '.wasm'));
    if (existsSync(target) && statSync(target).mtimeMs > newest) continue;
    const asc = spawnSync(
      process.execPath,
      [
        join(root, 'node_modules/assemblyscript/bin/asc.js'),
        join(folder, name),
        ...['--outFile', target, '--optimizeLevel', '3', '--noAssert', '--converge'],
        ...['--runtime', 'stub', '--importMemory', '--noExportMemory', '--enable', 'simd'],
      ],
      // Its optimizer says how far it came, whenever it ran: that is for nobody but who asks why it failed.
      { cwd: root, encoding: 'utf8' },
    );
    if (asc.status !== 0) {
      process.stderr.write(asc.stdout + asc.stderr);
      process.exit(asc.status ?? 1);
    }
  }
}

const sqlFolders = [
  'aggregator/schema',
  'aggregator/checks',
  'ledger/migrations',
  'ledger/checks',
  'billing-sync/migrations',
];
for (const folder of sqlFolders) {
  const target = join(dist, folder);
  for (const name of existsSync(target) ? readdirSync(target) : []) {
    if (name.endsWith('.sql')) rmSync(join(target, name));
  }
  if (existsSync(join(root, folder))) {
    cpSync(join(root, folder), target, { recursive: true, filter: (from) => !from.endsWith('.ts') });
  }
}
