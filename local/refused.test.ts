import { expect, test } from 'vitest';
import { eventOfLine } from './refused.ts';

test('the event of a line is the line, or what stands beside its reason', () => {
  const check = (line: string, event: unknown) => {
    const read = eventOfLine(line);
    expect('event' in read ? JSON.parse(read.event) : read, line).toEqual(event);
  };
  check('{"id":"a","type":"t"}', { id: 'a', type: 't' });
  check('{"verdict":"rejected","event":{"id":"a","data":{"n":"12"}}}', { id: 'a', data: { n: '12' } });
  check('{"id":"a","data":{"n":-0.000000000123456,"m":123456789012345}}', {
    id: 'a',
    data: { n: -0.000000000123456, m: 123456789012345 },
  });
});

test('a line that would be sent as something else is not sent', () => {
  const mistake = (line: string) => {
    const read = eventOfLine(line);
    return 'mistake' in read ? read.mistake : '';
  };
  expect(mistake('{"id":')).toBe('is not JSON');
  expect(mistake('[{"id":"a"}]')).toBe('is not an object');
  expect(mistake('null')).toBe('is not an object');
  expect(mistake('{"file":"a","line":3,"code":"line_not_json","text":"{"}')).toContain('no event');
  for (const number of [
    '12345678901234567.25',
    '0.1234567890123456',
    '9007199254740993',
    '1234567890.1234567e-3',
  ]) {
    expect(mistake(`{"data":{"n":${number}}}`)).toContain(`the number ${number}`);
    // As a text it is as exact as it was written, also behind a quote.
    expect(mistake(`{"data":{"n\\"":"${number}"}}`)).toBe('');
  }
});
