/**
 * The page at /docs: the OpenAPI document as HTML, in one file and without scripts, fonts or anything from
 * elsewhere, so that it reads the same behind a firewall. Rendered once; the document does not change.
 */
import { PROBLEMS } from './problems.ts';

interface JsonSchema {
  readonly $ref?: string;
  readonly type?: string | readonly string[];
  readonly description?: string;
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly required?: readonly string[];
  readonly items?: JsonSchema;
  readonly anyOf?: readonly JsonSchema[];
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
}

interface Media {
  readonly schema?: JsonSchema;
}

interface Operation {
  readonly operationId?: string;
  readonly summary?: string;
  readonly description?: string;
  readonly tags?: readonly string[];
  readonly parameters?: readonly {
    readonly name: string;
    readonly in: string;
    readonly required?: boolean;
    readonly description?: string;
    readonly schema?: JsonSchema;
  }[];
  readonly requestBody?: { readonly content: Readonly<Record<string, Media>> };
  readonly responses?: Readonly<
    Record<string, { readonly description: string; readonly content?: Readonly<Record<string, Media>> }>
  >;
}

export interface OpenApiDocument {
  readonly info: { readonly title: string; readonly version: string; readonly description?: string };
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components?: { readonly schemas?: Readonly<Record<string, JsonSchema>> };
}

export function referencePage(document: OpenApiDocument): string {
  const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ method: method.toUpperCase(), path, operation })),
  );
  const tags = [...new Set(operations.flatMap(({ operation }) => operation.tags ?? []))];
  const contents = tags
    .map((tag) => {
      const links = operations
        .filter(({ operation }) => operation.tags?.[0] === tag)
        .map(
          ({ method, path, operation }) =>
            `<li><a href="#${idOf(operation)}"><b>${method}</b> ${text(path)}</a></li>`,
        );
      return `<li>${text(tag)}<ul>${links.join('')}</ul></li>`;
    })
    .join('');
  const sections = tags.map(
    (tag) =>
      `<h2>${text(tag)}</h2>${operations
        .filter(({ operation }) => operation.tags?.[0] === tag)
        .map(({ method, path, operation }) => operationHtml(method, path, operation))
        .join('')}`,
  );
  const schemas = Object.entries(document.components?.schemas ?? {}).map(
    ([name, schema]) =>
      `<h3 id="schema-${text(name)}">${text(name)}</h3><p>${text(schema.description ?? '')}</p>${fieldsHtml(schema)}`,
  );
  const problems = Object.entries(PROBLEMS).map(
    ([code, kind]) =>
      `<tr id="${code}"><td><code>${code}</code></td><td>${kind.status}</td><td>${text(kind.title)} ${text(kind.detail)}</td></tr>`,
  );
  const { title, version, description = '' } = document.info;
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${text(title)}</title><style>${STYLE}</style></head><body>
<nav><b>${text(title)}</b> ${text(version)}<ul>${contents}<li><a href="#schemas">Schemas</a></li><li><a href="#problems">Problems</a></li><li><a href="/openapi.json">openapi.json</a></li></ul></nav>
<main><h1>${text(title)}</h1><p>${text(description)}</p>
${sections.join('\n')}
<h2 id="schemas">Schemas</h2>${schemas.join('\n')}
<h2 id="problems">Problems</h2><table><tr><th>code</th><th>status</th><th>what it means and what to do</th></tr>${problems.join('\n')}</table>
</main></body></html>
`;
}

function operationHtml(method: string, path: string, operation: Operation): string {
  const parameters = (operation.parameters ?? []).map(
    (one) =>
      `<tr><td><code>${text(one.name)}</code></td><td>${text(one.in)}${one.required === true ? ', required' : ''}</td><td>${typeHtml(one.schema ?? {})}</td><td>${text(one.description ?? '')}</td></tr>`,
  );
  const body = Object.values(operation.requestBody?.content ?? {})[0]?.schema;
  const answers = Object.entries(operation.responses ?? {}).map(([status, response]) => {
    const media = Object.entries(response.content ?? {}).map(
      ([type, { schema }]) =>
        `<code>${text(type)}</code>${schema === undefined ? '' : ` ${typeHtml(schema)}`}`,
    );
    return `<tr><td>${text(status)}</td><td>${text(response.description)}</td><td>${media.join('<br>')}</td></tr>`;
  });
  return `<section id="${idOf(operation)}"><h3><b>${method}</b> <code>${text(path)}</code></h3>
