/** The API as a Fastify instance: what every route shares. The routes are in files of their own. */
import { randomUUID } from 'node:crypto';
import swagger from '@fastify/swagger';
import Fastify, { type FastifyError } from 'fastify';
import { KeyCache, lacksScope } from './auth.ts';
import { accountRoutes } from './accounts.ts';
import { backfillRoutes } from './backfills.ts';
import { conservationRoutes } from './conservation.ts';
import type { ApiContext, App } from './context.ts';
import { customerRoutes } from './customers.ts';
import { invoiceRoutes } from './invoices.ts';
import { keyRoutes } from './keys.ts';
import { meterRoutes } from './meters.ts';
import { planRoutes } from './plans.ts';
import { problem, validationProblem, type ProblemAnswer } from './problems.ts';
import { quotaRoutes } from './quota.ts';
import { referencePage, type OpenApiDocument } from './reference.ts';
import { refusedRoutes } from './refused.ts';
import { namedSchemas } from './schema.ts';
import { usageRoutes } from './usage/routes.ts';
import {
  mistakesOf,
  readParameters,
  textMistakes,
  type Finding,
  type ParametersSchema,
} from './validation.ts';
import { give } from './write.ts';

const DURATION_BUCKETS = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];
/** A path is cut to its route for metrics: this one stands for all paths without a route. */
const NO_ROUTE = 'none';

export async function buildApi(context: ApiContext): Promise<App> {
  const { apiLimits: limits, log, metrics } = context;
  const app = Fastify({
    bodyLimit: limits.bodyBytesMax,
    genReqId: () => randomUUID(),
    // One line a request is written by the hook below, without its query and headers.
    logger: false,
    routerOptions: { maxParamLength: 256, caseSensitive: true, ignoreTrailingSlash: false },
    forceCloseConnections: 'idle',
    requestTimeout: 60_000,
    ajv: {
      customOptions: { allErrors: true, coerceTypes: false, removeAdditional: false, useDefaults: false },
    },
    // Fastify's own answers while it stops.
    return503OnClosing: true,
  }) as unknown as App;

  const cache = new KeyCache({ db: context.pg, clock: context.clock, maxAgeMs: limits.keyCacheMs });
  const requests = metrics.counter('tallyline_api_requests_total', 'requests answered', [
    'method',
    'route',
    'status',
  ]);
  const duration = metrics.histogram(
    'tallyline_api_request_seconds',
    'from the request to the end of its answer',
    DURATION_BUCKETS,
    ['method', 'route'],
  );
  let busy = 0;
  metrics.gauge('tallyline_api_requests_busy_count', 'requests being worked on', [], () => busy);
  metrics.gauge('tallyline_api_requests_limit_count', 'requests worked on at most').set(limits.requestsMax);

  app.decorateRequest('caller', null);
  app.addHook('onRequest', async (request, reply) => {
    busy += 1;
    reply.raw.once('close', () => {
      busy -= 1;
      const route = request.routeOptions.url ?? NO_ROUTE;
      requests.inc({ method: request.method, route, status: reply.statusCode });
      duration.observe({ method: request.method, route }, reply.elapsedTime / 1_000);
      log.debug({ id: request.id, method: request.method, route, status: reply.statusCode }, 'answered');
    });
    void reply.headers({ 'x-request-id': request.id, 'x-content-type-options': 'nosniff' });
    if (busy > limits.requestsMax) return give(reply, problem('busy'));
    const { scope } = request.routeOptions.config;
    if (scope === undefined) return;
    void reply.header('cache-control', 'no-store');
    const caller = await cache.authenticate(request.headers.authorization);
    if ('status' in caller) return give(reply, withChallenge(caller));
    const refused = lacksScope(caller, scope);
    if (refused !== null) return give(reply, refused);
    request.caller = caller;
  });
  app.addHook('preValidation', async (request) => {
    const parameters = request.routeOptions.schema?.querystring as ParametersSchema | undefined;
    if (parameters !== undefined) {
      request.query = readParameters(request.query as Record<string, unknown>, parameters);
    }
  });

  app.addHook('preHandler', async (request, reply) => {
    const mistakes = [request.params, request.query, request.body].flatMap((part) => textMistakes(part));
    if (mistakes.length > 0) return give(reply, validationProblem(mistakes));
  });

  app.setErrorHandler((error: FastifyError, request, reply) =>
    give(reply, answerTo(error, request.id, context)),
  );
  app.setNotFoundHandler((_request, reply) => give(reply, problem('not_found')));

  for (const schema of namedSchemas()) app.addSchema(schema);
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Tallyline',
        version: '1',
        description:
          'Usage, plans, customers, balances and invoices. Quantities and amounts are decimal text, instants are RFC 3339 in UTC, windows are half-open. The tenant is that of the key. Writes take an Idempotency-Key. Errors are problems (RFC 9457) with a stable code.',
      },
      components: {
        securitySchemes: { key: { type: 'http', scheme: 'bearer', description: 'An API key, tl_…' } },
      },
      security: [{ key: [] }],
    },
    refResolver: {
      buildLocalReference: (json, _baseUri, _fragment, i) =>
        typeof json.$id === 'string' ? json.$id : `def-${i}`,
    },
    transformObject: (document) =>
      describeFilters('openapiObject' in document ? document.openapiObject : document.swaggerObject),
  });
  // Routes are seen by swagger only when they come after it is loaded.
  await app.register(async (scoped) => {
    const api = scoped as unknown as App;
    meterRoutes(api, context);
    backfillRoutes(api, context);
    planRoutes(api, context);
    customerRoutes(api, context);
    accountRoutes(api, context);
    invoiceRoutes(api, context);
    usageRoutes(api, context);
    refusedRoutes(api, context);
    conservationRoutes(api, context);
    keyRoutes(api, context, cache);
    quotaRoutes(api, context);
  });
  documentRoutes(app);
  await app.ready();
  return app;
}

