import { defineConfig } from 'vitest/config';

// `unit` is what a person runs all day: pure code, no engines. `engines` starts real NATS, Postgres
// and ClickHouse on ports of its own.
const fast = ['test/tidy.test.ts', 'test/lockfile.test.ts'];

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          maxWorkers: 2,
          sequence: { groupOrder: 0 },
          include: [
            '{contract,runtime,ingest,aggregator,ledger,billing-sync,client,local,bench}/**/*.test.ts',
            ...fast,
          ],
        },
      },
      {
        test: {
          name: 'engines',
          sequence: { groupOrder: 1 },
          include: ['test/**/*.test.ts'],
          exclude: fast,
          testTimeout: 60_000,
          hookTimeout: 60_000,
          maxWorkers: 2,
        },
      },
    ],
  },
});
