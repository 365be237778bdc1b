/** The spellings of values: JSON with its escapes and white space, msgpack with its many forms, as the dice fall. */
import { Packr } from 'msgpackr';
import * as msgpack from '../msgpack-encoder.ts';
import { Dict, Junk, Num, Packed, fitsDouble, isList, keptNumber, unpacked } from './values.ts';
import type { Dice, Key, Value, Writer } from './values.ts';

type Token = string | Uint8Array;

/**
 * JSON with white space and escapes as the dice fall, or compact and plain without any.
 *
 * @param lines no line feed may stand between two tokens
 */
export class JsonWriter implements Writer {
  readonly #dice: Dice | null;
  readonly #spaces: readonly string[];
  readonly #literals = new Map<readonly Value[], string>();
  readonly #texts: 'plain' | 'escaped' | 'mixed';
  readonly #isWide: boolean;

  constructor(dice: Dice | null, lines: boolean) {
    this.#dice = dice;
    this.#spaces = lines ? ['', ' ', '\t', '\r'] : ['', ' ', '\t', '\r', '\n', ' \n\n '];
    this.#texts = dice === null ? 'plain' : dice.pick(['plain', 'escaped', 'mixed', 'mixed']);
    this.#isWide = dice !== null && dice.oneIn(2);
  }

  write(value: Value): Buffer {
    const tokens: Token[] = [];
    this.#put(value, tokens);
    if (this.#isWide) {
      for (let at = 0; at < tokens.length; at++) {
        const token = tokens[at]!;
        if (!this.#dice!.oneIn(3)) continue;
        const space = this.#dice!.pick(this.#spaces);
        tokens[at] = typeof token === 'string' ? space + token : Buffer.concat([Buffer.from(space), token]);
      }
    }
    if (tokens.every((token) => typeof token === 'string')) return Buffer.from(tokens.join(''));
    return Buffer.concat(tokens.map((token) => Buffer.from(token as Uint8Array)));
  }

  literal(list: readonly Value[]): string {
    return this.#literals.get(list)!;
  }

  /** Appends the tokens of the value. */
  #put(value: Value | Key, tokens: Token[]): void {
    if (typeof value === 'string') tokens.push(this.#text(value));
    else if (value === null || typeof value === 'boolean') tokens.push(String(value));
    else if (value instanceof Num) tokens.push(value.digits);
    else if (value instanceof Junk) tokens.push(value.bytes);
    else if (value instanceof Packed) throw new Error('JSON has no such value');
    else if (value instanceof Dict) {
      tokens.push('{');
      value.entries.forEach(([key, item], at) => {
        if (at > 0) tokens.push(',');
        this.#put(key, tokens);
        tokens.push(':');
        this.#put(item, tokens);
      });
      tokens.push('}');
    } else {
      const start = tokens.push('[') - 1;
      value.forEach((item, at) => {
        if (at > 0) tokens.push(',');
        this.#put(item, tokens);
      });
      tokens.push(']');
      this.#literals.set(value, tokens.slice(start).join(''));
    }
  }

  #text(text: string): string {
    if (this.#texts === 'plain' || text.length > 4_096) return JSON.stringify(text);
    const dice = this.#dice!;
    let written = '"';
    for (const character of text) {
      const isLone = !character.isWellFormed();
      if (isLone || this.#texts === 'escaped' || dice.oneIn(3)) {
        for (let at = 0; at < character.length; at++) {
          const code = character.charCodeAt(at).toString(16).padStart(4, '0');
          written += `\\u${dice.oneIn(2) ? code : code.toUpperCase()}`;
        }
      } else if (character === '/' && dice.oneIn(2)) written += '\\/';
      else written += JSON.stringify(character).slice(1, -1);
    }
    return `${written}"`;
  }
}

/** msgpack in forms as the dice fall, by hand; in the shortest ones without any. */
export class MsgpackWriter implements Writer {
  readonly #dice: Dice | null;

  constructor(dice: Dice | null) {
    this.#dice = dice;
  }

  write(value: Value): Buffer {
    return Buffer.from(this.#bytes(value));
  }

  literal(list: readonly Value[]): string {
    return jsonOf(list);
  }

  #bytes(value: Value | Key): Uint8Array {
    if (typeof value === 'string') return this.#text(value);
    if (value === null) return msgpack.nil;
    if (typeof value === 'boolean') return msgpack.bool(value);
    if (value instanceof Num) return this.#number(value.digits);
    if (value instanceof Packed) return value.bytes;
    if (value instanceof Junk) throw new Error('msgpack has other faults of its own');
    if (value instanceof Dict) {
      const entries = value.entries.map(([key, item]) => [this.#bytes(key), this.#bytes(item)] as const);
      return msgpack.map(entries, this.#form(entries.length));
    }
    const items = value.map((item) => this.#bytes(item));
    return msgpack.array(items, this.#form(items.length));
  }

  #form(count: number): msgpack.ContainerForm {
    const least = count < 16 ? 'fix' : 16;
    return this.#dice?.oneIn(3) === true ? this.#dice.pick([least, 16, 32]) : least;
  }

  #text(text: string): Uint8Array {
    const bytes = msgpack.wtf8(text);
    if (this.#dice === null || this.#dice.below(3) > 0) return msgpack.raw(bytes);
    return msgpack.raw(
      bytes,
      this.#dice.pick(bytes.length < 256 ? [8, 16, 32] : bytes.length < 65_536 ? [16, 32] : [32]),
    );
  }

  #number(digits: string): Uint8Array {
    const [mantissa, scale] = (keptNumber(digits) ?? '').split('e-') as [string, string];
    if (!fitsDouble(digits)) throw new Error(`msgpack cannot carry ${digits}`);
    if (scale !== '0') {
      const value = Number(digits);
      const isSingle = Math.fround(value) === value && this.#dice?.oneIn(2) === true;
      return isSingle ? msgpack.float32(value) : msgpack.float64(value);
    }
    const forms = msgpack.integerForms(BigInt(mantissa));
    if (this.#dice?.oneIn(4) === true) return msgpack.float64(Number(mantissa));
    return msgpack.integer(BigInt(mantissa), this.#dice === null ? forms[0]! : this.#dice.pick(forms));
  }
}

/** msgpack from a library that our clients use. Only what a JavaScript value can say. */
export class MsgpackrWriter implements Writer {
  readonly #packr = new Packr({ useRecords: false, variableMapSize: true });

  write(value: Value): Buffer {
    return this.#packr.pack(plain(value));
  }

  literal(list: readonly Value[]): string {
    return jsonOf(list);
  }
}

/** As JavaScript has it, with maps for objects: a map keeps its order and has no key that means something else. */
function plain(value: Value): unknown {
  if (value instanceof Num) return Number(value.digits);
  if (isList(value)) return value.map(plain);
  if (value instanceof Dict) return new Map(value.entries.map(([key, item]) => [key, plain(item)]));
  return value;
}

/** What JSON.stringify would write, if its objects kept the order of their keys. */
function jsonOf(value: Value | Key): string {
  if (value instanceof Num) return JSON.stringify(Number(value.digits));
  if (value instanceof Packed) return JSON.stringify(Number(unpacked(value.bytes)));
  if (isList(value)) return `[${value.map(jsonOf).join(',')}]`;
  if (!(value instanceof Dict)) return JSON.stringify(value);
  return `{${value.entries.map(([key, item]) => `${jsonOf(key)}:${jsonOf(item)}`).join(',')}}`;
}
