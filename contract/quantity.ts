/**
 * A quantity is an exact decimal held as a bigint of 10^-9 units ("nanounits"): 1.5 tokens is
 * 1_500_000_000n. One value is bounded by 10^18 units, so that ten billion of the largest values
 * still fit the Decimal(38, 9) columns that sum them (10^18 · 10^9 · 10^10 < 10^38); ClickHouse
 * would wrap an overflow in silence. More than nine decimals is a refusal, never a rounding.
 */
export type Quantity = bigint;

export const QUANTITY_SCALE = 9;
export const QUANTITY_UNIT = 10n ** 9n;
/** Exclusive bound on the magnitude of one event's value, in units. */
export const QUANTITY_UNITS_MAX = 10n ** 18n;
const QUANTITY_BOUND = QUANTITY_UNITS_MAX * QUANTITY_UNIT;

const DECIMAL = /^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?$/;

export type QuantityFault = 'not_a_decimal' | 'too_many_decimals' | 'too_large';
export type QuantityResult = { ok: true; value: Quantity } | { ok: false; fault: QuantityFault };

/** Scales decimal text to a bigint of 10^-scale; null when it is no plain decimal or has more decimals. */
export function scaleDecimal(text: string, scale: number): bigint | 'not_a_decimal' | 'too_many_decimals' {
  if (text.length > 64 || !DECIMAL.test(text)) return 'not_a_decimal';
  const dot = text.indexOf('.');
  if (dot < 0) return BigInt(text) * 10n ** BigInt(scale);
  const fraction = text.slice(dot + 1).replace(/0+$/, '');
  if (fraction.length > scale) return 'too_many_decimals';
  return BigInt(text.slice(0, dot) + fraction) * 10n ** BigInt(scale - fraction.length);
}

/** The inverse of {@link scaleDecimal}: shortest plain decimal text, no exponent, no trailing zeros. */
export function unscaleDecimal(value: bigint, scale: number): string {
  const negative = value < 0n;
  const digits = (negative ? -value : value).toString().padStart(scale + 1, '0');
  const whole = digits.slice(0, digits.length - scale);
  const fraction = scale === 0 ? '' : digits.slice(digits.length - scale).replace(/0+$/, '');
  return (negative ? '-' : '') + whole + (fraction === '' ? '' : '.' + fraction);
}

/** Reads decimal text such as "12", "-0.5": no exponent, no plus sign, no white space. */
export function parseQuantity(text: string): QuantityResult {
  const value = scaleDecimal(text, QUANTITY_SCALE);
  if (typeof value === 'string') return { ok: false, fault: value };
  if (value >= QUANTITY_BOUND || value <= -QUANTITY_BOUND) return { ok: false, fault: 'too_large' };
  return { ok: true, value };
}

export function formatQuantity(value: Quantity): string {
  return unscaleDecimal(value, QUANTITY_SCALE);
}

/** Reads a decimal that a store of ours wrote (a sum may exceed the bound of one value). A malformed one is a bug. */
export function storedQuantity(text: string): Quantity {
  const value = scaleDecimal(text, QUANTITY_SCALE);
  if (typeof value === 'string') throw new Error(`stored quantity ${JSON.stringify(text)}: ${value}`);
  return value;
}

const POWERS = Array.from(
  { length: QUANTITY_SCALE + 1 },
  (_, scale) => 10n ** BigInt(QUANTITY_SCALE - scale),
);

/** mantissa · 10^-scale as a quantity. The mantissa is a safe integer, the scale 0 to 9. */
export function quantityOf(mantissa: number, scale: number): Quantity {
  return BigInt(mantissa) * POWERS[scale]!;
}
