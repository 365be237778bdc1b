import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

// The house rules that a reader relies on, held by a test instead of by memory: which folder may import
// which, which files may touch the outside world, how long a file may grow.

const root = fileURLToPath(new URL('..', import.meta.url));
const folders = [
  'contract',
  'runtime',
  'ingest',
  'aggregator',
  'ledger',
  'billing-sync',
  'client',
  'local',
  'bench',
  'test',
] as const;
type Folder = (typeof folders)[number];

/** What each folder may import of ours. `billing-sync` sees of the ledger its index alone. */
const mayImport: Readonly<Record<Folder, readonly string[]>> = {
  contract: [],
  runtime: [],
  ingest: ['contract', 'runtime'],
  aggregator: ['contract', 'runtime'],
  ledger: ['contract', 'runtime'],
  'billing-sync': ['contract', 'runtime', 'ledger/index.ts'],
  client: ['contract/event.ts', 'contract/rejections.ts', 'contract/stream.ts'],
  local: ['contract', 'runtime', 'client', 'ledger/verify.ts', 'ledger/quotas.ts', 'aggregator/checks.ts'],
  // What starts engines and waits for conditions is the tests', and the benchmarks use it too.
  bench: [
    'contract',
    'runtime',
    'ingest',
    'aggregator',
    'client',
    'local',
    'test/engines.ts',
    'test/until.ts',
    // What it measures is the product's own queries.
    'ledger/api/usage/query.ts',
    'ledger/api/usage/window.ts',
  ],
  test: ['contract', 'runtime', 'ingest', 'aggregator', 'ledger', 'billing-sync', 'client', 'local', 'bench'],
};

/** Packages with one home each: everything else goes through it. */
const packageHomes: Readonly<Record<string, RegExp>> = {
  stripe: /^billing-sync\/stripe\.ts$|^local\/stripe\/|^test\//,
  'uWebSockets.js': /^ingest\/|^bench\//,
  pg: /^runtime\/|^local\/engines\/|^test\//,
  nats: /^runtime\/|^test\//,
  '@clickhouse/client': /^runtime\/|^test\//,
  fastify: /^ledger\/api\//,
  chdb: /^local\/clickhouse\//,
  ws: /^client\/|^test\//,
  msgpackr: /^ingest\/|^bench\/|^test\//,
};

/**
 * The shell: the files that wait for something (`async`), by folder. Every other file is pure: a function of its
 * arguments, which is what most tests are about.
 */
const shell: Readonly<Partial<Record<Folder, string>>> = {
  contract: '',
  ingest: `acknowledged-bucket deployment main http/server journal/courier journal/journal journal/journal-disk
    journal/journal-lock journal/journal-recovery journal/journaling journal/releases journal/resends`,
  aggregator: `backfill-store backlog consume corrections-store counting flush flush-steps gap incarnation
    incarnation-store lease-bucket log-mark main nats-log owners ownership passed-over patience purge read-shard recover
    rules-store store surviving-prefix survivors tables watched-log watermark-bucket workers dedupe/look-up
    dedupe/rebuild`,
  ledger: `audit backfill-difference backfill-money backfill-steps backfills balance billed-subjects close
    conservation conservation-stages customers edge-totals entitlements grants invoices journal-store main
    meter-versions meters mirror outbox plans post-chunk post-usage posting-loop posting-turn publish quotas residues rollup-check
    tenants unique-counts usage-rows usage-totals usage-work verify api/accounts api/auth api/backfills api/conservation
    api/customers api/invoices api/keys api/meters api/plans api/quota api/refused api/server api/write
    api/usage/late api/usage/routes`,
  'billing-sync': 'inbox loop main outbox push reconcile store stripe webhook',
  client: 'clock delivery exit http index spool spool-lock spool-segment websocket',
};

/** Of these, the few that own a timer or the clock. Time reaches all others as an argument, chance always does. */
const owners: readonly string[] = [
  'aggregator/main.ts',
  'aggregator/timing.ts',
  'client/clock.ts',
  'ingest/http/http.ts',
  'ingest/http/server.ts',
  'ingest/main.ts',
];

interface Source {
  readonly path: string;
  readonly folder: Folder;
  readonly text: string;
}

