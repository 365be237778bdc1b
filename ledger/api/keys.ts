import { Type } from 'typebox';
import { SCOPES } from '../../contract/key.ts';
import { formatInstant } from '../../contract/window.ts';
import { PublishFailed } from '../publish.ts';
import { createKey, listKeys, revokeKey } from '../tenants.ts';
import type { KeyCache } from './auth.ts';
import { appendAudit } from '../audit.ts';
import { callerOf, type ApiContext, type App } from './context.ts';
import { pageOf } from './cursor.ts';
import { problem } from './problems.ts';
import {
  IDEMPOTENCY_HEADERS,
  Instant,
  LIST_LIMIT_DEFAULT,
  listOf,
  named,
  Nullable,
  object,
  oneOf,
  PAGE_QUERY,
  responses,
} from './schema.ts';
import { give, write } from './write.ts';

const tags = ['Keys'];
const RANDOM_BYTES = 64;

const ScopeName = oneOf(SCOPES);
const KEY_FIELDS = {
  id: Type.String({ description: 'The part of the key that is no secret' }),
  label: Type.String(),
  scopes: Type.Array(ScopeName),
  createdAt: Instant('When it was made'),
};
const KeySchema = named(
  'Key',
  object(
    { ...KEY_FIELDS, revokedAt: Nullable(Instant('When it was revoked; null while it works')) },
    'An API key without its secret',
  ),
);
const NewKeySchema = named(
  'NewKey',
  object({
    ...KEY_FIELDS,
    key: Nullable(
      Type.String({
        description: 'The key. Shown once: only a hash is kept, so a repeated answer has null here',
        examples: ['tl_0123456789ab_…'],
      }),
    ),
  }),
);

export function keyRoutes(app: App, context: ApiContext, cache: KeyCache): void {
  app.post(
    '/v1/keys',
    {
      config: { scope: 'admin' },
      schema: {
        operationId: 'createKey',
        summary: 'Make an API key',
        tags,
        headers: IDEMPOTENCY_HEADERS,
        body: object({
          label: Type.String({
            minLength: 1,
            maxLength: 200,
            description: 'For people',
            examples: ['production ingest'],
          }),
          scopes: Type.Array(ScopeName, { minItems: 1, uniqueItems: true }),
        }),
        response: responses({ 201: NewKeySchema }, [], { write: true }),
      },
    },
    (request, reply) =>
      write(context, request, reply, {
        action: 'key.create',
        elsewhere: true,
        keep: (body) => ({ ...(body as object), key: null }),
        async effect(_tx, caller, nowMs) {
          const { label, scopes } = request.body;
          const { key, record } = await context.pg.transaction(async (tx) => {
            const random = context.randomBytes(RANDOM_BYTES);
            const made = await createKey(tx, { tenant: caller.tenant, scopes, label, nowMs, random });
            await appendAudit(tx, caller, 'key.create', `key/${made.record.id}`, nowMs);
            return made;
          });
          cache.forget();
          // The key exists; edges that cannot be told now are told by the next sync.
          await context.publisher.putKey(record).catch((error: unknown) => {
            if (!(error instanceof PublishFailed)) throw error;
            context.log.warn({ error, keyId: record.id }, 'the edges do not know a new key yet');
          });
          const body = {
            id: record.id,
            label,
            scopes: [...record.scopes],
            createdAt: formatInstant(nowMs),
            key,
          };
          return { answer: { status: 201, body }, changed: null };
        },
      }),
  );

  app.get(
    '/v1/keys',
    {
      config: { scope: 'admin' },
      schema: {
        operationId: 'listKeys',
        summary: 'List the API keys, revoked ones too',
        tags,
        querystring: object(PAGE_QUERY),
        response: responses({ 200: listOf(KeySchema, 'Keys by id') }, ['cursor_invalid']),
      },
    },
    async (request, reply) => {
      const { tenant } = callerOf(request);
      const { limit = LIST_LIMIT_DEFAULT, cursor } = request.query;
      const keys = await listKeys(context.pg, tenant);
      const page = pageOf(keys, (key) => key.id, { scope: `keys ${tenant}`, limit, cursor });
      if (page === null) return give(reply, problem('cursor_invalid'));
      const items = page.items.map(({ id, label, scopes, createdAtMs, revokedAtMs }) => ({
        id,
        label,
        scopes: [...scopes],
        createdAt: formatInstant(createdAtMs),
        revokedAt: revokedAtMs === null ? null : formatInstant(revokedAtMs),
      }));
      return give(reply, { status: 200, body: { ...page, items } });
    },
  );

  app.delete(
    '/v1/keys/:id',
    {
      config: { scope: 'admin' },
      schema: {
        operationId: 'revokeKey',
        summary: 'Revoke an API key',
        description:
          'From the answer on this API refuses the key, and the edges have been told. Revoking a revoked key changes nothing.',
        tags,
        headers: IDEMPOTENCY_HEADERS,
        params: object({ id: Type.String({ minLength: 12, maxLength: 12, pattern: '^[0-9A-Za-z]+$' }) }),
        response: responses(
          { 204: Type.Null({ description: 'Revoked' }) },
          ['key_not_found', 'log_unavailable'],
          { write: true },
        ),
      },
    },
    (request, reply) =>
      write(context, request, reply, {
        action: 'key.revoke',
        elsewhere: true,
        async effect(_tx, caller, nowMs) {
          const { id } = request.params;
          const known = await context.pg.transaction(async (tx) => {
            const found = await revokeKey(tx, { tenant: caller.tenant, id, nowMs });
            if (found) await appendAudit(tx, caller, 'key.revoke', `key/${id}`, nowMs);
            return found;
          });
          if (!known) return { answer: problem('key_not_found'), changed: null };
          cache.forget();
          try {
            await context.publisher.deleteKey(id);
          } catch (error) {
            if (!(error instanceof PublishFailed)) throw error;
            const detail =
              'The key is revoked, but the edges have not been told yet: send the same request again.';
            return { answer: problem('log_unavailable', detail), changed: null };
          }
          return { answer: { status: 204, body: undefined }, changed: null };
        },
      }),
  );
}
