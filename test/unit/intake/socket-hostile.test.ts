import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { openSidecar } from '../../support/scripted-sidecar.ts';
import { until } from '../../support/until.ts';

const SIGNAL = JSON.stringify({ operation: 'backup', state: 'post' });

describe('hostile and broken requests', () => {
  const cases: readonly (readonly [
    what: string,
    sent: string | Buffer,
    status: number,
    detail: RegExp,
    code?: string,
  ])[] = [
    ['an unknown path', get('/v2/signals'), 404, /^path \/v2\/signals: not known/],
    ['a path with a way out of it', get('/v1/runs/../../etc'), 404, /not known/],
    ['an escaped way out', get('/v1/runs/%2e%2e'), 404, /not known/],
    ['a very long path', get(`/${'x'.repeat(4000)}`), 404, /^path \/x{76}\.\.\.: not known/],
    ['a whole URL', get('http://169.254.169.254/v1/runs'), 404, /not known/],
    ['an unknown method', request('DELETE /v1/runs'), 405, /^method DELETE: expected GET/],
    ['a wrong method', get('/v1/signals'), 405, /^method GET: expected POST/],
    ['a proxy request', request('CONNECT 127.0.0.1:22'), 405, /^method CONNECT/],
    [
      'an unknown query',
      get('/v1/plan?operation=backup&verbose=1'),
      422,
      /^query verbose: expected operation, state, job/,
    ],
    ['a query said twice', get('/v1/plan?operation=backup&operation=restore'), 422, /^query operation: expected once/],
    ['a query where none belongs', get('/v1/runs?all=1'), 422, /^query all: expected none/],
    [
      'a plan of what is not allowed',
      get('/v1/plan?operation=format'),
      403,
      /^operation format: not allowed/,
      'refused',
    ],
    ['a plan of nothing', get('/v1/plan'), 422, /^operation: expected/],
    ['no content type', post(SIGNAL, []), 415, /^content-type: expected application\/json, got none/],
    ['a form', post(SIGNAL, ['content-type: application/x-www-form-urlencoded']), 415, /^content-type/],
    ['a zipped body', post(SIGNAL, [jsonType(), 'content-encoding: gzip']), 415, /^content-encoding/],
    ['no JSON', post('operation=backup'), 400, /^body: expected JSON in UTF-8/],
    ['no body', post(''), 400, /^body: expected JSON/],
    ['no UTF-8', post(Buffer.from([0x22, 0xff, 0x22])), 400, /^body: expected JSON in UTF-8/],
    ['JSON that is no object', post('[]'), 422, /^body: expected an object/],
    ['JSON null', post('null'), 422, /^body: expected an object/],
    [
      'an unknown field',
      post('{"operation":"backup","state":"pre","shell":"rm"}'),
      422,
      /^shell: expected no such field/,
    ],
    ['a field of the prototype', post('{"operation":"backup","state":"pre","__proto__":{}}'), 422, /^__proto__/],
    ['a lease with a slash', post('{"operation":"backup","state":"pre","leaseId":"../x"}'), 422, /^leaseId: expected/],
    ['a lease that is a number', post('{"operation":"backup","state":"pre","leaseId":7}'), 422, /^leaseId: expected/],
    ['a version to come', post('{"version":2,"operation":"backup","state":"pre"}'), 422, /^version: expected 1/],
    ['an operation not allowed', post('{"operation":"format","state":"pre"}'), 403, /not allowed/, 'refused'],
    [
      'a body over the limit, announced',
      post('', [jsonType(), 'content-length: 65537']),
      413,
      /^body: expected at most 65536/,
    ],
    ['a body over the limit, in pieces', chunked(70_000), 413, /^body: expected at most 65536/],
    ['headers over the limit', get('/healthz', [`x: ${'y'.repeat(20_000)}`]), 431, /^headers: expected at most/],
    [
      'two lengths',
      post(SIGNAL, [jsonType(), 'content-length: 5', 'content-length: 6']),
      400,
      /^request: expected HTTP/,
    ],
    ['length and pieces', post(SIGNAL, [jsonType(), 'transfer-encoding: chunked']), 400, /^request: expected HTTP/],
    ['binary junk', Buffer.from([0, 1, 2, 0xff, 0xfe, 13, 10, 13, 10]), 400, /^request: expected HTTP/],
    ['a TLS client', Buffer.from('16030100a5010000a10303', 'hex'), 400, /^request: expected HTTP/],
    ['another protocol', 'SSH-2.0-OpenSSH_9.2\r\n', 400, /^request: expected HTTP/],
  ];
  for (const [what, sent, status, detail, code = 'invalid-request'] of cases) {
    it(`gets a problem document for ${what}`, async ({ signal }) => {
      await using sidecar = await openSidecar({});
      const answer = await talk(sidecar.socketPath, sent, signal);
      const [head = '', body = ''] = answer.split('\r\n\r\n');
      assert.match(head, new RegExp(`^HTTP/1\\.1 ${status} `));
      assert.match(head, /^content-type: application\/problem\+json$/im);
      const problem = JSON.parse(body) as Record<string, unknown>;
      assert.deepEqual(Object.keys(problem), ['type', 'title', 'status', 'detail', 'code', 'exitCode']);
      assert.match(String(problem.detail), detail);
      assert.equal(problem.status, status);
      assert.equal(problem.code, code);
      assert.equal(problem.exitCode, code === 'refused' ? 77 : 64);
      assert.equal(problem.type, `urn:sidehook:problem:${code}`);
      assert.deepEqual(sidecar.seen, []);
      await assertServes(sidecar.socketPath, signal);
    });
  }

  it('names the methods that there are', async ({ signal }) => {
    await using sidecar = await openSidecar({});
    assert.match(await talk(sidecar.socketPath, request('PUT /v1/signals'), signal), /^allow: POST$/im);
  });

  it('waits for no slow request for ever', async ({ signal }) => {
    await using sidecar = await openSidecar({ requestTermMs: 400 });
    for (const slow of [
      '',
      'GET /healthz HTT',
      `POST /v1/signals HTTP/1.1\r\n${jsonType()}\r\ncontent-length: 50\r\n\r\n{`,
    ]) {
      const connection = await connected(sidecar.socketPath, signal);
      connection.write(slow);
      const answer = await textUntilClose(connection);
      if (slow !== '') assert.match(answer, /^HTTP\/1\.1 408 /);
    }
    await assertServes(sidecar.socketPath, signal);
  });

  it('serves others while one client sends slowly and another one reads nothing', async ({ signal }) => {
    await using sidecar = await openSidecar({
      async script({ output, request: { id }, answer }) {
        for (let turn = 0; id === 'deaf' && turn < 64; turn += 1) {
          await output({ stream: 'out', bytes: Buffer.alloc(65_536) });
        }
        await answer({ exitCode: 0, notes: [] });
      },
    });
    const slow = await connected(sidecar.socketPath, signal);
    slow.write('POST /v1/signals HTTP/1.1\r\n');
    const deaf = await connected(sidecar.socketPath, signal);
    deaf.pause();
    deaf.write(post('{"id":"deaf","operation":"backup","state":"post"}'));
    await until(() => sidecar.seen.length === 1, { what: 'the deaf one', signal });
    await assertServes(sidecar.socketPath, signal);
    for (const connection of [slow, deaf]) connection.destroy();
  });

  it('does no request that is sent before the one before it was answered', async ({ signal }) => {
    await using sidecar = await openSidecar({ script: () => undefined });
    const [one, two] = ['one', 'two'].map((id) => {
      const text = post(JSON.stringify({ id, operation: 'backup', state: 'pre' })).toString();
      return text.replace('connection: close', 'connection: keep-alive');
    });
    await talk(sidecar.socketPath, `${one}${two}`, signal);
    assert.ok(!sidecar.parsed.includes('two'));
    await assertServes(sidecar.socketPath, signal);
  });

  it('counts who hangs up after a request as gone, and lives on', async ({ signal }) => {
    await using sidecar = await openSidecar({ script: () => undefined });
    const connection = await connected(sidecar.socketPath, signal);
    connection.end(post(JSON.stringify({ operation: 'backup', state: 'pre', leaseId: 'mine' })));
    await until(() => sidecar.parsed.length > 0, { what: 'the request', signal });
    await sidecar.intake().lease('socket/default/lease/mine')?.lost(signal);
  });

  it('lives on when a body breaks off in the middle', async ({ signal }) => {
    await using sidecar = await openSidecar({});
    const half = post(SIGNAL).subarray(0, -5);
    for (const leave of ['destroy', 'end'] as const) {
      const connection = await connected(sidecar.socketPath, signal);
      connection.on('error', () => undefined);
      await new Promise((resolve) => connection.write(half, resolve));
      if (leave === 'end') connection.end();
      else connection.destroy();
    }
    await assertServes(sidecar.socketPath, signal);
    assert.deepEqual(sidecar.seen, []);
  });

  it('bounds how many connections there are, and serves again when they are gone', async ({ signal }) => {
    await using sidecar = await openSidecar({});
    const connections = await Promise.all(Array.from({ length: 256 }, () => connected(sidecar.socketPath, signal)));
    const extra = await connected(sidecar.socketPath, signal);
    extra.write(get('/healthz'));
    assert.equal(await textUntilClose(extra), '');
    for (const connection of connections) connection.destroy();
    await until(
      () =>
        assertServes(sidecar.socketPath, signal).then(
          () => true,
          () => false,
        ),
      { what: 'a free place', signal },
    );
  });

  it('outlives whatever bytes come', async ({ signal }) => {
    await using sidecar = await openSidecar({});
    const anyBytes = fc.oneof(
      fc.uint8Array({ minLength: 1, maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
      fc.string({ unit: 'binary', maxLength: 200 }).map((body) => Buffer.from(post(Buffer.from(body)))),
      fc.json({ maxDepth: 3 }).map((body) => Buffer.from(post(body))),
    );
    await fc.assert(
      fc.asyncProperty(anyBytes, async (bytes) => {
        const connection = await connected(sidecar.socketPath, signal);
        connection.on('error', () => undefined);
        connection.end(bytes);
        const answer = await textUntilClose(connection);
        assert.match(answer, /^(HTTP\/1\.1 4\d\d |$)/);
      }),
      { numRuns: 200 },
    );
    assert.deepEqual(sidecar.seen, []);
    await assertServes(sidecar.socketPath, signal);
  });
});

function jsonType(): string {
  return 'content-type: application/json';
}

function request(line: string, headers: readonly string[] = []): string {
  return `${line} HTTP/1.1\r\n${['connection: close', ...headers].join('\r\n')}\r\n\r\n`;
}

function get(path: string, headers: readonly string[] = []): string {
  return request(`GET ${path}`, headers);
}

function post(body: string | Buffer, headers: readonly string[] = [jsonType()]): Buffer {
  const hasLength = headers.some((header) => header.startsWith('content-length'));
  const all = hasLength ? headers : [...headers, `content-length: ${Buffer.byteLength(body)}`];
  return Buffer.concat([Buffer.from(request('POST /v1/signals', all)), Buffer.from(body)]);
}

function chunked(size: number): string {
  const head = request('POST /v1/signals', [jsonType(), 'transfer-encoding: chunked']);
  return `${head}${size.toString(16)}\r\n${' '.repeat(size)}\r\n0\r\n\r\n`;
}

async function connected(socketPath: string, signal: AbortSignal): Promise<Socket> {
  const connection = createConnection({ path: socketPath, signal });
  await once(connection, 'connect');
  return connection;
}

async function talk(socketPath: string, sent: string | Buffer, signal: AbortSignal): Promise<string> {
  const connection = await connected(socketPath, signal);
  connection.on('error', () => undefined);
  connection.write(sent);
  return textUntilClose(connection);
}

function textUntilClose(connection: Socket): Promise<string> {
  return new Promise((resolve) => {
    let text = '';
    connection.on('error', () => undefined);
    connection.on('data', (chunk) => {
      text += chunk.toString();
    });
    connection.once('close', () => resolve(text));
  });
}

async function assertServes(socketPath: string, signal: AbortSignal): Promise<void> {
  assert.match(await talk(socketPath, get('/healthz'), signal), /^HTTP\/1\.1 200 /);
}
