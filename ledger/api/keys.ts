import { Type } from 'typebox';
import { SCOPES, type KeyRecord } from '../../contract/key.ts';
import { formatInstant } from '../../contract/window.ts';
import { PublishFailed } from '../publish.ts';
import { activeKey, createKey, listKeys, revokeKey, rotateKey, type Rotation } from '../tenants.ts';
import type { KeyCache } from './auth.ts';
import { appendAudit } from '../audit.ts';
import { callerOf, type ApiContext, type App } from './context.ts';
import { pageOf } from './cursor.ts';
import { problem, type ProblemAnswer } from './problems.ts';
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
const OVERLAP_SECONDS_DEFAULT = 86_400;
const OVERLAP_SECONDS_MAX = 30 * 86_400;

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
    {
      ...KEY_FIELDS,
      revokedAt: Nullable(Instant('When it was revoked; null when it was not')),
      expiresAt: Nullable(Instant('From when on it is refused, since it was rotated; null: it has no end')),
      replacedBy: Nullable(Type.String({ description: 'The id of the key that it was rotated to' })),
    },
    'An API key without its secret',
  ),
);
const NEW_KEY_FIELDS = {
  ...KEY_FIELDS,
  key: Nullable(
    Type.String({
      description: 'The key. Shown once: only a hash is kept, so a repeated answer has null here',
      examples: ['tl_0123456789ab_…'],
    }),
  ),
};
const NewKeySchema = named('NewKey', object(NEW_KEY_FIELDS));
const RotatedKeySchema = named(
  'RotatedKey',
  object(
    {
      ...NEW_KEY_FIELDS,
      replaces: object(
        { id: Type.String(), expiresAt: Instant('From when on the old key is refused') },
        'The key that was rotated',
      ),
    },
    'The new key, and the end of the one it replaces',
  ),
);
const KEY_PARAMS = object({ id: Type.String({ minLength: 12, maxLength: 12, pattern: '^[0-9A-Za-z]+$' }) });

/** What is kept of an answer with a key: all but the key. */
const withoutKey = (body: unknown): unknown => ({ ...(body as object), key: null });

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
        keep: withoutKey,
        async effect(_tx, caller, nowMs) {
          const { label, scopes } = request.body;
          const { key, record } = await context.pg.transaction(async (tx) => {
            const random = context.randomBytes(RANDOM_BYTES);
            const made = await createKey(tx, { tenant: caller.tenant, scopes, label, nowMs, random });
            await appendAudit(tx, caller, 'key.create', `key/${made.record.id}`, nowMs);
            return made;
          });
          cache.forget();
          await tellEdges(context, record.id);
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
      const items = page.items.map((key) => ({
        id: key.id,
        label: key.label,
        scopes: [...key.scopes],
        createdAt: formatInstant(key.createdAtMs),
        revokedAt: instantOrNull(key.revokedAtMs),
        expiresAt: instantOrNull(key.expiresAtMs),
        replacedBy: key.replacedBy,
      }));
      return give(reply, { status: 200, body: { ...page, items } });
    },
  );

  app.post(
    '/v1/keys/:id/rotate',
    {
      config: { scope: 'admin' },
      schema: {
        operationId: 'rotateKey',
        summary: 'Put a new API key in the place of one',
        description:
          'The new key has the same scopes and the same label and works at once; the old one works on for the overlap and is refused from its end on, here and at every edge. A key is rotated once, then its successor is.',
        tags,
        headers: IDEMPOTENCY_HEADERS,
        params: KEY_PARAMS,
        body: object({
          overlapSeconds: Type.Optional(
            Type.Integer({
              minimum: 0,
              maximum: OVERLAP_SECONDS_MAX,
              description: `How long both keys work; ${OVERLAP_SECONDS_DEFAULT} (a day) when absent, 0 ends the old one at once`,
            }),
          ),
        }),
        response: responses({ 201: RotatedKeySchema }, ['key_not_found', 'key_revoked', 'key_rotated'], {
          write: true,
        }),
      },
    },
    (request, reply) =>
      write(context, request, reply, {
        action: 'key.rotate',
        elsewhere: true,
        keep: withoutKey,
        async effect(_tx, caller, nowMs) {
          const { id } = request.params;
          const overlapMs = (request.body.overlapSeconds ?? OVERLAP_SECONDS_DEFAULT) * 1_000;
          const rotation = await context.pg.transaction(async (tx) => {
            const random = context.randomBytes(RANDOM_BYTES);
            const done = await rotateKey(tx, { tenant: caller.tenant, id, overlapMs, nowMs, random });
            if (done.rotated) {
              await appendAudit(tx, caller, 'key.rotate', `key/${id}`, nowMs);
              await appendAudit(tx, caller, 'key.create', `key/${done.record.id}`, nowMs);
            }
            return done;
          });
          if (!rotation.rotated) return { answer: refusalOf(rotation), changed: null };
          const { key, record, label, endsAtMs } = rotation;
          cache.forget();
          // The new one first: there is no moment in which the edges know of neither.
          await tellEdges(context, record.id);
          await tellEdges(context, id);
          const body = {
            id: record.id,
            label,
            scopes: [...record.scopes],
            createdAt: formatInstant(nowMs),
            key,
            replaces: { id, expiresAt: formatInstant(endsAtMs) },
          };
          return { answer: { status: 201, body }, changed: null };
        },
      }),
  );

  app.delete(
    '/v1/keys/:id',
    {
      config: { scope: 'admin' },
      schema: {
        operationId: 'revokeKey',
        summary: 'Revoke an API key',
        description:
          'From the answer on this API refuses the key, and the edges have been told; they close its open streams. A rotated key can be revoked before its end. Revoking a revoked key changes nothing.',
        tags,
        headers: IDEMPOTENCY_HEADERS,
        params: KEY_PARAMS,
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
            await context.publisher.tellKey(id, () => currentKey(context, id));
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

/** The key is in Postgres; edges that cannot be told of it now are told by the next sync. */
async function tellEdges(context: ApiContext, id: string): Promise<void> {
  await context.publisher
    .tellKey(id, () => currentKey(context, id))
    .catch((error: unknown) => {
      if (!(error instanceof PublishFailed)) throw error;
      context.log.warn({ error, keyId: id }, 'the edges do not know of a change of a key yet');
    });
}

function currentKey({ pg, clock }: ApiContext, id: string): Promise<KeyRecord | null> {
  return activeKey(pg, id, clock.now());
}

function refusalOf(rotation: Rotation & { rotated: false }): ProblemAnswer {
  switch (rotation.because) {
    case 'unknown':
      return problem('key_not_found');
    case 'revoked':
      return problem('key_revoked');
    case 'rotated': {
      const { replacedBy, endsAtMs } = rotation;
      return problem('key_rotated', undefined, { replacedBy, expiresAt: formatInstant(endsAtMs) });
    }
  }
}

function instantOrNull(ms: number | null): string | null {
  return ms === null ? null : formatInstant(ms);
}
