/** Each of these is a double exactly, as all powers of ten up to 10^22 are. */
const POWERS = [1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9] as const;
const FRACTION_MANTISSA_BOUND = 1e15;

/**
 * The decimal that a double was made of, as mantissa · 10^-scale: msgpack and JavaScript carry 0.1 as a double.
 *
 * Every integer up to 2^53 - 1 is itself a double. For fractions: two decimals of at most 15 significant digits
 * are never the same double (IEEE 754), so if some such decimal is this double, it is the shortest one that is,
 * and what was sent. It is looked for directly: with r the nearest integer to value · 10^s, the quotient r / 10^s
 * is correctly rounded and both its parts are exact, so it equals the value only if r · 10^-s is that decimal. The
 * product is off by less than r · 2^-52, under a quarter, so the right r is never missed. 10 ns for two decimals,
 * against 180 by way of the shortest text of the double.
 */
export class ExactDouble {
  mantissa = 0;
  /** 0 to 9. */
  scale = 0;

  /** False when the double is no decimal that can be kept: more digits or decimals, NaN, infinite. */
  read(value: number): boolean {
    if (Number.isSafeInteger(value)) {
      this.mantissa = value + 0; // -0 is 0
      this.scale = 0;
      return true;
    }
    for (let scale = 1; scale < POWERS.length; scale++) {
      const power = POWERS[scale]!;
      const mantissa = Math.round(value * power);
      if (!(Math.abs(mantissa) < FRACTION_MANTISSA_BOUND)) return false;
      if (mantissa / power === value) {
        this.mantissa = mantissa;
        this.scale = scale;
        return true;
      }
    }
    return false;
  }
}
