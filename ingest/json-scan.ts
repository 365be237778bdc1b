/**
 * What JSON.parse does not tell: where a text stops being JSON, and which of its numbers it has rounded.
 * Both are asked rarely, so this walks the text character by character and is only started when a body
 * does not parse, or when a glance at its bytes says that a number might not have survived.
 */
const DIGIT = new Uint8Array(256);
for (const character of '0123456789.') DIGIT[character.charCodeAt(0)] = 1;

/** Every decimal of up to 15 significant digits comes back from a double as it was (IEEE 754). */
const EXACT_DIGITS = 15;

/**
 * False: no number in these bytes of JSON can have been rounded by JSON.parse. True: one may have been.
 *
 * A number is at risk with more than 15 digits, or with an exponent so low that it became zero. A run of 16
 * digits and dots must cover one of every 16 bytes, so that only those are looked at (35 ns for an event of
 * 240 bytes; a regular expression takes 370).
 */
export function mayHoldRoundedNumber(bytes: Uint8Array): boolean {
  const run = EXACT_DIGITS + 1;
  for (let at = run - 1; at < bytes.length; at += run) {
    if (DIGIT[bytes[at]!] === 0) continue;
    let start = at;
    while (start > 0 && at - start < run && DIGIT[bytes[start - 1]!] === 1) start -= 1;
    let end = at + 1;
    while (end < bytes.length && end - start < run && DIGIT[bytes[end]!] === 1) end += 1;
    if (end - start >= run) return true;
  }
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return hasLowExponent(buffer, 'e-') || hasLowExponent(buffer, 'E-');
}

/** An exponent of three digits or more that ends like a number, which the groups of a UUID do not. */
function hasLowExponent(bytes: Buffer, mark: string): boolean {
  for (let at = bytes.indexOf(mark); at >= 0; at = bytes.indexOf(mark, at + 2)) {
    let end = at + 2;
    while (end < bytes.length && bytes[end]! >= 0x30 && bytes[end]! <= 0x39) end += 1;
    if (end - at < 5) continue;
    const next = bytes[end];
    if (next === undefined || next <= 0x20 || next === 0x2c || next === 0x5d || next === 0x7d) return true;
  }
  return false;
}

/**
 * The indexes of the elements of a JSON array (or 0, for any other text) that hold a number which
 * JSON.parse has rounded. The text is JSON already parsed.
 */
export function elementsWithRoundedNumber(text: string): Set<number> {
  const found = new Set<number>();
  scanJson(text, (literal, element) => {
    if (isRounded(literal)) found.add(element);
  });
  return found;
}

/** Whether the double nearest to a JSON number, printed again, is another number. */
export function isRounded(literal: string): boolean {
  return normalForm(literal) !== normalForm(String(Number(literal)));
}

/** A number as its digits without zeros at either end, and the power of ten behind them. */
function normalForm(literal: string): string {
  const match = /^(-?)(\d+)(?:\.(\d*))?(?:[eE]([+-]?\d+))?$/.exec(literal);
  if (match === null) return literal; // Infinity
  const fraction = match[3] ?? '';
  const digits = (match[2]! + fraction).replace(/^0+/, '');
  const trimmed = digits.replace(/0+$/, '');
  if (trimmed === '') return '0';
  return `${match[1]}${trimmed}e${Number(match[4] ?? 0) - fraction.length + digits.length - trimmed.length}`;
}

const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
// eslint-disable-next-line no-control-regex -- JSON forbids these characters in a string, and so it is meant
const STRING = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y;
const WORD = /true|false|null/y;
const SPACE = /[ \t\n\r]*/y;

/**
 * Walks JSON text; returns the offset of its first fault, or -1 when it is sound. The nesting is kept in a
 * list and not on the call stack: a million brackets are no reason to fall over. `element` is the index in
 * an outermost array.
 */
export function scanJson(text: string, onNumber: (literal: string, element: number) => void): number {
  const open: ('[' | '{')[] = [];
  let at = 0;
  let element = 0;
  const take = (pattern: RegExp): string | null => {
    pattern.lastIndex = at;
    const match = pattern.exec(text);
    if (match === null) return null;
    at = pattern.lastIndex;
    return match[0];
  };
  /** Takes a key and its colon. */
  const key = (): boolean => {
    if (take(STRING) === null) return false;
    take(SPACE);
    if (text[at] !== ':') return false;
    at += 1;
    take(SPACE);
    return true;
  };
  for (;;) {
    // 1. A value, or the start of one.
    take(SPACE);
    const start = text[at];
    if (start === '[' || start === '{') {
      at += 1;
      take(SPACE);
      if (text[at] !== (start === '[' ? ']' : '}')) {
        open.push(start);
        if (start === '{' && !key()) return at;
        continue;
      }
      at += 1;
    } else if (start === '"') {
      if (take(STRING) === null) return at;
    } else if (take(WORD) === null) {
      const literal = take(NUMBER);
      if (literal === null) return at;
      onNumber(literal, element);
    }
    // 2. What may stand behind a value: the ends of what is open, then a comma or the end of the text.
    for (;;) {
      take(SPACE);
      const innermost = open.at(-1);
      if (innermost === undefined) return at === text.length ? -1 : at;
      const next = text[at];
      if (next === ',') {
        at += 1;
        if (open.length === 1) element += innermost === '[' ? 1 : 0;
        take(SPACE);
        if (innermost === '{' && !key()) return at;
        break;
      }
      if (next !== (innermost === '[' ? ']' : '}')) return at;
      at += 1;
      open.pop();
    }
  }
}
