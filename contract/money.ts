import { scaleDecimal, unscaleDecimal, type Quantity } from './quantity.ts';

/** An amount of money is a bigint of minor units (cents, yen, fils) and means nothing without its currency. */
export type Amount = bigint;

/** Minor-unit digits by ISO 4217 code. Stripe charges in the same units but for those it documents apart. */
const CURRENCY_DIGITS = {
  AUD: 2,
  BRL: 2,
  CAD: 2,
  CHF: 2,
  CNY: 2,
  CZK: 2,
  DKK: 2,
  EUR: 2,
  GBP: 2,
  HKD: 2,
  INR: 2,
  JPY: 0,
  KRW: 0,
  KWD: 3,
  MXN: 2,
  NOK: 2,
  NZD: 2,
  PLN: 2,
  SEK: 2,
  SGD: 2,
  USD: 2,
  ZAR: 2,
} as const;

export type Currency = keyof typeof CURRENCY_DIGITS;
export const CURRENCIES = Object.keys(CURRENCY_DIGITS) as Currency[];

export function isCurrency(text: string): text is Currency {
  return Object.hasOwn(CURRENCY_DIGITS, text);
}

export function minorDigits(currency: Currency): number {
  return CURRENCY_DIGITS[currency];
}

/** "12.34" USD to 1234n. Null when it is no plain decimal or finer than the minor unit: amounts are never rounded on entry. */
export function parseAmount(text: string, currency: Currency): Amount | null {
  const value = scaleDecimal(text, CURRENCY_DIGITS[currency]);
  return typeof value === 'string' ? null : value;
}

/** 1234n USD to "12.34": always with all minor digits, since that is how people read money. */
export function formatAmount(amount: Amount, currency: Currency): string {
  const digits = CURRENCY_DIGITS[currency];
  const text = unscaleDecimal(amount, digits);
  if (digits === 0) return text;
  const dot = text.indexOf('.');
  return dot < 0 ? `${text}.${'0'.repeat(digits)}` : text + '0'.repeat(digits - (text.length - dot - 1));
}

/** A price of one unit: a bigint of 10^-12 major units, since tokens are priced far below a cent. */
export type UnitPrice = bigint;
export const UNIT_PRICE_SCALE = 12;

export function parseUnitPrice(text: string): UnitPrice | null {
  const value = scaleDecimal(text, UNIT_PRICE_SCALE);
  return typeof value === 'string' ? null : value;
}

export function formatUnitPrice(price: UnitPrice): string {
  return unscaleDecimal(price, UNIT_PRICE_SCALE);
}

/**
 * An exact charge before its one rounding: a bigint of 10^-21 major units (10^-9 quantity × 10^-12 price).
 */
export type ExactCharge = bigint;
const EXACT_SCALE = 21;

export function chargeOf(quantity: Quantity, price: UnitPrice): ExactCharge {
  return quantity * price;
}

/** A whole amount as an exact charge, for flat fees inside a tier. */
export function exactAmount(amount: Amount, currency: Currency): ExactCharge {
  return amount * 10n ** BigInt(EXACT_SCALE - CURRENCY_DIGITS[currency]);
}

/** The one rounding of an invoice line: to the minor unit, half away from zero. */
export function roundCharge(charge: ExactCharge, currency: Currency): Amount {
  return divideHalfAwayFromZero(charge, 10n ** BigInt(EXACT_SCALE - CURRENCY_DIGITS[currency]));
}

export function divideHalfAwayFromZero(numerator: bigint, denominator: bigint): bigint {
  const magnitude = ((numerator < 0n ? -numerator : numerator) * 2n + denominator) / (denominator * 2n);
  return numerator < 0n ? -magnitude : magnitude;
}

/**
 * Splits an amount by weights into parts that sum to it exactly (largest remainder; ties go to the
 * earlier part). The weights are not negative and not all zero.
 */
export function allocate(total: Amount, weights: readonly bigint[]): Amount[] {
  const sum = weights.reduce((a, b) => a + b, 0n);
  if (sum <= 0n || weights.some((weight) => weight < 0n))
    throw new Error('allocate needs weights that are not all zero');
  const sign = total < 0n ? -1n : 1n;
  const magnitude = total * sign;
  const parts = weights.map((weight) => (magnitude * weight) / sum);
  let rest = magnitude - parts.reduce((a, b) => a + b, 0n);
  const byRemainder = weights
    .map((weight, at) => ({ at, remainder: (magnitude * weight) % sum }))
    .sort((a, b) => (a.remainder === b.remainder ? a.at - b.at : a.remainder > b.remainder ? -1 : 1));
  for (const { at } of byRemainder) {
    if (rest === 0n) break;
    parts[at] = parts[at]! + 1n;
    rest -= 1n;
  }
  return parts.map((part) => part * sign);
}
