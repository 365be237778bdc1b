/**
 * Keys of a key-value bucket are subject tokens to NATS: letters, digits and a few marks. Ours may be any
 * text (a tenant's own customer ids). Letters, digits, `-` and `_` stand for themselves; every other byte of
 * the UTF-8 form becomes `=XX`. It is reversible, gives different tokens to different keys, keeps usual ids
 * readable in `nats kv ls`, and leaves no dot or wildcard.
 */
const PLAIN = /^[A-Za-z0-9_-]$/;
const utf8 = new TextEncoder();
const fromUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Throws a RangeError for an empty key and for lone surrogates, which have no UTF-8 form. */
export function encodeKey(key: string): string {
  if (key === '') throw new RangeError('a key is not empty');
  if (/\p{Surrogate}/u.test(key)) throw new RangeError('a key is well-formed text');
  let token = '';
  for (const byte of utf8.encode(key)) {
    const character = String.fromCharCode(byte);
    token += PLAIN.test(character) ? character : `=${byte.toString(16).toUpperCase().padStart(2, '0')}`;
  }
  return token;
}

/** The key of a token that encodeKey made; throws for any other. */
export function decodeKey(token: string): string {
  const bytes: number[] = [];
  for (let i = 0; i < token.length; i++) {
    const character = token[i] as string;
    if (character !== '=') {
      bytes.push(character.charCodeAt(0));
      continue;
    }
    const hex = token.slice(i + 1, i + 3);
    if (!/^[0-9A-F]{2}$/.test(hex)) throw new RangeError(`not an encoded key: ${token}`);
    bytes.push(Number.parseInt(hex, 16));
    i += 2;
  }
  return fromUtf8.decode(Uint8Array.from(bytes));
}
