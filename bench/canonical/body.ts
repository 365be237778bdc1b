// The bytes of requests. A template is made once; for every request only ids, subjects, times and values are written
// into it. That is what lets one process send a million events a second on the cores that the pipeline needs itself.
import {
  EVENT_TYPE,
  INPUT_DIGITS,
  LAYOUTS,
  MODELS,
  OUTPUT_DIGITS,
  SUBJECT_DIGITS,
  type Workload,
} from './workload.ts';

const ZERO = 0x30;
const TIME = '2026-01-01T00:00:00.000Z';
const ID = '00000000-0000-4000-a000-000000000000';
const MODEL_BYTES = MODELS.map((model) => Buffer.from(model));
const modelLength = MODELS[0].length;

/** Where the parts of an event begin that differ, counted from its first byte. */
interface Places {
  readonly id: number;
  readonly subject: number;
  readonly time: number;
  readonly model: number;
  readonly input: number;
  readonly output: number;
  readonly user: number;
}

function eventText(layout: number): { text: string; places: Places } {
  let text = '{"id":"';
  const places: Record<keyof Places, number> = {
    id: 0,
    subject: 0,
    time: 0,
    model: 0,
    input: 0,
    output: 0,
    user: 0,
  };
  const add = (place: keyof Places, value: string, behind: string): void => {
    places[place] = text.length;
    text += value + behind;
  };
  add('id', ID, `","source":"gateway-eu-1","type":"${EVENT_TYPE}","subject":"cus_`);
  add('subject', '0'.repeat(SUBJECT_DIGITS), '","time":"');
  add('time', TIME, '","data":{"model":"');
  add('model', MODELS[0], '","input_tokens":');
  add('input', '1'.repeat(INPUT_DIGITS[layout]!), ',"output_tokens":');
  add('output', '1'.repeat(OUTPUT_DIGITS[layout]!), ',"user":"u');
  add('user', '00', '"}}');
  return { text, places };
}

const EVENTS = Array.from({ length: LAYOUTS }, (_, layout) => eventText(layout));

/** Where in a template its events begin. */
export interface RequestTemplate {
  readonly bytes: Buffer;
  readonly events: Int32Array;
}

/**
 * A request whose first event has a number with this remainder (modulo LAYOUTS). `head` is what stands before the
 * body, which has this many bytes.
 */
export function requestTemplate(
  eventsPerRequest: number,
  firstLayout: number,
  head: (bodyBytes: number) => string,
): RequestTemplate {
  const events = new Int32Array(eventsPerRequest);
  const parts: string[] = [];
  let at = eventsPerRequest === 1 ? 0 : 1;
  for (let one = 0; one < eventsPerRequest; one++) {
    const { text } = EVENTS[(firstLayout + one) % LAYOUTS]!;
    events[one] = at;
    parts.push(text);
    at += text.length + 1;
  }
  const body = eventsPerRequest === 1 ? parts[0]! : `[${parts.join(',')}]`;
  const before = head(body.length);
  return {
    bytes: Buffer.from(before + body, 'latin1'),
    events: events.map((place) => place + before.length),
  };
}

/** Writes requests of a phase, in the order of their numbers, and remembers the time of each, for its repetitions. */
export class RequestWriter {
  readonly #workload: Workload;
  readonly #eventsPerRequest: number;
  readonly #words = new Int32Array(4);
  readonly #time = Buffer.from(TIME);
  /** Milliseconds since the first request, by request. */
  #times = new Uint32Array(1 << 16);
  #baseMs = 0;
  #textMs = 0;

  constructor(workload: Workload, eventsPerRequest: number) {
    if (eventsPerRequest !== 1 && eventsPerRequest % LAYOUTS !== 0)
      throw new RangeError(`events a request: 1, or a multiple of ${LAYOUTS}`);
    this.#workload = workload;
    this.#eventsPerRequest = eventsPerRequest;
  }

