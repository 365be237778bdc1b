import { createHmac } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { paidInvoiceOf, verifyWebhook } from './stripe.ts';

const secret = 'whsec_unit';
const nowMs = Date.UTC(2026, 10, 21, 12);
const now = nowMs / 1_000;
const body = JSON.stringify({ id: 'evt_1', object: 'event', type: 'invoice.paid', created: now, data: {} });

function sign(payload: string, seconds: number, key = secret): string {
  const v1 = createHmac('sha256', key).update(`${seconds}.${payload}`).digest('hex');
  return `t=${seconds},v1=${v1}`;
}

function outcome(signature: string | undefined, payload = body): string {
  const bytes = Buffer.from(payload);
  const result = verifyWebhook({ body: bytes, signature, secret, nowMs, toleranceSeconds: 300 });
  return result.outcome === 'verified' ? result.event.id : result.code;
}

describe('verifyWebhook', () => {
  test.each<[string, string | undefined, string]>([
    ['signed now', sign(body, now), 'evt_1'],
    ['signed as long ago as is allowed', sign(body, now - 300), 'evt_1'],
    ['signed too long ago', sign(body, now - 301), 'timestamp_outside'],
    ['signed as far ahead as is allowed', sign(body, now + 300), 'evt_1'],
    ['signed ahead of time, which the SDK would take', sign(body, now + 301), 'timestamp_outside'],
    ['signed with another secret', sign(body, now, 'whsec_other'), 'signature_wrong'],
    ['a signature of another body', sign(`${body} `, now), 'signature_wrong'],
    ['two timestamps', `t=${now - 9_999},${sign(body, now)}`, 'signature_wrong'],
    ['no timestamp', sign(body, now).replace(/^t=[0-9]+,/, ''), 'signature_wrong'],
    ['a timestamp that is no number', sign(body, now).replace(`t=${now}`, 't=1e9'), 'signature_wrong'],
    ['nothing', undefined, 'signature_missing'],
    ['an older secret beside the present one', `${sign(body, now)},v1=${'0'.repeat(64)}`, 'evt_1'],
  ])('%s: %s', (_, signature, expected) => {
    expect(outcome(signature)).toBe(expected);
  });

  test('what is signed but no event is refused', () => {
    for (const payload of [
      'not json',
      'null',
      '[]',
      '{}',
      '{"object":"event","id":7,"type":"x","created":1}',
    ]) {
      expect(outcome(sign(payload, now), payload)).toBe('not_an_event');
    }
  });
});

test('the amount of a paid invoice is exact, or it is no paid invoice', () => {
  const event = (amount: string) =>
    `{"data":{"object":{"object":"invoice","id":"in_1","currency":"usd","amount_paid":${amount},
      "status_transitions":{"paid_at":1700000000},"metadata":{"tallyline_invoice":"i"}}}}`;
  expect(paidInvoiceOf(event('9007199254740991'))).toEqual({
    id: 'in_1',
    currency: 'usd',
    amountPaid: 9_007_199_254_740_991n,
    paidAtMs: 1_700_000_000_000,
    metadata: { tallyline_invoice: 'i' },
  });
  for (const amount of ['9007199254740993', '1.5', '"12"', 'null']) {
    expect(paidInvoiceOf(event(amount))).toBeNull();
  }
  expect(paidInvoiceOf('null')).toBeNull();
});
