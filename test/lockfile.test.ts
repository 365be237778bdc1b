import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';

// `npm ci` refuses a lock file that lacks a package of another platform, and a lock that names a registry
// breaks wherever that registry is not. Complete it with `npm run lock`.

interface LockEntry {
  readonly version?: string;
  readonly resolved?: string;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

const read = (name: string): unknown =>
  JSON.parse(readFileSync(new URL(`../${name}`, import.meta.url), 'utf8'));
const { packages } = read('package-lock.json') as { packages: Record<string, LockEntry> };

test('the lock file holds the optional packages of every platform', () => {
  const missing = Object.entries(packages).flatMap(([parent, entry]) =>
    Object.keys(entry.optionalDependencies ?? {}).filter(
      (name) => !packages[`${parent}/node_modules/${name}`] && !packages[`node_modules/${name}`],
    ),
  );
  expect(missing).toEqual([]);
});

test('the lock file names no registry host', () => {
  expect(Object.values(packages).filter((entry) => entry.resolved?.startsWith('http'))).toEqual([]);
});

test('every direct dependency is pinned to one exact version', () => {
  const manifest = read('package.json') as Record<'dependencies' | 'devDependencies', Record<string, string>>;
  const loose = Object.entries({ ...manifest.dependencies, ...manifest.devDependencies }).filter(
    ([, version]) => !/^(npm:[a-z-]+@)?[0-9]+\.[0-9]+\.[0-9]+(-[a-z0-9.]+)?$/.test(version),
  );
  expect(loose).toEqual([]);
});
