// Exact arithmetic on Stripe's two number shapes: integers in minor units and decimal strings of at most twelve
// places. Everything is computed on bigint; a JSON number appears only at the edge, checked to be exact.

const places = 12;
const one = 10n ** 12n;

/** "1.5" as 1_500_000_000_000n. The text has passed the validator's pattern; anything else is a bug. */
export function parseDecimal(text: string): bigint {
  const match = /^(-?)(\d+)(?:\.(\d{1,12}))?$/.exec(text);
  if (match === null) throw new Error(`not a decimal of at most ${places} places: ${text}`);
  const [, sign, whole = '0', fraction = ''] = match;
  const scaled = BigInt(whole) * one + BigInt(fraction.padEnd(places, '0'));
  return sign === '-' ? -scaled : scaled;
}

/** The shortest decimal text of a scaled value: "0.002", "12". */
export function formatDecimal(scaled: bigint): string {
  const absolute = scaled < 0n ? -scaled : scaled;
  const fraction = (absolute % one).toString().padStart(places, '0').replace(/0+$/, '');
  const text = fraction === '' ? `${absolute / one}` : `${absolute / one}.${fraction}`;
  return scaled < 0n ? `-${text}` : text;
}

/** Unit amount times quantity in minor units, rounded half away from zero as Stripe rounds a line. */
export function multiply(unitAmount: string, quantity: string): number {
  const product = parseDecimal(unitAmount) * parseDecimal(quantity);
  const divisor = one * one;
  const absolute = product < 0n ? -product : product;
  const rounded = (absolute + divisor / 2n) / divisor;
  return minor(product < 0n ? -rounded : rounded);
}

/** The exact sum of amounts in minor units. */
export function sum(amounts: Iterable<number>): number {
  let total = 0n;
  for (const amount of amounts) total += BigInt(amount);
  return minor(total);
}

/** The amount as a JSON number; throws when it would not be exact. */
export function minor(amount: bigint): number {
  if (amount > BigInt(Number.MAX_SAFE_INTEGER) || amount < BigInt(Number.MIN_SAFE_INTEGER)) {
    throw new RangeError(`the amount ${amount} is beyond exact JSON integers`);
  }
  return Number(amount);
}

/** Stripe's minimum charge in minor units; an invoice that is due less is settled through the customer's balance.
 *  https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts */
const minimumCharge: { [currency: string]: number } = {
  usd: 50,
  aed: 200,
  aud: 50,
  brl: 50,
  cad: 50,
  chf: 50,
  czk: 1500,
  dkk: 250,
  eur: 50,
  gbp: 30,
  hkd: 400,
  huf: 17500,
  inr: 50,
  jpy: 50,
  mxn: 1000,
  myr: 200,
  nok: 300,
  nzd: 50,
  pln: 200,
  ron: 200,
  sek: 300,
  sgd: 50,
  thb: 1000,
};

/** Currencies the stand-in accepts are those whose minimum charge it knows. */
export function isCurrency(currency: string): boolean {
  return Object.hasOwn(minimumCharge, currency);
}

export function minimumChargeOf(currency: string): number {
  return minimumCharge[currency] ?? 1;
}

const withoutMinorUnits = new Set(['jpy']);

/** For people: 123456 usd as "1234.56 USD". */
export function formatMoney(amount: number, currency: string): string {
  const code = currency.toUpperCase();
  if (withoutMinorUnits.has(currency)) return `${amount} ${code}`;
  const digits = String(Math.abs(amount)).padStart(3, '0');
  return `${amount < 0 ? '-' : ''}${digits.slice(0, -2)}.${digits.slice(-2)} ${code}`;
}
