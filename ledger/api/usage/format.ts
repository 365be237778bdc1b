/** The forms in which usage can be had, and which one a request wants. */
export const USAGE_FORMATS = ['json', 'ndjson', 'csv', 'parquet'] as const;
export type UsageFormat = (typeof USAGE_FORMATS)[number];

export const MEDIA_TYPES: Readonly<Record<UsageFormat, string>> = {
  json: 'application/json',
  ndjson: 'application/x-ndjson',
  csv: 'text/csv',
  parquet: 'application/vnd.apache.parquet',
};

/** `format` wins over Accept; without both it is JSON. Null when nothing that is accepted can be given. */
export function chooseFormat(
  format: UsageFormat | undefined,
  accept: string | undefined,
): UsageFormat | null {
  if (format !== undefined) return format;
  if (accept === undefined || accept.trim() === '') return 'json';
  const ranges = accept.split(',').map((part, at) => {
    const [range = '', ...parameters] = part.split(';').map((text) => text.trim().toLowerCase());
    const quality = parameters.find((text) => text.startsWith('q='))?.slice(2) ?? '1';
    return { range, quality: /^[01](\.\d{0,3})?$/.test(quality) ? Number(quality) : 0, at };
  });
  ranges.sort((a, b) => b.quality - a.quality || a.at - b.at);
  for (const { range, quality } of ranges) {
    if (quality === 0) continue;
    const match = USAGE_FORMATS.find((one) => accepts(range, MEDIA_TYPES[one]));
    if (match !== undefined) return match;
  }
  return null;
}

function accepts(range: string, mediaType: string): boolean {
  if (range === '*/*' || range === mediaType) return true;
  return range.endsWith('/*') && mediaType.startsWith(range.slice(0, -1));
}

/** The first line of a CSV (RFC 4180); ClickHouse writes the rest, told to end lines in the same way. */
export function csvHeader(columns: readonly string[]): string {
  return (
    columns.map((name) => (/[",\r\n]/.test(name) ? `"${name.replaceAll('"', '""')}"` : name)).join(',') +
    '\r\n'
  );
}
