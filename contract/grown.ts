/** `from` copied into the larger array `to`, which is returned. */
export function grown<T extends Uint8Array | Uint16Array | Int32Array | Uint32Array | Float64Array>(
  from: T,
  to: T,
): T {
  to.set(from as never);
  return to;
}
