/**
 * The end of what two logs have in common at their beginning: the greatest sequence whose message is the same.
 *
 * A log is only ever appended to, so all messages before one that is the same are the same. The search begins at
 * the end, because what a broker loses is its end, and goes back in steps that double; then it halves. `same` may
 * say no for what it does not know: the answer is then a smaller one, never a wrong one.
 *
 * @param first the first sequence that is there
 * @param last the last one that could be the same
 * @returns `first - 1` when none is
 */
export async function survivingPrefix(
  first: number,
  last: number,
  same: (sequence: number) => Promise<boolean>,
): Promise<number> {
  let different = last + 1;
  let step = 1;
  while (different > first) {
    const probe = Math.max(first, different - step);
    if (await same(probe)) return between(probe, different, same);
    different = probe;
    step *= 2;
  }
  return first - 1;
}

/** The last that is the same, from one that is to one that is not. */
async function between(
  known: number,
  different: number,
  same: (sequence: number) => Promise<boolean>,
): Promise<number> {
  let [low, high] = [known, different];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (await same(middle)) low = middle;
    else high = middle;
  }
  return low;
}
