import { expect, test } from 'vitest';
import { CsvError, instantOfCell, jsonOfCell, readCsv } from './csv.ts';

async function rowsOf(bytes: Uint8Array, pieceBytes = bytes.length): Promise<(readonly string[])[]> {
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; at += pieceBytes) pieces.push(bytes.subarray(at, at + pieceBytes));
  const rows: (readonly string[])[] = [];
  for await (const row of readCsv(pieces)) rows.push(row);
  return rows;
}

test('rows are the same wherever the file is torn', async () => {
  const text = '\uFEFFa,b\r\n"x, ""y""",ü\n\n 1 ,"line\nbreak"\n1,2,3';
  for (const pieceBytes of [1, 2, 5, 1_000]) {
    expect(await rowsOf(Buffer.from(text), pieceBytes)).toEqual([
      ['a', 'b'],
      ['x, "y"', 'ü'],
      ['1', 'line\nbreak'],
      ['1', '2', '3'],
    ]);
  }
});

test('bytes that are no text, and quotes that do not fit, are told and not repaired', async () => {
  await expect(rowsOf(Buffer.from([97, 44, 0xff, 10]))).rejects.toThrow(CsvError);
  await expect(rowsOf(Buffer.from([97, 44, 0xc3]))).rejects.toThrow('not UTF-8');
  await expect(rowsOf(Buffer.from('a,b\n"x,1\n'))).rejects.toThrow(CsvError);
});

test('a cell is a number only where that is the same text', () => {
  const check = (cell: string, json: string) => expect(jsonOfCell(cell), cell).toBe(json);
  for (const cell of ['0', '12', '-12', '123456789012345']) check(cell, cell);
  for (const cell of ['-0', '007', '1.50', '1e5', '1234567890123456', '+1', '', 'a"b', '0x10'])
    check(cell, JSON.stringify(cell));
});

test('a time without a zone is UTC', () => {
  expect(instantOfCell('2023-11-16 18:17:03.9799600')).toEqual({
    text: '2023-11-16T18:17:03.9799600Z',
    ms: Date.UTC(2023, 10, 16, 18, 17, 3, 979),
  });
  expect(instantOfCell('2023-11-16T18:17:03+01:00')?.ms).toBe(Date.UTC(2023, 10, 16, 17, 17, 3));
  expect(instantOfCell('yesterday')).toBeNull();
});