function sourcesOf(folder: Folder): Source[] {
  const found: Source[] = [];
  const walk = (directory: string): void => {
    for (const name of readdirSync(directory)) {
      const path = join(directory, name);
      if (statSync(path).isDirectory()) walk(path);
      else if (name.endsWith('.ts')) {
        found.push({
          path: relative(root, path).replaceAll('\\', '/'),
          folder,
          text: readFileSync(path, 'utf8'),
        });
      }
    }
  };
  walk(join(root, folder));
  return found;
}

const sources = folders.flatMap((folder) => {
  try {
    return sourcesOf(folder);
  } catch {
    return [];
  }
});
const isTest = (path: string): boolean => path.endsWith('.test.ts') || path.startsWith('test/');

function importsOf(source: Source): string[] {
  const pattern = /(?:^|\n)\s*(?:import|export)\s(?:[^'";]*?\sfrom\s)?'([^']+)'|import\(\s*'([^']+)'\s*\)/g;
  return [...source.text.matchAll(pattern)].map((match) => match[1] ?? match[2] ?? '');
}

describe('imports', () => {
  test('a folder imports only what the table allows', () => {
    const offences: string[] = [];
    for (const source of sources) {
      if (isTest(source.path)) continue;
      for (const name of importsOf(source)) {
        if (!name.startsWith('.')) continue;
        const target = relative(root, resolve(root, dirname(source.path), name)).replaceAll('\\', '/');
        if (target.startsWith(`${source.folder}/`)) continue;
        const allowed = mayImport[source.folder].some((entry) =>
          entry.endsWith('.ts') ? target === entry : target.startsWith(`${entry}/`),
        );
        if (!allowed) offences.push(`${source.path} imports ${target}`);
      }
    }
    expect(offences).toEqual([]);
  });

  test('a package with one home is imported only there', () => {
    const offences = sources.flatMap((source) =>
      importsOf(source)
        .filter((name) => packageHomes[name] !== undefined && !packageHomes[name].test(source.path))
        .map((name) => `${source.path} imports ${name}`),
    );
    expect(offences).toEqual([]);
  });
});

describe('purity', () => {
  const stages = sources.filter((source) => shell[source.folder] !== undefined && !isTest(source.path));

  test('only the files of the shell wait for anything', () => {
    const listed = Object.entries(shell).flatMap(([folder, names]) =>
      names.split(/\s+/).flatMap((name) => (name === '' ? [] : [`${folder}/${name}.ts`])),
    );
    const found = stages
      .filter((source) => /\basync\b/.test(withoutComments(source.text)))
      .map(({ path }) => path);
    expect(found.sort()).toEqual(listed.sort());
  });

  test('only their owners touch the clock, timers, chance or the environment', () => {
    const impure =
      /\bprocess\.env\b|\bDate\.now\(|\bMath\.random\(|\bnew Date\(\)|\bsetTimeout\(|\bsetInterval\(/;
    const found = stages
      .filter((source) => impure.test(withoutComments(source.text)))
      .map(({ path }) => path);
    expect(found.sort()).toEqual([...owners].sort());
  });
});

describe('style', () => {
  test('no file grows beyond 1,000 lines', () => {
    const long = sources
      .filter((source) => source.text.split('\n').length > 1_000)
      .map((source) => source.path);
    expect(long).toEqual([]);
  });

  test('files are kebab-case nouns', () => {
    const banned = /\/(utils?|helpers?|.*-?manager|.*-?service)\.ts$/;
    const odd = sources
      .filter(
        (source) =>
          !/^[a-z0-9-]+(\.[a-z]+)*\.ts$/.test(source.path.split('/').at(-1)!) || banned.test(source.path),
      )
      .map((source) => source.path);
    expect(odd).toEqual([]);
  });

  test('no float parsing stands in the code', () => {
    const floats = sources
      .filter((source) => !isTest(source.path) && /\bparseFloat\b/.test(source.text))
      .map((source) => source.path);
    expect(floats).toEqual([]);
  });
});

/** Comments that stand on lines of their own, as ours do: a `/*` inside of a string is none. */
function withoutComments(text: string): string {
  return text.replace(/^\s*\/\*[\s\S]*?\*\//gm, '').replace(/^\s*\/\/.*$/gm, '');
}
