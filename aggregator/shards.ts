/** The shards that a process counts, from text such as "all", "2" or "0-1,3". */
export function parseShards(text: string, shards: number): number[] | string {
  if (text === 'all') return Array.from({ length: shards }, (_, shard) => shard);
  const owned = new Set<number>();
  for (const part of text.split(',')) {
    const match = /^(\d{1,4})(?:-(\d{1,4}))?$/.exec(part.trim());
    if (match === null) return `${JSON.stringify(part)} is no shard and no range of shards such as 0-1`;
    const first = Number(match[1]);
    const last = Number(match[2] ?? match[1]);
    if (first > last) return `${JSON.stringify(part)} ends before it starts`;
    if (last >= shards) return `there is no shard ${last}: TALLYLINE_SHARDS is ${shards}`;
    for (let shard = first; shard <= last; shard++) owned.add(shard);
  }
  return [...owned].sort((a, b) => a - b);
}
