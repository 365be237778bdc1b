import { expect, test } from 'vitest';
import {
  choice,
  ConfigError,
  describeConfig,
  flag,
  integer,
  optional,
  readConfig,
  text,
  url,
  withoutPassword,
  type Field,
} from './config.ts';

const fields = {
  databaseUrl: url('DATABASE_URL', {
    describe: 'Postgres',
    protocols: ['postgres', 'postgresql'],
    secret: true,
  }),
  shards: integer('SHARDS', { describe: 'streams', default: 4, min: 1, max: 64 }),
  mode: choice('MODE', { describe: 'how', values: ['fast', 'safe'], default: 'safe' }),
  quiet: flag('QUIET', { describe: 'say less', default: false }),
  key: text('KEY', { describe: 'signing key', secret: true, pattern: /^[a-f0-9]{4}$/ }),
  note: optional(text('NOTE', { describe: 'a note' })),
};

function mistakesOf(env: Record<string, string | undefined>): readonly string[] {
  try {
    readConfig(fields, env);
    return [];
  } catch (error) {
    if (error instanceof ConfigError) return error.mistakes;
    throw error;
  }
}

test('every mistake is reported at once, in the order of the fields', () => {
  expect(
    mistakesOf({ DATABASE_URL: 'mysql://x', SHARDS: '65', MODE: 'reckless', QUIET: 'maybe', KEY: 'hunter2' }),
  ).toEqual([
    'DATABASE_URL must be a URL starting with postgres:// or postgresql://, not the value given',
    'SHARDS must be a whole number from 1 to 64, not "65"',
    'MODE must be one of fast, safe, not "reckless"',
    'QUIET must be 1, 0, true or false, not "maybe"',
    'KEY must be text like ^[a-f0-9]{4}$, not the value given',
  ]);
});

test('a required field that is unset or empty says what it is for', () => {
  expect(mistakesOf({ KEY: '', DATABASE_URL: '  ' })).toEqual([
    'DATABASE_URL is required: Postgres (a URL starting with postgres:// or postgresql://)',
    'KEY is required: signing key (text like ^[a-f0-9]{4}$)',
  ]);
});

test('defaults fill in, and an optional field may be absent', () => {
  expect(readConfig(fields, { DATABASE_URL: 'postgres://localhost/x', KEY: 'beef' })).toEqual({
    databaseUrl: 'postgres://localhost/x',
    shards: 4,
    mode: 'safe',
    quiet: false,
    key: 'beef',
    note: undefined,
  });
});

test.each(['4.0', '1e1', ' ', '0x4', '٤', '99999999999999999'])('%j is not a whole number', (raw) => {
  const one = integer('N', { describe: 'n', min: 0, max: Number.MAX_SAFE_INTEGER });
  expect(one.parse(raw)).toHaveProperty('mistake');
});

test('help has one line a field and hides secret defaults', () => {
  const help = describeConfig({
    ...fields,
    pepper: text('PEPPER', { describe: 'pepper', secret: true, default: 'swordfish' }),
  });
  expect(help.split('\n')).toHaveLength(7);
  expect(help).toContain('SHARDS        streams (a whole number from 1 to 64; default 4)');
  expect(help).not.toContain('swordfish');
});

test('the type of a config follows its fields', () => {
  const config = readConfig({ shards: fields.shards as Field<number> }, {});
  const shards: number = config.shards;
  expect(shards).toBe(4);
});

test.each([
  ['postgres://me:hunter2@db:5432/x', 'postgres://me:***@db:5432/x'],
  ['http://db:8123/x', 'http://db:8123/x'],
  ['not a url hunter2', '[hidden]'],
])('a connection string is shown without its password: %s', (connection, shown) => {
  expect(withoutPassword(connection)).toBe(shown);
});
