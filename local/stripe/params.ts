// Reads typed values out of parameters that validate.ts has already checked and coerced. A value of another shape
// here would be a hole in the schema, so it is a bug and not a refusal.
import { invalid, unsupported } from './error.ts';
import type { JsonObject } from './operation.ts';
import type { Metadata } from './state.ts';

export type Params = JsonObject;

/** Refuses every parameter that the handler does not act on. Empty strings unset what was never set: accepted. */
export function onlySupported(params: Params, supported: readonly string[]): void {
  for (const [name, value] of Object.entries(params)) {
    if (name !== 'expand' && value !== '' && !supported.includes(name)) throw unsupported(name);
  }
}

export function text(params: Params, name: string): string | undefined {
  const value = params[name];
  if (value !== undefined && typeof value !== 'string') throw new TypeError(`${name} is not a string`);
  return value;
}

/** A text field as it is stored: undefined leaves it alone, the empty string unsets it. */
export function field(params: Params, name: string, current: string | null): string | null {
  const value = text(params, name);
  return value === undefined ? current : value === '' ? null : value;
}

export function requiredText(params: Params, name: string): string {
  const value = text(params, name);
  if (value === undefined || value === '')
    throw invalid(`Missing required param: ${name}.`, 'parameter_missing', name);
  return value;
}

export function whole(params: Params, name: string): number | undefined {
  const value = params[name];
  if (value === undefined || value === '') return undefined;
  if (typeof value !== 'number') throw new TypeError(`${name} is not an integer`);
  return value;
}

export function flag(params: Params, name: string): boolean | undefined {
  const value = params[name];
  if (value !== undefined && typeof value !== 'boolean') throw new TypeError(`${name} is not a boolean`);
  return value;
}

export function hash(params: Params, name: string): JsonObject | undefined {
  const value = params[name];
  if (value === undefined || value === '') return undefined;
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new TypeError(`${name} is not a hash`);
  return value;
}

export function hashes(params: Params, name: string): JsonObject[] | undefined {
  const value = params[name];
  if (value === undefined || value === '') return undefined;
  if (!Array.isArray(value)) throw new TypeError(`${name} is not a list`);
  return value.map((_, index) => hash(value as unknown as Params, String(index)) ?? {});
}

export function texts(params: Params, name: string): string[] | undefined {
  const value = params[name];
  if (value === undefined || value === '') return undefined;
  if (!Array.isArray(value)) throw new TypeError(`${name} is not a list`);
  return value.map(String);
}

const keysMax = 50;
const keyCharactersMax = 40;
const valueCharactersMax = 500;

/** Merges as Stripe does: an empty value unsets its key, an empty `metadata` unsets them all. */
export function mergeMetadata(params: Params, current: Metadata, name = 'metadata'): Metadata {
  if (params[name] === '') return {};
  const given = hash(params, name);
  if (given === undefined) return current;
  const merged = new Map(Object.entries(current));
  for (const [key, value] of Object.entries(given)) {
    const param = `${name}[${key}]`;
    if (key.length > keyCharactersMax) {
      throw invalid(`Metadata keys can have up to ${keyCharactersMax} characters.`, undefined, param);
    }
    const written = String(value);
    if (written.length > valueCharactersMax) {
      throw invalid(`Metadata values can have up to ${valueCharactersMax} characters.`, undefined, param);
    }
    if (written === '') merged.delete(key);
    else merged.set(key, written);
  }
  if (merged.size > keysMax) throw invalid(`Metadata can have up to ${keysMax} keys.`, undefined, name);
  return Object.fromEntries(merged);
}
