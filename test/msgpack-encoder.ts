/**
 * msgpack by hand: every form that the specification has for a value, also those that no library would choose, and
 * bodies that no library would make. Each function returns the bytes of one value.
 */
import type { Node } from './json-model.ts';

export type Bytes = Uint8Array;
/** A number below its argument. */
export type Choose = (below: number) => number;

function join(...parts: readonly (Bytes | readonly number[])[]): Bytes {
  const joined = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

function unsigned(size: 1 | 2 | 4, value: number): number[] {
  return Array.from({ length: size }, (_, at) => Math.floor(value / 2 ** ((size - 1 - at) * 8)) % 256);
}

export const nil: Bytes = Uint8Array.of(0xc0);
export const bool = (value: boolean): Bytes => Uint8Array.of(value ? 0xc3 : 0xc2);

export type StringForm = 'fix' | 8 | 16 | 32;
export function raw(bytes: Bytes, form?: StringForm): Bytes {
  const { length } = bytes;
  const fitting = form ?? (length < 32 ? 'fix' : length < 256 ? 8 : length < 65_536 ? 16 : 32);
  switch (fitting) {
    case 'fix':
      return join([0xa0 | length], bytes);
    case 8:
      return join([0xd9], unsigned(1, length), bytes);
    case 16:
      return join([0xda], unsigned(2, length), bytes);
    case 32:
      return join([0xdb], unsigned(4, length), bytes);
  }
}

/** Lone surrogates are written as three bytes each, as msgpackr does, which is no UTF-8. */
export const text = (value: string, form?: StringForm): Bytes => raw(wtf8(value), form);

export function wtf8(value: string): Bytes {
  const encoder = new TextEncoder();
  if (value.isWellFormed()) return encoder.encode(value);
  const characters = [...value].map((character) => {
    const code = character.codePointAt(0)!;
    if (code < 0xd800 || code > 0xdfff) return encoder.encode(character);
    return [0xe0 | (code >> 12), 0x80 | ((code >> 6) & 0x3f), 0x80 | (code & 0x3f)];
  });
  return join(...characters);
}

export type ContainerForm = 'fix' | 16 | 32;
function container(kind: 'array' | 'map', count: number, form: ContainerForm | undefined): number[] {
  const [fix, wide] = kind === 'array' ? [0x90, 0xdc] : [0x80, 0xde];
  switch (form ?? (count < 16 ? 'fix' : count < 65_536 ? 16 : 32)) {
    case 'fix':
      return [fix | count];
    case 16:
      return [wide, ...unsigned(2, count)];
    case 32:
      return [wide + 1, ...unsigned(4, count)];
  }
}

export const array = (items: readonly Bytes[], form?: ContainerForm): Bytes =>
  join(container('array', items.length, form), ...items);
export const map = (entries: readonly (readonly [Bytes, Bytes])[], form?: ContainerForm): Bytes =>
  join(container('map', entries.length, form), ...entries.flat());
/** A head that announces `count` and nothing behind it. */
export const announced = (kind: 'array' | 'map', count: number, form: 16 | 32): Bytes =>
  Uint8Array.from(container(kind, count, form));

/** An object, in the forms that a library would choose. */
export const object = (entries: Readonly<Record<string, Bytes>>): Bytes =>
  map(Object.entries(entries).map(([key, value]) => [text(key), value]));

export type IntegerForm = 'fix' | 'u8' | 'u16' | 'u32' | 'u64' | 'i8' | 'i16' | 'i32' | 'i64';
const INTEGER_FORMS: Readonly<Record<IntegerForm, readonly [head: number, min: bigint, max: bigint]>> = {
  fix: [0, -32n, 127n],
  u8: [0xcc, 0n, 2n ** 8n - 1n],
  u16: [0xcd, 0n, 2n ** 16n - 1n],
  u32: [0xce, 0n, 2n ** 32n - 1n],
  u64: [0xcf, 0n, 2n ** 64n - 1n],
  i8: [0xd0, -(2n ** 7n), 2n ** 7n - 1n],
  i16: [0xd1, -(2n ** 15n), 2n ** 15n - 1n],
  i32: [0xd2, -(2n ** 31n), 2n ** 31n - 1n],
  i64: [0xd3, -(2n ** 63n), 2n ** 63n - 1n],
};

/** The forms that can hold the integer. */
export function integerForms(value: bigint): IntegerForm[] {
  const forms = Object.keys(INTEGER_FORMS) as IntegerForm[];
  return forms.filter((form) => value >= INTEGER_FORMS[form][1] && value <= INTEGER_FORMS[form][2]);
}

export function integer(value: bigint | number, form: IntegerForm): Bytes {
  const exact = BigInt(value);
  if (form === 'fix') return Uint8Array.of(Number(BigInt.asUintN(8, exact)));
  const size = Number(form.slice(1)) / 8;
  const bits = BigInt.asUintN(size * 8, exact);
  return Uint8Array.of(
    INTEGER_FORMS[form][0],
    ...Array.from({ length: size }, (_, at) => Number((bits >> BigInt((size - 1 - at) * 8)) & 0xffn)),
  );
}

export function float64(value: number): Bytes {
  const bytes = new Uint8Array(9);
  bytes[0] = 0xcb;
  new DataView(bytes.buffer).setFloat64(1, value);
  return bytes;
}

export function float32(value: number): Bytes {
  const bytes = new Uint8Array(5);
  bytes[0] = 0xca;
  new DataView(bytes.buffer).setFloat32(1, value);
  return bytes;
}

export function binary(bytes: Bytes, form: 8 | 16 | 32 = 8): Bytes {
  const size = (form / 8) as 1 | 2 | 4;
  return join([{ 8: 0xc4, 16: 0xc5, 32: 0xc6 }[form]], unsigned(size, bytes.length), bytes);
}

export type ExtensionForm = 'fix' | 8 | 16 | 32;
export function extension(type: number, bytes: Bytes, form: ExtensionForm): Bytes {
  const tag = type & 0xff;
  if (form === 'fix') return join([0xd4 + Math.log2(bytes.length), tag], bytes);
  const size = (form / 8) as 1 | 2 | 4;
  return join([{ 8: 0xc7, 16: 0xc8, 32: 0xc9 }[form]], unsigned(size, bytes.length), [tag], bytes);
}

/** The tokens of JSON as msgpack, in forms that are chosen. Numbers are what JSON.parse makes of them. */
export function encodeNode(node: Node, choose: Choose): Bytes {
  const containerForm = (count: number): ContainerForm => {
    const forms: readonly ContainerForm[] = count < 16 ? ['fix', 16, 32] : [16, 32];
    return forms[choose(forms.length)]!;
  };
  switch (node.kind) {
    case 'string':
      return encodeText(node.value, choose);
    case 'word':
      return node.raw === 'null' ? nil : bool(node.raw === 'true');
    case 'number':
      return encodeNumber(node.raw, choose);
    case 'array':
      return array(
        node.items.map((item) => encodeNode(item, choose)),
        containerForm(node.items.length),
      );
    case 'object':
      return map(
        node.entries.map(([key, value]) => [encodeText(key.value, choose), encodeNode(value, choose)]),
        containerForm(node.entries.length),
      );
  }
}

function encodeText(value: string, choose: Choose): Bytes {
  const bytes = wtf8(value);
  const forms: readonly StringForm[] =
    bytes.length < 32 ? ['fix', 8, 16, 32] : bytes.length < 256 ? [8, 16, 32] : [16, 32];
  return raw(bytes, forms[choose(forms.length)]!);
}

/** Digits alone are an integer, of up to 64 bits; all else is a double. */
function encodeNumber(digits: string, choose: Choose): Bytes {
  const value = Number(digits);
  const forms: (() => Bytes)[] = [];
  if (Number.isSafeInteger(value) || !Number.isInteger(value)) forms.push(() => float64(value));
  if (Object.is(Math.fround(value), value) && forms.length > 0) forms.push(() => float32(value));
  if (/^-?[0-9]+$/.test(digits)) {
    const exact = BigInt(digits);
    for (const form of integerForms(exact)) forms.push(() => integer(exact, form));
  }
  if (forms.length === 0) forms.push(() => float64(value));
  return forms[choose(forms.length)]!();
}