function documentRoutes(app: App): void {
  let page: string | undefined;
  app.get('/openapi.json', { schema: { hide: true } as object }, () => app.swagger());
  app.get('/docs', { schema: { hide: true } as object }, (_request, reply) => {
    page ??= referencePage(app.swagger() as unknown as OpenApiDocument);
    const policy = "default-src 'none'; style-src 'unsafe-inline'";
    return reply.type('text/html; charset=utf-8').header('content-security-policy', policy).send(page);
  });
}

function withChallenge(answer: ProblemAnswer): ProblemAnswer {
  return { ...answer, headers: { ...answer.headers, 'www-authenticate': 'Bearer realm="tallyline"' } };
}

/** The answer to what was thrown: findings of the validator, fastify's own errors, and bugs. */
function answerTo(error: FastifyError, requestId: string, context: ApiContext): ProblemAnswer {
  if (error.validation !== undefined)
    return validationProblem(mistakesOf(error.validation as readonly Finding[]));
  switch (error.code) {
    case 'FST_ERR_CTP_BODY_TOO_LARGE':
      return problem('body_too_large', `Send a body of ${context.apiLimits.bodyBytesMax} bytes at most.`);
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
      return problem('media_type_unsupported');
    default:
      if (error.statusCode !== undefined && error.statusCode >= 400 && error.statusCode < 500) {
        return problem('body_unreadable');
      }
      context.log.error({ error, requestId }, 'a request failed');
      return problem('internal');
  }
}

/** `filter.<path>` is a family of parameters, which swagger does not know how to show. */
function describeFilters(document: object): object {
  const { paths } = document as { paths?: Record<string, { get?: { parameters?: object[] } }> };
  paths?.['/v1/usage']?.get?.parameters?.push({
    name: 'filter',
    in: 'query',
    style: 'form',
    explode: true,
    description: 'filter.<path>=value, such as filter.model=gpt-4; repeat it for any of several values',
    schema: {
      type: 'object',
      propertyNames: { pattern: '^filter\\..+$' },
      additionalProperties: { type: 'array', items: { type: 'string' } },
    },
  });
  return document;
}
