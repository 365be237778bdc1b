import type { DedupeBench } from './dedupe.ts';
import type { DedupeEvents } from './dedupe-events.ts';
import { fixed, table, whole } from './table.ts';

export function printDedupe({ kinds, figures, rebuilds, lookUps }: DedupeBench): string {
  const decided = [
    ['keys', 'decided by', 'ns/event', 'last fifth ns/event', 'B/key'],
    ...kinds.map((one) => [
      whole(one.keys),
      one.kind,
      whole(one.nanosPerEvent),
      whole(one.nanosPerEventLast),
      one.bytesPerKey === null ? '' : fixed(one.bytesPerKey, 1),
    ]),
  ];
  const looks = [
    [
      'keys',
      'kept exactly',
      'B/key hot',
      'B/key cold',
      'filters',
      'put ns',
      'new ns',
      'duplicate ns',
      'to ask ns',
      'asked falsely',
      'longest turn ms',
    ],
    ...figures.map((one) => [
      whole(one.keys),
      whole(one.hotKeys),
      fixed(one.hotBytesPerKey, 1),
      one.coldBytesPerKey === 0 ? '' : fixed(one.coldBytesPerKey, 1),
      whole(one.filters),
      whole(one.putNs),
      whole(one.missNs),
      one.duplicateNs === 0 ? '' : whole(one.duplicateNs),
      one.coldHitNs === 0 ? '' : whole(one.coldHitNs),
      `${fixed(one.falseShare * 100, 3)} %`,
      fixed(one.rotateMsMax, 1),
    ]),
  ];
  const rebuilt = [
    ['rebuilt from ClickHouse', 'kept exactly', 'keys/s'],
    ...rebuilds.map((one) => [whole(one.keys), whole(one.hotKeys), whole(one.keysPerSecond)]),
  ];
  const asked = [
    ['rows in ClickHouse', 'identities asked for', 'p50 ms'],
    ...lookUps.map((one) => [whole(one.rows), whole(one.identities), fixed(one.p50Ms, 1)]),
  ];
  return `${[decided, looks, rebuilt, asked].map(table).join('\n\n')}\n`;
}

export function printDedupeEvents(one: DedupeEvents): string {
  const lines = [
    `${whole(one.events)} events, ${whole(one.repeated)} of them repeated, in ${whole(one.seconds)} s`,
    `bound ${whole(one.keysMax)} identities; largest ${whole(one.keysLargest)}, ${fixed(one.bytesLargest / 1024 ** 2, 1)} MiB with filters`,
    `${whole(one.asked)} asked for in ${whole(one.lookUps)} questions, ${whole(one.found)} found`,
    ...(one.wrong.length === 0 ? ['every total is exact'] : one.wrong),
  ];
  return `${lines.join('\n')}\n`;
}
