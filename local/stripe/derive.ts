// Derives the request validator from the installed `stripe` package.
//
// A stand-in that accepts what Stripe would refuse teaches the wrong lesson, so nothing about the requests is
// written by hand. For every operation of operation.ts this file reads
//   1. the HTTP method and path from the SDK's JavaScript (`_makeRequest('POST', `/v1/invoices/${…}/pay`)`),
//   2. the parameters from its declarations (`InvoicePayParams`), through the TypeScript compiler,
// and writes both as JSON schema to operations.json beside the compiled file. Objects are closed: an unknown
// parameter is refused as Stripe refuses it. Enums are closed too: the SDK types them open (`OtherString`), for
// values that Stripe may add, and so `tsc` does not see a misspelt one.
//
// What the types do not say: whether a `number` must be an integer (all are but the few of `fractions`), what is
// exclusive with what, and lengths. The handlers check those.
//
// Only the resource files in use are given to the compiler and no import is followed, which takes about a second
// instead of six. A type from another file is unknown then: in an answer it accepts anything, among the parameters it is an error here.
//
// Run as a program it writes the file; `node dist/local/stripe/derive.js`.
import { readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { answeredTypes, operationsByResource } from './operation.ts';
import type { Operation, OperationName, Operations, Schema } from './operation.ts';
import { findSdk } from './sdk.ts';

/** Parameters and fields that are true fractions; every other `number` of Stripe's v1 API is an integer. */
const fractions = new Set(['percentage']);

/** Stripe: "decimal with at most 12 decimal places". */
const decimalPattern = '^-?\\d{1,19}(\\.\\d{1,12})?$';

/** Reads the SDK and returns the whole of operations.json. Throws when the SDK no longer looks as expected. */
export function deriveOperations(): Operations {
  const sdk = findSdk();
  const esm = join(sdk.folder, 'esm');
  const resource = (name: string) => join(esm, 'resources', `${name}.d.ts`);

  const files = new Set(Object.keys(operationsByResource));
  for (const { file } of Object.values(answeredTypes)) files.add(file);
  const program = ts.createProgram({
    rootNames: [
      join(esm, 'shared.d.ts'),
      join(esm, 'Decimal.d.ts'),
      join(esm, 'lib.d.ts'),
      ...[...files].map(resource),
    ],
    options: {
      noResolve: true,
      noLib: false,
      lib: ['lib.es5.d.ts'],
      types: [],
      strict: true,
      exactOptionalPropertyTypes: true,
      module: ts.ModuleKind.NodeNext,
      moduleResolution: ts.ModuleResolutionKind.NodeNext,
    },
  });
  const converter = new Converter(program.getTypeChecker());

  const operations: { [name: string]: Operation } = {};
  for (const [name, methods] of Object.entries(operationsByResource)) {
    const declarations = sourceOf(program, resource(name));
    const requests = readRequests(join(esm, 'resources', `${name}.js`));
    for (const method of methods) {
      const request = requests.get(method);
      if (request === undefined) throw new Error(`stripe ${sdk.version} has no ${name}.${method}()`);
      operations[`${name}.${method}`] = { ...request, params: converter.params(declarations, method) };
    }
  }

  const objects: Operations['objects'] = {};
  for (const [object, { file, type }] of Object.entries(answeredTypes)) {
    objects[object] = converter.named(sourceOf(program, resource(file)), type);
  }

  const version = /ApiVersion = "([^"]+)"/.exec(readFileSync(join(esm, 'apiVersion.d.ts'), 'utf8'))?.[1];
  if (version === undefined)
    throw new Error(`stripe ${sdk.version} does not say which API version it speaks`);
  return {
    sdkVersion: sdk.version,
    apiVersion: version,
    operations: operations as { [name in OperationName]: Operation },
    objects,
    $defs: converter.definitions,
  };
}

function sourceOf(program: ts.Program, path: string): ts.SourceFile {
  const source = program.getSourceFile(path);
  if (source === undefined) throw new Error(`the stripe package has no ${path}`);
  return source;
}

