// Where the installed `stripe` package is, read as files: the stand-in never runs the SDK it stands against.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, dirname, join } from 'node:path';

/** The folder of the installed SDK and its version. */
export function findSdk(): { folder: string; version: string } {
  const entry = createRequire(import.meta.url).resolve('stripe');
  let folder = dirname(entry);
  while (basename(folder) !== 'stripe') {
    if (folder === dirname(folder))
      throw new Error(`cannot find the folder of the stripe package above ${entry}`);
    folder = dirname(folder);
  }
  const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as { version: string };
  return { folder, version: manifest.version };
}
