const stepMs = 10;

/**
 * Waits until a condition holds, instead of sleeping for as long as it usually takes. The deadline tells a hang from
 * slowness; where the time itself is the guarantee, the test says how long.
 */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  withinMs = 20_000,
): Promise<void> {
  const deadline = performance.now() + withinMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not within ${withinMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, stepMs));
  }
}
