import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseAckSubject } from './pull.ts';

const token = fc.stringMatching(/^[A-Za-z0-9_-]{1,12}$/);
const whole = fc.maxSafeNat();
const told = { sequence: whole, consumerSequence: whole, timeMs: fc.nat({ max: 2 ** 42 }), pending: whole };

describe('what the reply subject of a message says', () => {
  test('is read from the short form and from the one with domain and account', () => {
    fc.assert(
      fc.property(
        fc.record(told),
        token,
        token,
        fc.nat(999_999),
        fc.boolean(),
        (at, stream, consumer, nanos, isLong) => {
          const { sequence, consumerSequence, timeMs, pending } = at;
          const time = timeMs === 0 ? String(nanos) : `${timeMs}${String(nanos).padStart(6, '0')}`;
          const front = isLong ? `$JS.ACK.hub.ACCOUNT.${stream}` : `$JS.ACK.${stream}`;
          const subject = `${front}.${consumer}.1.${sequence}.${consumerSequence}.${time}.${pending}`;
          expect(parseAckSubject(isLong ? `${subject}.random` : subject)).toEqual(at);
        },
      ),
    );
  });

  test('is nothing where there is something else', () => {
    for (const subject of [
      '',
      '_INBOX.abc.1',
      '$JS.ACK.s.c.1.2.3.4',
      '$JS.ACK.s.c.1.2.3.4000000.x',
      '$JS.ACK.s.c.1.-2.3.4000000.5',
      '$JS.ACK.s.c.1.9007199254740993.3.4000000.5',
      '$JS.API.s.c.1.2.3.4000000.5',
    ])
      expect(parseAckSubject(subject)).toBeNull();
  });
});