/** Method and path of every SDK method of one resource: the first two arguments of its `_makeRequest`. */
function readRequests(path: string): Map<string, { method: Operation['method']; path: string }> {
  const source = ts.createSourceFile(path, readFileSync(path, 'utf8'), ts.ScriptTarget.ES2022, true);
  const requests = new Map<string, { method: Operation['method']; path: string }>();
  const visit = (node: ts.Node, inside: string): void => {
    if (ts.isMethodDeclaration(node)) inside = node.name.getText();
    if (ts.isCallExpression(node) && node.expression.getText() === 'this._makeRequest') {
      const [method, url] = node.arguments;
      if (method !== undefined && url !== undefined && ts.isStringLiteral(method)) {
        requests.set(inside, { method: method.text as Operation['method'], path: readPath(url) });
      }
    }
    node.forEachChild((child) => visit(child, inside));
  };
  visit(source, '');
  return requests;
}

/** `/v1/invoices/${encodeURIComponent(id)}/pay` becomes `/v1/invoices/{id}/pay`. */
function readPath(url: ts.Expression): string {
  if (ts.isStringLiteralLike(url)) return url.text;
  if (!ts.isTemplateExpression(url)) throw new Error(`cannot read the path ${url.getText()}`);
  return url.templateSpans.reduce((path, span) => {
    const id = ts.isCallExpression(span.expression) ? span.expression.arguments[0]?.getText() : undefined;
    if (id === undefined) throw new Error(`cannot read the path ${url.getText()}`);
    return `${path}{${id}}${span.literal.text}`;
  }, url.head.text);
}

/** Types to schemas. Recursive answers (an invoice's customer's subscription's …) go by reference. */
class Converter {
  readonly definitions: { [name: string]: Schema } = {};
  private readonly checker: ts.TypeChecker;

  constructor(checker: ts.TypeChecker) {
    this.checker = checker;
  }

  /** The schema of the parameter `params` of one SDK method; an empty closed object when it has none. */
  params(source: ts.SourceFile, method: string): Schema {
    let found: ts.TypeNode | undefined;
    const visit = (node: ts.Node): void => {
      if (ts.isMethodDeclaration(node) && node.name.getText() === method) {
        found ??= node.parameters.find((parameter) => parameter.name.getText() === 'params')?.type;
      }
      node.forEachChild(visit);
    };
    visit(source);
    if (found === undefined) return { type: 'object', properties: {}, additionalProperties: false };
    const schema = this.convert(this.checker.getTypeFromTypeNode(found), '', []);
    if (schema.type !== 'object') throw new Error(`the parameters of ${method} are not an object`);
    return schema;
  }

  /** The schema of an exported type, by name. */
  named(source: ts.SourceFile, name: string): Schema {
    const module = this.checker.getSymbolAtLocation(source);
    const symbol = module && this.checker.getExportsOfModule(module).find((each) => each.name === name);
    if (symbol === undefined) throw new Error(`${source.fileName} exports no ${name}`);
    return this.reference(this.checker.getDeclaredTypeOfSymbol(symbol), symbol);
  }

  private reference(type: ts.Type, symbol: ts.Symbol): Schema {
    const name = this.checker.getFullyQualifiedName(symbol).replace(/^".*?"\./, '');
    if (!(name in this.definitions)) {
      this.definitions[name] = {};
      Object.assign(this.definitions[name] ?? {}, this.object(type, ['answer']));
    }
    return { $ref: `#/$defs/${name}` };
  }

