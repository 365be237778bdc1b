// Reads a usage trace: a CSV file with a header, one column of timestamps and at least one of numbers. Each
// numeric column becomes a meter. A trace has no customers: row n belongs to customer n mod 5, a rule without
// chance, so that every run gives every row the same identity and the same owner.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { parseQuantity, type Quantity } from '../../contract/quantity.ts';
import { CsvError, instantOfCell, readCsv } from '../csv.ts';

export const CUSTOMERS = 5;
const rowsMax = 5_000_000;

/** Names that published traces use for what our demo plan prices. */
const knownColumns: Readonly<Record<string, string>> = {
  ContextTokens: 'input_tokens',
  GeneratedTokens: 'output_tokens',
};

export interface TraceRow {
  readonly id: string;
  /** RFC 3339, UTC, with the digits of the file. */
  readonly time: string;
  readonly timeMs: number;
  readonly subject: string;
  /** Decimal text as it stands in the file, by property. */
  readonly values: Readonly<Record<string, string>>;
}

export interface Trace {
  readonly name: string;
  readonly source: string;
  readonly properties: readonly string[];
  readonly subjects: readonly string[];
  readonly rows: readonly TraceRow[];
}

/** A trace that cannot be used; the message names the line and the reason. */
export class TraceError extends Error {
  override readonly name = 'TraceError';
}

/** Nothing is skipped: one bad line refuses the file, with its number. */
export async function readTrace(path: string): Promise<Trace> {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    throw new TraceError(`${path} cannot be read: ${(error as Error).message}`, { cause: error });
  }
  const fileName = basename(path);
  const digest = createHash('sha256').update(bytes).digest('hex').slice(0, 12);
  return traceOf(fileName, await tableOf(fileName, bytes), digest);
}

function traceOf(fileName: string, table: readonly (readonly string[])[], digest: string): Trace {
  const [header, ...lines] = table;
  if (header === undefined || lines.length === 0) throw new TraceError(`${fileName}: it has no rows`);
  const first = lines[0]!;
  const timeColumn = first.findIndex((cell) => instantOfCell(cell) !== null);
  if (timeColumn < 0) {
    throw new TraceError(`${fileName}: no column of line 2 holds a time such as 2026-01-31T08:00:00Z`);
  }
  const numeric = first.flatMap((cell, at) => (at !== timeColumn && parseQuantity(cell).ok ? [at] : []));
  if (numeric.length === 0) throw new TraceError(`${fileName}: no column of line 2 holds a number`);
  const properties = numeric.map((at) => propertyOf(header[at]!));
  const name = slug(fileName);
  const subjects = Array.from({ length: CUSTOMERS }, (_, at) => `${name}-${at + 1}`);
  const rows = lines.map((cells, at): TraceRow => {
    const line = at + 2;
    const instant = instantOfCell(cells[timeColumn]!);
    if (instant === null) {
      throw new TraceError(`${fileName}, line ${line}: ${JSON.stringify(cells[timeColumn])} is no time`);
    }
    const values: Record<string, string> = {};
    numeric.forEach((column, index) => {
      const value = parseQuantity(cells[column]!);
      if (!value.ok) {
        throw new TraceError(
          `${fileName}, line ${line}, column ${header[column]}: ${JSON.stringify(cells[column])} is ${value.fault.replaceAll('_', ' ')}`,
        );
      }
      values[properties[index]!] = cells[column]!;
    });
    const subject = subjects[at % CUSTOMERS]!;
    return { id: `row-${at + 1}`, time: instant.text, timeMs: instant.ms, subject, values };
  });
  return { name, source: `trace:${name}:${digest}`, properties, subjects, rows };
}

async function tableOf(fileName: string, bytes: Uint8Array): Promise<(readonly string[])[]> {
  const table: (readonly string[])[] = [];
  try {
    for await (const row of readCsv([bytes])) {
      if (row.length !== (table[0] ?? row).length) {
        const widths = `${row.length} cells and the header ${table[0]!.length}`;
        throw new TraceError(`${fileName}: row ${table.length} has ${widths}`);
      }
      table.push(row);
      if (table.length > rowsMax + 1) throw new TraceError(`${fileName}: more than ${rowsMax} rows`);
    }
  } catch (error) {
    if (error instanceof CsvError) throw new TraceError(`${fileName}: ${error.message}`, { cause: error });
    throw error;
  }
  return table;
}

function propertyOf(column: string): string {
  const snake = column
    .replace(/([a-z0-9])([A-Z])/g, '$1_$2')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '_')
    .replace(/^_+|_+$/g, '');
  const known = knownColumns[column] ?? snake;
  return /^[a-z]/.test(known) ? known : `column_${known}`;
}

function slug(fileName: string): string {
  const plain = fileName
    .toLowerCase()
    .replace(/\.csv$/, '')
    .replace(/[^a-z0-9]+/g, '-');
  return plain.replace(/^-+|-+$/g, '').slice(0, 40) || 'trace';
}

/** The independent sum that the demo holds the product against: by subject and property, straight from the file. */
export function sumTrace(trace: Trace): Map<string, Map<string, Quantity>> {
  const sums = new Map(trace.subjects.map((subject) => [subject, new Map<string, Quantity>()]));
  for (const row of trace.rows) {
    const bySubject = sums.get(row.subject)!;
    for (const [property, text] of Object.entries(row.values)) {
      const value = parseQuantity(text);
      if (!value.ok) throw new Error(`row ${row.id} was read and is no number`);
      bySubject.set(property, (bySubject.get(property) ?? 0n) + value.value);
    }
  }
  return sums;
}
