// Rows of a CSV as events: some columns are the event's own fields, all others its data.
import { instantOfCell, jsonOfCell } from '../csv.ts';
import { FileFault, type FileRecord } from './record.ts';

export interface Mapping {
  readonly type: string;
  readonly source: string | null;
  readonly subjectColumn: string;
  readonly timeColumn: string;
  /** Null: ids are made from the lines. */
  readonly idColumn: string | null;
}

export type RowReader = (place: number, row: readonly string[]) => FileRecord;

/** Throws a FileFault when the header lacks a column, or has one twice. */
export function rowReader(mapping: Mapping, header: readonly string[]): RowReader {
  const twice = header.find((name, at) => header.indexOf(name) !== at);
  if (twice !== undefined) throw new FileFault(`the header has the column ${JSON.stringify(twice)} twice`);
  const columnOf = (name: string): number => {
    const at = header.indexOf(name);
    if (at >= 0) return at;
    throw new FileFault(`the header has no column ${JSON.stringify(name)}: it has ${header.join(', ')}`);
  };
  const subjectAt = columnOf(mapping.subjectColumn);
  const timeAt = columnOf(mapping.timeColumn);
  const idAt = mapping.idColumn === null ? -1 : columnOf(mapping.idColumn);
  const type = `"type":${JSON.stringify(mapping.type)}`;
  const source = mapping.source === null ? '' : `,"source":${JSON.stringify(mapping.source)}`;
  const values = header.flatMap((name, at) =>
    at === subjectAt || at === timeAt || at === idAt ? [] : [{ at, name: JSON.stringify(name) }],
  );
  return (place, row) => {
    if (row.length !== header.length) {
      const message = `The row has ${row.length} cells and the header ${header.length}.`;
      return { place, code: 'row_not_like_header', message };
    }
    const time = row[timeAt]!;
    let text = `{${type}${source}`;
    // An empty cell is a field that is not there: without an id, a subject or a time the edge says so.
    if (idAt >= 0 && row[idAt] !== '') text += `,"id":${JSON.stringify(row[idAt])}`;
    if (row[subjectAt] !== '') text += `,"subject":${JSON.stringify(row[subjectAt])}`;
    // A row without a time would count as of now, which is never meant: '' is refused as no time.
    text += `,"time":${JSON.stringify(instantOfCell(time)?.text ?? time)},"data":{`;
    let separator = '';
    for (const { at, name } of values) {
      if (row[at] === '') continue;
      text += `${separator}${name}:${jsonOfCell(row[at]!)}`;
      separator = ',';
    }
    return { place, event: Buffer.from(`${text}}}`) };
  };
}
