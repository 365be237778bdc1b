// Form encoding as Stripe's v1 API reads it: `lines[0][period][start]=1`, `expand[]=customer`, UTF-8, `+` a space.
//
// A name is a path. `[name]` and `[3]` step into an object (an array with indexes arrives as an object with
// numeric keys; validate.ts turns it into an array where the schema wants one), `[]` appends to an array.
// In `lines[][amount]=1&lines[][currency]=usd` a key that the last element already has begins a new element.
import { invalid } from './error.ts';

export type FormValue = string | FormValue[] | FormObject;
export interface FormObject {
  [name: string]: FormValue;
}

/** 250 lines of about twenty parameters each fit; a longer request is refused. */
export const pairsMax = 10_000;
const depthMax = 12;

/** Parses a body or a query string. Throws a 400 on malformed text, too many pairs, or a name used two ways. */
export function parseForm(text: string): FormObject {
  const root = emptyObject();
  if (text === '') return root;
  const pairs = text.split('&');
  if (pairs.length > pairsMax) throw invalid(`The request has more than ${pairsMax} parameters.`);
  for (const pair of pairs) {
    if (pair === '') continue;
    const equals = pair.indexOf('=');
    const name = decode(equals < 0 ? pair : pair.slice(0, equals));
    insert(root, parseName(name), name, decode(equals < 0 ? '' : pair.slice(equals + 1)));
  }
  return root;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '));
  } catch {
    throw invalid(`The request is not valid form encoding near '${text.slice(0, 40)}'.`);
  }
}

/** `a[b][]` becomes `['a', 'b', '']`. */
function parseName(name: string): string[] {
  const bracket = name.indexOf('[');
  if (bracket <= 0) return [name];
  const rest = name.slice(bracket);
  if (!/^(\[[^[\]]*\])+$/.test(rest)) return [name];
  const path = [name.slice(0, bracket), ...rest.slice(1, -1).split('][')];
  if (path.length > depthMax) throw invalid(`The parameter ${name} is nested too deeply.`, undefined, name);
  return path;
}

function insert(root: FormObject, path: string[], name: string, value: string): void {
  let container: FormObject | FormValue[] = root;
  for (const [depth, step] of path.entries()) {
    const last = depth === path.length - 1;
    if (Array.isArray(container)) {
      if (step !== '') throw conflict(name);
      if (last) {
        container.push(value);
        return;
      }
      container = elementFor(container, path.slice(depth + 1), name);
      continue;
    }
    if (last) {
      if (typeof container[step] === 'object') throw conflict(name);
      container[step] = value;
      return;
    }
    const wantsArray = path[depth + 1] === '';
    const next: FormValue = (container[step] ??= wantsArray ? [] : emptyObject());
    if (typeof next === 'string' || Array.isArray(next) !== wantsArray) throw conflict(name);
    container = next;
  }
}

/** The element of `list` that `[][key]` writes to: the last one, or a new one when the last has that key. */
function elementFor(list: FormValue[], rest: string[], name: string): FormObject {
  const last = list.at(-1);
  if (last !== undefined) {
    if (typeof last === 'string' || Array.isArray(last)) throw conflict(name);
    if (!has(last, rest)) return last;
  }
  const element = emptyObject();
  list.push(element);
  return element;
}

function has(element: FormObject, path: string[]): boolean {
  let value: FormValue | undefined = element;
  for (const step of path) {
    if (value === undefined || typeof value === 'string') return value !== undefined;
    if (Array.isArray(value)) return false;
    value = value[step];
  }
  return value !== undefined;
}

function conflict(name: string): Error {
  return invalid(`The parameter ${name} is given both as a value and as a list or a hash.`, undefined, name);
}

/** Without a prototype, so that `__proto__` and `constructor` are names like any other. */
function emptyObject(): FormObject {
  return Object.create(null) as FormObject;
}