  /** `trail` is empty for parameters; for answers it is not, and interfaces are referenced instead of inlined. */
  private convert(type: ts.Type, name: string, trail: string[]): Schema {
    if (type.flags & ts.TypeFlags.Any) {
      if (trail.length === 0)
        throw new Error(`the parameter ${name} has a type from a file that is not read`);
      return {};
    }
    if (type.flags & ts.TypeFlags.StringLiteral) return { enum: [(type as ts.StringLiteralType).value] };
    if (type.flags & ts.TypeFlags.NumberLiteral) return { enum: [(type as ts.NumberLiteralType).value] };
    if (type.flags & ts.TypeFlags.BooleanLiteral)
      return { enum: [this.checker.typeToString(type) === 'true'] };
    if (type.flags & ts.TypeFlags.Null) return { type: 'null' };
    if (type.flags & ts.TypeFlags.String) return { type: 'string' };
    if (type.flags & ts.TypeFlags.Boolean) return { type: 'boolean' };
    if (type.flags & ts.TypeFlags.Number) return { type: fractions.has(name) ? 'number' : 'integer' };
    if (type.flags & (ts.TypeFlags.Undefined | ts.TypeFlags.Void)) return { not: {} } as Schema;
    if (type.isUnion()) return this.union(type, name, trail);
    if (type.isIntersection()) {
      if (type.aliasSymbol?.name === 'Decimal') return { type: 'string', pattern: decimalPattern };
      throw new Error(`cannot derive the intersection ${this.checker.typeToString(type)}`);
    }
    if (this.checker.isArrayType(type)) {
      const item = this.checker.getTypeArguments(type as ts.TypeReference)[0];
      return { type: 'array', items: item === undefined ? {} : this.convert(item, name, trail) };
    }
    const symbol = type.getSymbol();
    if (trail.length > 0 && symbol !== undefined && type.isClassOrInterface())
      return this.reference(type, symbol);
    return this.object(type, trail);
  }

  private union(type: ts.UnionType, name: string, trail: string[]): Schema {
    const literals: (string | number | boolean | null)[] = [];
    const others: Schema[] = [];
    let open = false;
    for (const member of type.types) {
      if (member.flags & ts.TypeFlags.Undefined) continue;
      if (member.aliasSymbol?.name === 'OtherString') {
        open = true;
        continue;
      }
      const schema = this.convert(member, name, trail);
      if (schema.enum !== undefined) literals.push(...schema.enum);
      else if (schema.type === 'null') literals.push(null);
      else others.push(schema);
    }
    // `boolean` is the union of its two literals.
    if (literals.includes(true) && literals.includes(false)) {
      others.push({ type: 'boolean' });
      literals.splice(literals.indexOf(true), 1);
      literals.splice(literals.indexOf(false), 1);
    }
    // An enum that is only open would be a plain string.
    if (open && literals.every((literal) => literal === null || literal === ''))
      others.push({ type: 'string' });
    if (others.some((schema) => Object.keys(schema).length === 0)) return {};
    if (literals.length > 0) others.unshift({ enum: literals });
    const [only] = others;
    return others.length === 1 && only !== undefined ? only : { anyOf: others };
  }

  private object(type: ts.Type, trail: string[]): Schema {
    const index = this.checker.getIndexInfoOfType(type, ts.IndexKind.String);
    if (index !== undefined && type.getProperties().length === 0) {
      return { type: 'object', additionalProperties: this.convert(index.type, '', trail) };
    }
    const properties: { [name: string]: Schema } = {};
    const required: string[] = [];
    for (const property of type.getProperties()) {
      const optional = (property.flags & ts.SymbolFlags.Optional) !== 0;
      properties[property.name] = this.convert(this.checker.getTypeOfSymbol(property), property.name, trail);
      if (!optional) required.push(property.name);
    }
    const schema: Schema = { type: 'object', properties, additionalProperties: false };
    if (required.length > 0) schema.required = required;
    return schema;
  }
}

function isProgram(): boolean {
  const script = process.argv[1];
  return script !== undefined && realpathSync(script) === realpathSync(fileURLToPath(import.meta.url));
}

if (isProgram()) {
  writeFileSync(
    new URL('./operations.json', import.meta.url),
    `${JSON.stringify(deriveOperations(), null, 1)}\n`,
  );
}
