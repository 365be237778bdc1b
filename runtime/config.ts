/**
 * Configuration from environment variables.
 *
 * Every limit of a process is a field here: it has a name, a unit in that name, a default and bounds. All
 * fields are read before anything starts and every mistake is reported at once, because a person who
 * corrects one variable only to learn of the next one gives up. An empty variable counts as unset. The
 * value of a secret appears in no message.
 */

export type Parsed<T> = { readonly value: T } | { readonly mistake: string };

export interface Field<T> {
  readonly env: string;
  readonly describe: string;
  readonly secret?: boolean;
  /** What is allowed, in words, for --help and for mistakes. */
  readonly allowed: string;
  /** The default as a person would write it, or undefined when the field is required. */
  readonly defaultText: string | undefined;
  /** `raw` is undefined when the variable is unset or empty. */
  parse(raw: string | undefined): Parsed<T>;
}

export type Fields = Record<string, Field<unknown>>;
export type ConfigOf<S> = { readonly [K in keyof S]: S[K] extends Field<infer T> ? T : never };

export class ConfigError extends Error {
  readonly mistakes: readonly string[];
  constructor(mistakes: readonly string[]) {
    super(
      `configuration has ${mistakes.length} mistake${mistakes.length === 1 ? '' : 's'}:\n  ${mistakes.join('\n  ')}`,
    );
    this.name = 'ConfigError';
    this.mistakes = mistakes;
  }
}

interface FieldParts<T> {
  readonly env: string;
  readonly describe: string;
  readonly secret?: boolean | undefined;
  readonly allowed: string;
  readonly default: T | undefined;
  readonly show?: (value: T) => string;
  /** Returns undefined for a value that is not allowed. */
  read(raw: string): T | undefined;
}

function field<T>(parts: FieldParts<T>): Field<T> {
  const shown = (raw: string) => (parts.secret ? 'the value given' : JSON.stringify(raw));
  return {
    env: parts.env,
    describe: parts.describe,
    allowed: parts.allowed,
    defaultText: parts.default === undefined ? undefined : (parts.show ?? String)(parts.default),
    ...(parts.secret ? { secret: true } : {}),
    parse(raw) {
      if (raw === undefined) {
        if (parts.default !== undefined) return { value: parts.default };
        return { mistake: `${parts.env} is required: ${parts.describe} (${parts.allowed})` };
      }
      const value = parts.read(raw);
      if (value === undefined) return { mistake: `${parts.env} must be ${parts.allowed}, not ${shown(raw)}` };
      return { value };
    },
  };
}

export function text(
  env: string,
  o: { describe: string; default?: string; secret?: boolean; pattern?: RegExp },
): Field<string> {
  return field<string>({
    env,
    describe: o.describe,
    secret: o.secret,
    allowed: o.pattern ? `text like ${o.pattern.source}` : 'text',
    default: o.default,
    read: (raw) => (o.pattern && !o.pattern.test(raw) ? undefined : raw),
  });
}

/** A whole number in plain decimal digits, `min` and `max` included. */
export function integer(
  env: string,
  o: { describe: string; default?: number; min: number; max: number },
): Field<number> {
  return field<number>({
    env,
    describe: o.describe,
    allowed: `a whole number from ${o.min} to ${o.max}`,
    default: o.default,
    read(raw) {
      if (!/^-?[0-9]{1,16}$/.test(raw)) return undefined;
      const value = Number(raw);
      return Number.isSafeInteger(value) && value >= o.min && value <= o.max ? value : undefined;
    },
  });
}

const FLAGS = new Map([
  ['1', true],
  ['true', true],
  ['0', false],
  ['false', false],
]);

export function flag(env: string, o: { describe: string; default: boolean }): Field<boolean> {
  return field<boolean>({
    env,
    describe: o.describe,
    allowed: '1, 0, true or false',
    default: o.default,
    show: (value) => (value ? '1' : '0'),
    read: (raw) => FLAGS.get(raw.toLowerCase()),
  });
}

export function choice<T extends string>(
  env: string,
  o: { describe: string; default?: T; values: readonly T[] },
): Field<T> {
  return field<T>({
    env,
    describe: o.describe,
    allowed: `one of ${o.values.join(', ')}`,
    default: o.default,
    read: (raw) => o.values.find((value) => value === raw),
  });
}

/** A URL as one string. `protocols` are named with or without their colon. */
export function url(
  env: string,
  o: { describe: string; default?: string; secret?: boolean; protocols: readonly string[] },
): Field<string> {
  const protocols = o.protocols.map((name) => name.replace(/:$/, ''));
  return field<string>({
    env,
    describe: o.describe,
    secret: o.secret,
    allowed: `a URL starting with ${protocols.map((name) => `${name}://`).join(' or ')}`,
    default: o.default,
    show: withoutPassword,
    read(raw) {
      if (!URL.canParse(raw)) return undefined;
      return protocols.includes(new URL(raw).protocol.replace(/:$/, '')) ? raw : undefined;
    },
  });
}

/** The same field, undefined when its variable is unset. A default of the inner field still applies. */
export function optional<T>(inner: Field<T>): Field<T | undefined> {
  return {
    ...inner,
    defaultText: inner.defaultText ?? 'unset',
    parse: (raw) =>
      raw === undefined && inner.defaultText === undefined ? { value: undefined } : inner.parse(raw),
  };
}

/** Reads every field; throws one ConfigError with all mistakes, in the order of the fields. */
export function readConfig<S extends Fields>(
  fields: S,
  env: Record<string, string | undefined>,
): ConfigOf<S> {
  const mistakes: string[] = [];
  const values: Record<string, unknown> = {};
  for (const [name, one] of Object.entries(fields)) {
    const raw = env[one.env]?.trim();
    const parsed = one.parse(raw === '' ? undefined : raw);
    if ('mistake' in parsed) mistakes.push(parsed.mistake);
    else values[name] = parsed.value;
  }
  if (mistakes.length > 0) throw new ConfigError(mistakes);
  return values as ConfigOf<S>;
}

/** One line a field for --help: the variable, its meaning, what is allowed, its default. */
export function describeConfig(fields: Fields): string {
  const all = Object.values(fields);
  const width = Math.max(0, ...all.map((one) => one.env.length));
  return all
    .map((one) => {
      const preset =
        one.defaultText === undefined ? 'required' : `default ${one.secret ? 'hidden' : one.defaultText}`;
      return `  ${one.env.padEnd(width)}  ${one.describe} (${one.allowed}; ${preset}${one.secret ? '; secret' : ''})`;
    })
    .join('\n');
}

/** A connection string fit to be shown: its password is starred out. What is not a URL is hidden whole. */
export function withoutPassword(connection: string): string {
  if (!URL.canParse(connection)) return '[hidden]';
  const parsed = new URL(connection);
  if (parsed.password === '') return connection;
  parsed.password = '***';
  return parsed.href;
}