<p><b>${text(operation.summary ?? '')}.</b> ${text(operation.description ?? '')}</p>
${parameters.length === 0 ? '' : `<table><tr><th>parameter</th><th>in</th><th>type</th><th></th></tr>${parameters.join('')}</table>`}
${body === undefined ? '' : `<h4>Body</h4>${fieldsHtml(body)}`}
<h4>Answers</h4><table>${answers.join('')}</table></section>`;
}

function fieldsHtml(schema: JsonSchema): string {
  if (schema.properties === undefined) return `<p>${typeHtml(schema)}</p>`;
  const rows = Object.entries(schema.properties).map(([name, one]) => {
    const optional = schema.required?.includes(name) === true ? '' : ', optional';
    const inner =
      one.properties !== undefined
        ? fieldsHtml(one)
        : one.items?.properties !== undefined
          ? fieldsHtml(one.items)
          : '';
    return `<tr><td><code>${text(name)}</code></td><td>${typeHtml(one)}${optional}</td><td>${text(one.description ?? '')}${inner}</td></tr>`;
  });
  return `<table>${rows.join('')}</table>`;
}

function typeHtml(schema: JsonSchema): string {
  if (schema.$ref !== undefined) {
    const name = schema.$ref.split('/').at(-1) ?? '';
    return `<a href="#schema-${text(name)}">${text(name)}</a>`;
  }
  if (schema.const !== undefined) return `<code>${text(JSON.stringify(schema.const))}</code>`;
  if (schema.enum !== undefined)
    return schema.enum.map((one) => `<code>${text(JSON.stringify(one))}</code>`).join(' | ');
  if (schema.anyOf !== undefined) return schema.anyOf.map(typeHtml).join(' | ');
  if (schema.type === 'array') return `list of ${typeHtml(schema.items ?? {})}`;
  if (schema.type === undefined) return '';
  return text(Array.isArray(schema.type) ? schema.type.join(' or ') : String(schema.type));
}

const idOf = (operation: Operation): string => `operation-${text(operation.operationId ?? '')}`;

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

function text(value: string): string {
  return value.replace(/[&<>"']/g, (character) => ENTITIES[character] ?? character);
}

const STYLE = `body{font:16px/1.5 system-ui,sans-serif;margin:0;display:flex;color:#1b1f24;background:#fff}
nav{position:sticky;top:0;height:100vh;overflow:auto;padding:1rem;min-width:19rem;box-sizing:border-box;background:#f4f6f8;font-size:.85rem}
nav ul{list-style:none;padding-left:.6rem;margin:.3rem 0}main{padding:1rem 2rem;max-width:60rem;min-width:0}
section{border-top:1px solid #d5dae0;padding:.5rem 0 1rem}table{border-collapse:collapse;width:100%;font-size:.9rem}
td,th{border:1px solid #d5dae0;padding:.3rem .5rem;text-align:left;vertical-align:top}code{font-size:.9em}a{color:#0b57a4}
@media(max-width:50rem){body{display:block}nav{position:static;height:auto}main{padding:1rem}td{overflow-wrap:anywhere}}
@media(prefers-color-scheme:dark){body{background:#15181c;color:#e3e6ea}nav{background:#1d2126}a{color:#7fb8f0}td,th,section{border-color:#3a4048}}`;
