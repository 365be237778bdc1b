// What differs between what was worked out and what the pipeline has, as sentences; none when all of it is exact.
import { METERS, type MeterKey, type Tally } from './tally.ts';
import { MODELS, subjectName, subjectNumber } from './workload.ts';

/** A subject, or a subject and a model, and the value that a meter has for it, as decimal text. */
export interface FoundValue {
  readonly subject: string;
  /** '' where the meter has no groups. */
  readonly model: string;
  readonly value: string;
}

export interface FoundTotals {
  readonly received: bigint;
  /** By verdict, those with none left out. */
  readonly verdicts: ReadonlyMap<string, bigint>;
  readonly meters: Readonly<Record<MeterKey, readonly FoundValue[]>>;
  /** By customer and price (customers.ts): quantity and cents. */
  readonly postings: ReadonlyMap<string, { readonly quantity: string; readonly cents: string }>;
}

export interface ExpectedTotals {
  readonly tally: Tally;
  /** Events beside the workload, by which the lag was measured: each is counted. */
  readonly probes: number;
  readonly postings: ReadonlyMap<string, string>;
}

const NAMED_MAX = 5;

export function differencesOf(expected: ExpectedTotals, found: FoundTotals): string[] {
  return [
    ...ofCounts(expected, found),
    ...METERS.flatMap(({ key }) => ofMeter(expected.tally, key, found.meters[key])),
    ...ofPostings(expected.postings, found.postings),
  ];
}

function ofCounts({ tally, probes }: ExpectedTotals, { received, verdicts }: FoundTotals): string[] {
  const wanted = new Map<string, bigint>();
  wanted.set('counted', BigInt(tally.counted + probes));
  if (tally.duplicates > 0) wanted.set('duplicate', BigInt(tally.duplicates));
  const told = compareText('received', String(received), String(tally.received + probes));
  for (const verdict of new Set([...wanted.keys(), ...verdicts.keys()]))
    told.push(
      ...compareText(verdict, String(verdicts.get(verdict) ?? 0n), String(wanted.get(verdict) ?? 0n)),
    );
  const all = [...verdicts.values()].reduce((sum, count) => sum + count, 0n);
  if (all !== received) told.push(`conservation: ${received} received, ${all} with a verdict`);
  return told;
}

function compareText(what: string, found: string, wanted: string): string[] {
  return found === wanted ? [] : [`${what} is ${found} and not ${wanted}`];
}

function ofMeter(tally: Tally, meter: MeterKey, rows: readonly FoundValue[]): string[] {
  const isGrouped = meter === 'input_tokens' || meter === 'output_tokens';
  const groups = isGrouped ? MODELS.length : 1;
  const wanted = (at: number): number => {
    if (meter === 'input_tokens') return tally.inputTokens[at]!;
    if (meter === 'output_tokens') return tally.outputTokens[at]!;
    return tally.valueOf(meter, at);
  };
  const named: string[] = [];
  let wrong = 0;
  const note = (text: string): void => {
    wrong += 1;
    if (named.length < NAMED_MAX) named.push(text);
  };
  const seen = new Uint8Array(tally.subjects * groups);
  let total = 0n;
  for (const { subject, model, value } of rows) {
    total += BigInt(value);
    const name = model === '' ? subject : `${subject} ${model}`;
    const number = subjectNumber(subject);
    const group = isGrouped ? (MODELS as readonly string[]).indexOf(model) : model === '' ? 0 : -1;
    if (number < 0 || number >= tally.subjects || group < 0) {
      note(`${name} is unknown`);
      continue;
    }
    const at = number * groups + group;
    seen[at] = 1;
    if (value !== String(wanted(at))) note(`${name} is ${value} and not ${wanted(at)}`);
  }
  let wantedTotal = 0n;
  for (let at = 0; at < seen.length; at++) {
    const value = wanted(at);
    wantedTotal += BigInt(value);
    if (seen[at] === 0 && value > 0) {
      const model = isGrouped ? ` ${MODELS[at % groups]}` : '';
      note(`${subjectName(Math.floor(at / groups))}${model} is missing and not ${value}`);
    }
  }
  const sums = compareText(`${meter}, all subjects`, String(total), String(wantedTotal));
  return wrong === 0 ? sums : [...sums, `${meter}, ${wrong} subjects or groups: ${named.join('; ')}`];
}

function ofPostings(wanted: ReadonlyMap<string, string>, found: FoundTotals['postings']): string[] {
  const told: string[] = [];
  for (const key of new Set([...wanted.keys(), ...found.keys()])) {
    const { quantity = '0', cents = '0' } = found.get(key) ?? {};
    const right = wanted.get(key) ?? '0';
    if (quantity !== right || cents !== right)
      told.push(`${key} is posted as ${quantity} for ${cents} cents and not ${right}`);
  }
  if (told.length === 0) return [];
  return [`postings, ${told.length} of ${wanted.size}: ${told.slice(0, NAMED_MAX).join('; ')}`];
}
