// Events: what happened, with the object as it was then. Kept for 30 days, listed newest first.
import type { Change } from './change.ts';
import { invalid } from './error.ts';
import { inRange, page } from './list.ts';
import type { JsonObject } from './operation.ts';
import { flag, onlySupported, text, texts } from './params.ts';
import type { Params } from './params.ts';
import type { EventRecord } from './state.ts';

const typesMax = 20;

export function presentEvent(event: EventRecord): JsonObject {
  return {
    id: event.id,
    object: 'event',
    api_version: event.apiVersion,
    created: event.created,
    data: event.data,
    livemode: false,
    pending_webhooks: event.pending.length,
    request: event.request,
    type: event.type,
  };
}

export function listEvents(change: Change, params: Params): JsonObject {
  onlySupported(params, [
    'created',
    'delivery_success',
    'type',
    'types',
    'limit',
    'starting_after',
    'ending_before',
  ]);
  const type = text(params, 'type');
  const types = texts(params, 'types');
  if (type !== undefined && types !== undefined) {
    throw invalid('You may only specify one of these parameters: type, types.', 'parameters_exclusive');
  }
  if (types !== undefined && types.length > typesMax) {
    throw invalid(`You may specify up to ${typesMax} event types.`, undefined, 'types');
  }
  const delivered = flag(params, 'delivery_success');
  const found = change
    .all('event')
    .filter((each) => type === undefined || matches(type, each.type))
    .filter((each) => types === undefined || types.includes(each.type))
    .filter((each) => delivered === undefined || (each.pending.length === 0) === delivered)
    .filter((each) => inRange(params, 'created', each.created))
    .reverse();
  return page(found, params, '/v1/events', 'event', presentEvent);
}

/** `invoice.*` stands for every type that begins so. */
function matches(pattern: string, type: string): boolean {
  if (!pattern.includes('*')) return pattern === type;
  const parts = pattern.split('*').map((part) => part.replace(/[^a-z0-9_.]/gi, '').replaceAll('.', '\\.'));
  return new RegExp(`^${parts.join('.*')}$`).test(type);
}
