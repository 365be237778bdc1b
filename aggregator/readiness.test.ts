import { expect, test } from 'vitest';
import { Readiness } from './readiness.ts';

function told(): { readiness: Readiness; said: string[] } {
  const said: string[] = [];
  const readiness = new Readiness((ready, reason) => said.push(ready ? 'ready' : `not: ${reason}`));
  return { readiness, said };
}

test('a failure that passes while the process starts does not make it ready', () => {
  const { readiness, said } = told();
  readiness.set('schema', 'ClickHouse is away');
  readiness.set('schema', null);
  expect(said).toEqual(['not: ClickHouse is away']);
  readiness.started();
  expect(said.at(-1)).toBe('ready');
});

test('it is ready again when the last reason has gone, and names all that stand', () => {
  const { readiness, said } = told();
  readiness.started();
  readiness.set('shard 1', 'its log is silent');
  readiness.set('shard 1', 'its log is silent');
  readiness.set('flush', 'ClickHouse is away');
  readiness.set('shard 1', null);
  readiness.set('flush', null);
  readiness.set('flush', null);
  expect(said).toEqual([
    'ready',
    'not: its log is silent',
    'not: its log is silent; ClickHouse is away',
    'not: ClickHouse is away',
    'ready',
  ]);
});

test('what was wrong when the start ended is said then', () => {
  const { readiness, said } = told();
  readiness.set('shard 1', 'its log is silent');
  readiness.started();
  expect(said).toEqual(['not: its log is silent']);
  readiness.set('shard 1', null);
  expect(said.at(-1)).toBe('ready');
});
