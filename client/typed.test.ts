import { expect, expectTypeOf, test } from 'vitest';
import { TallylineClient, type EventOf, type RecordedEvent } from './index.ts';

// Held by `tsc`: each @ts-expect-error fails the type check when the line below it is no error any more.

interface Events {
  'llm.request': { input_tokens: number; output_tokens: number | bigint; model?: string };
  'page.view': undefined;
}

const options = { url: 'http://edge.test', key: 'k', flushOnExit: false };

const use = { input_tokens: 1, output_tokens: 2n };

/** Never called: what is wrong must not be sent, only not compile. */
export async function compiles(typed: TallylineClient<Events>, loose: TallylineClient): Promise<void> {
  await typed.record({ type: 'llm.request', subject: 's', data: use });
  await typed.record({ type: 'page.view', subject: 's', id: 'a', time: new Date(0), source: 'x' });
  // @ts-expect-error a type that is not in the map
  await typed.record({ type: 'llm.reqest', subject: 's', data: use });
  // @ts-expect-error a field is missing
  await typed.record({ type: 'llm.request', subject: 's', data: { input_tokens: 1 } });
  // @ts-expect-error a field of another type
  await typed.record({ type: 'llm.request', subject: 's', data: { ...use, input_tokens: '1' } });
  // @ts-expect-error a field that the shape does not have
  await typed.record({ type: 'llm.request', subject: 's', data: { ...use, tokens: 1 } });
  // @ts-expect-error no data
  await typed.record({ type: 'llm.request', subject: 's' });
  // @ts-expect-error no subject
  await typed.record({ type: 'page.view' });
  await loose.record({ type: 'anything', subject: 's' });
  await loose.record({ type: 'anything', subject: 's', data: { a: { b: [1n, 'x', null] } } });
  await typed.void('a');
  await typed.void('a', { source: 'x', correctionId: 'v-2' });
  await typed.amend('a', { type: 'llm.request', subject: 's', time: '2026-11-21T08:30:00Z', data: use });
  await loose.amend('a', { type: 'anything', subject: 's', time: new Date(0), id: 'a-2', source: 'x' });
  // @ts-expect-error no time: the usage would move to now
  await typed.amend('a', { type: 'page.view', subject: 's' });
  // @ts-expect-error a type that is not in the map
  await typed.amend('a', { type: 'page.vew', subject: 's', time: new Date(0) });
  // @ts-expect-error data is an object
  await loose.record({ type: 'anything', subject: 's', data: 7 });
}

test('a map of events types what record takes; without one it is as loose as JSON', () => {
  expectTypeOf<EventOf<Events>['type']>().toEqualTypeOf<'llm.request' | 'page.view'>();
  expectTypeOf<Parameters<TallylineClient['record']>[0]>().toEqualTypeOf<RecordedEvent>();
  expectTypeOf<TallylineClient<Events>>().toExtend<AsyncDisposable>();
  expect(new TallylineClient<Events>(options).stats.buffered).toBe(0);
});
