import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type IncomingMessage, request as openRequest } from 'node:http';
import { describe, it } from 'node:test';
import { makeOpenApi } from '../../../src/intake/openapi.ts';
import { openSidecar } from '../../support/scripted-sidecar.ts';

type Operation = {
  readonly operationId: string;
  readonly summary: string;
  readonly parameters?: readonly { readonly name: string; readonly in: string; readonly required?: boolean }[];
  readonly requestBody?: { readonly content: Readonly<Record<string, { readonly schema: object }>> };
  readonly responses: Readonly<Record<string, { readonly content: Readonly<Record<string, object>> }>>;
};
type Document = {
  readonly openapi: string;
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation | Operation['parameters']>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, object>> };
};

type Who = 'client' | 'operator';

const BOTH = ['/v1/runs', '/v1/runs/{id}', '/v1/plan', '/healthz', '/openapi.json'];
const PATHS: Readonly<Record<Who, readonly string[]>> = {
  client: ['/v1/signals', '/v1/leases/{id}', '/v1/runs/{id}/lease', ...BOTH],
  operator: [...BOTH.slice(0, -1), '/v1/status', '/v1/release', '/openapi.json'],
};

/** A request of each operation that it must answer with 200. */
const BODIES: Readonly<Record<string, object>> = {
  signal: { operation: 'backup', state: 'post' },
  release: { all: true },
};
const QUERIES: Readonly<Record<string, string>> = { plan: '?operation=backup' };
const METHODS = ['get', 'put', 'post', 'delete', 'options', 'head', 'patch', 'trace'];

for (const who of ['client', 'operator'] as const) {
  describe(`the OpenAPI document of the socket for the ${who}`, () => {
    it('names what it serves', async ({ signal }) => {
      await using sidecar = await openSidecar({});
      assert.deepEqual(Object.keys((await documentOf(serverOf(sidecar, who), signal)).paths), PATHS[who]);
      for (const path of [...PATHS.client, ...PATHS.operator].filter((one) => !PATHS[who].includes(one))) {
        const response = await send(serverOf(sidecar, who), 'get', path.replace('{id}', 'run-1'), signal);
        assert.equal(response.statusCode, 404, path);
      }
    });

    it('documents what answers as it says, and only that', async ({ signal }) => {
      await using sidecar = await openSidecar({});
      const { paths } = await documentOf(serverOf(sidecar, who), signal);
      for (const [path, item] of Object.entries(paths)) {
        for (const method of METHODS) {
          const operation = item[method] as Operation | undefined;
          const id = path === '/v1/leases/{id}' ? 'mine' : 'run-1';
          const target =
            path.replace('{id}', id) + (operation === undefined ? '' : (QUERIES[operation.operationId] ?? ''));
          const body = operation === undefined ? undefined : BODIES[operation.operationId];
          const response = await send(serverOf(sidecar, who), method, target, signal, body);
          const expected = operation === undefined ? 405 : 200;
          assert.equal(response.statusCode, expected, `${method} ${path}`);
          const type = response.headers['content-type'] ?? '';
          const documented = operation?.responses[200]?.content ?? { 'application/problem+json': {} };
          assert.deepEqual(Object.keys(documented), [type], `${method} ${path}`);
          response.destroy();
        }
      }
    });

    it('names each operation once, every parameter that is in its path, and no schema that is not there', async ({
      signal,
    }) => {
      await using sidecar = await openSidecar({});
      const document = await documentOf(serverOf(sidecar, who), signal);
      assert.equal(document.openapi, '3.1.0');
      const operations = Object.values(document.paths).flatMap((item) =>
        Object.entries(item).flatMap(([name, value]) => (name === 'parameters' ? [] : [value as Operation])),
      );
      assert.equal(new Set(operations.map(({ operationId }) => operationId)).size, operations.length);
      for (const { operationId, summary, responses } of operations) {
        assert.match(summary, /^[A-Z].*\.$/, operationId);
        assert.ok(responses.default?.content['application/problem+json'], operationId);
      }
      for (const [path, { parameters }] of Object.entries(document.paths)) {
        const inPath = ((parameters ?? []) as NonNullable<Operation['parameters']>).map(({ name }) => `{${name}}`);
        assert.deepEqual(inPath, path.match(/\{\w+\}/g) ?? [], path);
      }
      const text = JSON.stringify(document);
      for (const [, name = ''] of text.matchAll(/"#\/components\/schemas\/(\w+)"/g)) {
        assert.ok(document.components.schemas[name], name);
      }
    });
  });
}

it('will not serve what it does not document', () => {
  const routes = [{ method: 'GET', path: '/v1/secrets' }];
  assert.throws(() => makeOpenApi({ title: 'x', routes }), /GET \/v1\/secrets: served, and not documented/);
});

function serverOf(sidecar: { readonly socketPath: string; readonly controlPath: string }, who: Who): string {
  return who === 'client' ? sidecar.socketPath : sidecar.controlPath;
}

async function send(
  socketPath: string,
  method: string,
  path: string,
  signal: AbortSignal,
  body?: object,
): Promise<IncomingMessage> {
  const headers = body === undefined ? {} : { 'content-type': 'application/json' };
  const request = openRequest({ socketPath, method: method.toUpperCase(), path, headers, signal, agent: false });
  request.end(body === undefined ? undefined : JSON.stringify(body));
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  request.on('error', () => undefined);
  response.on('error', () => undefined);
  return response;
}

async function textOf(response: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of response) text += String(chunk);
  return text;
}

async function documentOf(socketPath: string, signal: AbortSignal): Promise<Document> {
  return JSON.parse(await textOf(await send(socketPath, 'get', '/openapi.json', signal))) as Document;
}
