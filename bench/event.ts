// The event that the figures are about: 228 bytes of JSON, as a gateway for language models would send it.
// Ids are fresh for each event; a thousand subjects unless said; everything else is what real traffic repeats.
import { createHash } from 'node:crypto';
import type { MeterDefined } from '../contract/control.ts';

export const TENANT = 'bench';

/** The meters of the event: the edge checks their values. */
export const METERS: readonly MeterDefined[] = ['input_tokens', 'output_tokens'].map((key) => ({
  tenant: TENANT,
  meter: { key, eventType: 'llm.request', aggregation: 'sum', valueProperty: key, groupBy: ['model'] },
}));

export const SUBJECTS = 1_000;

/** A UUID that depends on the number alone: a run can be repeated. */
function uuidOf(number: number): string {
  const hex = createHash('md5').update(String(number)).digest('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20)}`;
}

/** `time` lies within the window that edges accept. */
export function eventJson(number: number, time: string, subjects = SUBJECTS): string {
  const subject = String((number * 7_919) % subjects).padStart(6, '0');
  return (
    `{"id":"${uuidOf(number)}","source":"gateway-eu-1","type":"llm.request","subject":"cus_${subject}",` +
    `"time":"${time}","data":{"model":"small-${number % 3}","input_tokens":${100 + (number % 900)},` +
    `"output_tokens":${100 + (number % 800)},"region":"eu-west-1"}}`
  );
}

/** A JSON array of `events` events, the first of which is `first`. */
export function bodyOf(first: number, events: number, time: string, subjects = SUBJECTS): Buffer {
  const all = Array.from({ length: events }, (_, at) => eventJson(first + at, time, subjects));
  return Buffer.from(events === 1 ? all[0]! : `[${all.join(',')}]`);
}