  /** Which template request number `request` needs. */
  layoutOf(request: number): number {
    return (request * this.#eventsPerRequest) % LAYOUTS;
  }

  /** `template` is of the request's layout; its events say that they happened at `nowMs`. */
  write(template: RequestTemplate, request: number, nowMs: number): void {
    const { bytes, events } = template;
    this.#remember(request, nowMs);
    const first = request * this.#eventsPerRequest;
    for (let one = 0; one < events.length; one++) this.#writeEvent(bytes, events[one]!, first + one);
  }

  #writeEvent(bytes: Uint8Array, at: number, n: number): void {
    const workload = this.#workload;
    const original = workload.originalOf(n);
    const { places } = EVENTS[original % LAYOUTS]!;
    workload.look(original);
    this.#writeId(bytes, at + places.id, original);
    writeDigits(bytes, at + places.subject, SUBJECT_DIGITS, workload.subject);
    this.#writeTime(bytes, at + places.time, Math.floor(original / this.#eventsPerRequest));
    const model = MODEL_BYTES[workload.model]!;
    for (let byte = 0; byte < modelLength; byte++) bytes[at + places.model + byte] = model[byte]!;
    const layout = original % LAYOUTS;
    writeDigits(bytes, at + places.input, INPUT_DIGITS[layout]!, workload.input);
    writeDigits(bytes, at + places.output, OUTPUT_DIGITS[layout]!, workload.output);
    writeDigits(bytes, at + places.user, 2, workload.user);
  }

  #writeId(bytes: Uint8Array, at: number, original: number): void {
    const words = this.#words;
    this.#workload.idWords(original, words);
    const [a, b, c, d] = [words[0]!, words[1]!, words[2]!, words[3]!];
    writeHex4(bytes, at, a >>> 16);
    writeHex4(bytes, at + 4, a);
    writeHex4(bytes, at + 9, b >>> 16);
    bytes[at + 15] = hexDigit(this.#workload.phase);
    bytes[at + 16] = hexDigit(b >>> 4);
    bytes[at + 17] = hexDigit(b);
    bytes[at + 20] = hexDigit(c >>> 24);
    bytes[at + 21] = hexDigit(c >>> 20);
    bytes[at + 22] = hexDigit(c >>> 16);
    writeHex4(bytes, at + 24, c);
    writeHex4(bytes, at + 28, d >>> 16);
    writeHex4(bytes, at + 32, d);
  }

  #writeTime(bytes: Uint8Array, at: number, request: number): void {
    const ms = this.#baseMs + this.#times[request]!;
    if (ms !== this.#textMs) {
      this.#time.write(new Date(ms).toISOString(), 'latin1');
      this.#textMs = ms;
    }
    const time = this.#time;
    for (let byte = 0; byte < TIME.length; byte++) bytes[at + byte] = time[byte]!;
  }

  #remember(request: number, nowMs: number): void {
    if (request === 0) this.#baseMs = nowMs;
    if (request >= this.#times.length) {
      const grown = new Uint32Array(this.#times.length * 2);
      grown.set(this.#times);
      this.#times = grown;
    }
    this.#times[request] = nowMs - this.#baseMs;
  }
}

/** Lower-case hexadecimal digit of the lowest four bits, without a table and without a branch. */
function hexDigit(value: number): number {
  const nibble = value & 15;
  return 0x30 + nibble + (((9 - nibble) >> 31) & 39);
}

function writeHex4(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = hexDigit(value >>> 12);
  bytes[at + 1] = hexDigit(value >>> 8);
  bytes[at + 2] = hexDigit(value >>> 4);
  bytes[at + 3] = hexDigit(value);
}

function writeDigits(bytes: Uint8Array, at: number, digits: number, value: number): void {
  let rest = value;
  for (let digit = digits - 1; digit >= 0; digit--) {
    const tens = (rest / 10) | 0;
    bytes[at + digit] = ZERO + (rest - tens * 10);
    rest = tens;
  }
}
