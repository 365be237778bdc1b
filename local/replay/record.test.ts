import fc from 'fast-check';
import { expect, test } from 'vitest';
import { ElementCutter } from './elements.ts';
import { idFromLine, withId } from './event-id.ts';
import { LineCutter } from './lines.ts';
import { FileFault, isEvent, RECORD_BYTES_MAX, type Cutter, type FileRecord } from './record.ts';
import { rowReader } from './rows.ts';

/** Cuts a text that comes in pieces of so many bytes. */
function cut(cutter: Cutter, text: string, pieceBytes = 7): FileRecord[] {
  const bytes = Buffer.from(text);
  const records: FileRecord[] = [];
  for (let at = 0; at < bytes.length; at += pieceBytes)
    records.push(...cutter.push(bytes.subarray(at, at + pieceBytes)));
  records.push(...cutter.end());
  return records;
}

const shown = (records: readonly FileRecord[]): string[] =>
  records.map((one) => `${one.place} ${isEvent(one) ? one.event.toString() : one.code}`);

test('a line is an event, byte by byte; blank lines count as places, and the last needs no end', () => {
  const text = '{"n":12345678901234567890.10}\r\n\n  \n\t{"id":"ü\\u0041"} \nno json';
  for (const pieceBytes of [1, 3, 1_000]) {
    expect(shown(cut(new LineCutter(), text, pieceBytes))).toEqual([
      '1 {"n":12345678901234567890.10}',
      '4 {"id":"ü\\u0041"}',
      '5 no json',
    ]);
  }
  expect(cut(new LineCutter(), '')).toEqual([]);
});

test('a record that is too large is named and not kept, and its neighbours are whole', () => {
  const huge = `"${'x'.repeat(RECORD_BYTES_MAX)}"`;
  expect(shown(cut(new LineCutter(), `1\n${huge}\n2`, 100_000))).toEqual(['1 1', '2 event_too_large', '3 2']);
  expect(shown(cut(new ElementCutter(), `[1,${huge},2]`, 100_000))).toEqual([
    '1 1',
    '2 event_too_large',
    '3 2',
  ]);
});

test('any array gives its elements, however it is written and wherever it is torn', () => {
  const arrays = fc.property(
    fc.array(fc.jsonValue({ maxDepth: 4 }), { maxLength: 8 }),
    fc.integer({ min: 1, max: 40 }),
    fc.constantFrom(0, 1, 4),
    (values, pieceBytes, indent) => {
      const text = JSON.stringify(values, null, indent);
      const records = cut(new ElementCutter(), text, pieceBytes);
      expect(records.map((one) => one.place)).toEqual(values.map((_, at) => at + 1));
      const found = records.map((one) => (isEvent(one) ? one.event.toString() : one.code));
      expect(found.every((line) => !/[\r\n]/.test(line))).toBe(true);
      expect(found.map((line) => JSON.parse(line) as unknown)).toEqual(JSON.parse(JSON.stringify(values)));
    },
  );
  fc.assert(arrays, { numRuns: 300, seed: 20_260_101 });
});

test('the digits of an element stay as they are', () => {
  const text = ' \n[ {"n": 123456789012345678901234567890.50 ,\n"m":1E5} ]\n';
  expect(shown(cut(new ElementCutter(), text))).toEqual([
    '1 {"n": 123456789012345678901234567890.50 , "m":1E5}',
  ]);
});

test('an element that is no JSON is named, or left to the edge, and the next ones are sent', () => {
  expect(shown(cut(new ElementCutter(), '[{"a":1},,{"a":tru},{"b":"x\ny"},]'))).toEqual([
    '1 {"a":1}',
    '2 element_not_json',
    '3 {"a":tru}',
    '4 element_not_json',
    '5 element_not_json',
  ]);
});

test('an array without its end is a fault of the file', () => {
  expect(() => cut(new ElementCutter(), '[{"a":1},{"b":')).toThrow(FileFault);
  expect(() => cut(new ElementCutter(), '[{"a":1},{"b":')).toThrow('cut off at element 2');
  expect(() => cut(new ElementCutter(), '[1] x')).toThrow('byte 5 stands behind the array');
  expect(() => cut(new ElementCutter(), 'x[1]')).toThrow('byte 1 stands before the array');
});

test('a line without an id gets one that only the same line in the same place of the same file has', () => {
  const withIds = (name: string, place: number, line: string) =>
    withId(name, place, Buffer.from(line)).toString();
  const line = '{"type":"t","data":{"n":1.10,"id":"inner"}}';
  const id = idFromLine('a.ndjson', 3, Buffer.from(line));
  expect(id).toMatch(/^line-3-[0-9a-f]{32}$/);
  expect(withIds('a.ndjson', 3, line)).toBe(`{"id":"${id}","type":"t","data":{"n":1.10,"id":"inner"}}`);
  const others = [
    withIds('b.ndjson', 3, line),
    withIds('a.ndjson', 4, line),
    withIds('a.ndjson', 3, `${line} `),
  ];
  for (const other of others) expect(other).not.toContain(id);
  expect(withIds('a', 1, '{ }')).toMatch(/^\{"id":"line-1-[0-9a-f]{32}" \}$/);
  // What has an id, whatever it is, and what is no object stay as they are.
  for (const kept of ['{"id":"x"}', '{"\\u0069d":7}', '{"id":null}', '[1]', 'x', '{"a":'])
    expect(withIds('a', 1, kept)).toBe(kept);
});

test('a row is an event: some columns are its fields, all others its data, digit by digit', () => {
  const mapping = {
    type: 'llm',
    source: 'export',
    subjectColumn: 'customer',
    timeColumn: 'at',
    idColumn: 'row id',
  };
  const read = rowReader(mapping, ['row id', 'at', 'customer', 'tokens', 'price', 'zip "code"']);
  const event = (row: string[]) => {
    const record = read(9, row);
    return isEvent(record) ? record.event.toString() : record.code;
  };
  expect(event(['r-1', '2026-01-02 03:04:05.1234', 'acme', '12', '0.10', '007'])).toBe(
    '{"type":"llm","source":"export","id":"r-1","subject":"acme","time":"2026-01-02T03:04:05.1234Z","data":{"tokens":12,"price":"0.10","zip \\"code\\"":"007"}}',
  );
  // Empty cells are left out, so that the edge names what is missing; a time that is none is refused as that.
  expect(event(['', 'yesterday', '', '9007199254740993', '', '-0'])).toBe(
    '{"type":"llm","source":"export","time":"yesterday","data":{"tokens":"9007199254740993","zip \\"code\\"":"-0"}}',
  );
  expect(event(['r-1', 'x'])).toBe('row_not_like_header');
  expect(() => rowReader(mapping, ['row id', 'at', 'tokens'])).toThrow('no column "customer"');
  expect(() => rowReader(mapping, ['row id', 'at', 'customer', 'at'])).toThrow('"at" twice');
});
