// Webhook endpoints: where events go. One may be configured when the stand-in starts (as one would in Stripe's
// dashboard), others are registered through the API, each with a secret that is shown once.
import type { Change } from './change.ts';
import { invalid } from './error.ts';
import { page } from './list.ts';
import type { JsonObject } from './operation.ts';
import { field, flag, mergeMetadata, onlySupported, requiredText, text, texts } from './params.ts';
import type { Params } from './params.ts';
import type { EndpointRecord } from './state.ts';

/** The id of the configured endpoint: the same after every start, so that what is pending for it stays its own. */
export const configuredEndpoint = 'we_configuredAtStart000001';

const endpointsMax = 16;

export function presentEndpoint(endpoint: EndpointRecord, apiVersion: string): JsonObject {
  return {
    id: endpoint.id,
    object: 'webhook_endpoint',
    api_version: apiVersion,
    application: null,
    created: endpoint.created,
    description: endpoint.description,
    enabled_events: endpoint.enabledEvents,
    livemode: false,
    metadata: endpoint.metadata,
    status: endpoint.disabled ? 'disabled' : 'enabled',
    url: endpoint.url,
  };
}

export function createEndpoint(change: Change, params: Params): JsonObject {
  onlySupported(params, ['api_version', 'description', 'enabled_events', 'metadata', 'url']);
  const { apiVersion } = change.surroundings;
  const wanted = text(params, 'api_version') ?? apiVersion;
  if (wanted !== apiVersion) {
    throw invalid(`The local stand-in speaks ${apiVersion} only, not ${wanted}.`, undefined, 'api_version');
  }
  if (change.all('webhook_endpoint').length >= endpointsMax) {
    throw invalid(`You have reached the maximum of ${endpointsMax} test webhook endpoints.`);
  }
  const secret = `whsec_${change.newId('k').slice(2)}`;
  const endpoint = change.put<EndpointRecord>({
    object: 'webhook_endpoint',
    id: change.newId('we'),
    created: change.now,
    url: readUrl(requiredText(params, 'url')),
    secret,
    enabledEvents: texts(params, 'enabled_events') ?? [],
    description: field(params, 'description', null),
    disabled: false,
    metadata: mergeMetadata(params, {}),
  });
  return { ...presentEndpoint(endpoint, apiVersion), secret };
}

export function updateEndpoint(change: Change, params: Params, id: string): JsonObject {
  onlySupported(params, ['description', 'disabled', 'enabled_events', 'metadata', 'url']);
  const endpoint = change.require('webhook_endpoint', id);
  const url = text(params, 'url');
  const updated = change.put<EndpointRecord>({
    ...endpoint,
    url: url === undefined ? endpoint.url : readUrl(url),
    enabledEvents: texts(params, 'enabled_events') ?? endpoint.enabledEvents,
    description: field(params, 'description', endpoint.description),
    disabled: flag(params, 'disabled') ?? endpoint.disabled,
    metadata: mergeMetadata(params, endpoint.metadata),
  });
  return presentEndpoint(updated, change.surroundings.apiVersion);
}

export function deleteEndpoint(change: Change, id: string): JsonObject {
  change.require('webhook_endpoint', id);
  change.remove('webhook_endpoint', id);
  return { id, object: 'webhook_endpoint', deleted: true };
}

export function listEndpoints(change: Change, params: Params): JsonObject {
  onlySupported(params, ['limit', 'starting_after', 'ending_before']);
  const found = change.all('webhook_endpoint').reverse();
  const { apiVersion } = change.surroundings;
  return page(found, params, '/v1/webhook_endpoints', 'webhook endpoint', (each) =>
    presentEndpoint(each, apiVersion),
  );
}

/** Test mode takes plain http too. */
function readUrl(given: string): string {
  const url = URL.canParse(given) ? new URL(given) : undefined;
  if (url === undefined || !['http:', 'https:'].includes(url.protocol))
    throw invalid('Not a valid URL', 'url_invalid', 'url');
  return given;
}
