import assert from 'node:assert/strict';
import { mkdtempDisposable } from 'node:fs/promises';
import { createServer, type IncomingMessage, type RequestListener } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { OperationalError } from '../../src/core/errors.ts';
import { exitCodeOf } from '../../src/core/result.ts';
import { type Api, openApi } from '../../src/drivers/docker-api.ts';
import { exec } from '../../src/drivers/docker-exec.ts';
import { aCall } from './contract.ts';

/** What stands between us and an engine, or passes for one. */
async function openImpostor(listener: RequestListener) {
  await using stack = new AsyncDisposableStack();
  const dir = stack.use(await mkdtempDisposable(join(tmpdir(), 'impostor-')));
  const path = join(dir.path, 'docker.sock');
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(path, resolve));
  stack.defer(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  const api = stack.adopt(await openApi(`unix://${path}`), (one) => one.close());
  const owned = stack.move();
  return { api, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

const asked = (api: Api, signal: AbortSignal, more = {}) =>
  api.ask({
    doing: 'stop container db',
    method: 'POST',
    path: '/containers/1/stop',
    query: { t: '1' },
    signal,
    ...more,
  });

async function failure(call: Promise<unknown>): Promise<OperationalError> {
  const error = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof OperationalError, String(error));
  return error;
}

describe('a hook that an engine does not begin before its time is over', () => {
  const call = aCall({ key: 'app/db/1', instance: '1', name: 'db' }, { kind: 'shell', line: 'true' });
  const container = JSON.stringify({ Id: '1', State: { Running: true } });

  for (const answered of ['nothing', 'that its container runs']) {
    it(`is not timed out, but still owed (69): it answered ${answered}`, async () => {
      const isDeaf = (request: IncomingMessage) => answered === 'nothing' || request.method === 'POST';
      await using impostor = await openImpostor(
        (request, response) => void (isDeaf(request) || response.end(container)),
      );
      const late = new AbortController();
      setTimeout(() => late.abort(new DOMException('out of time', 'TimeoutError')), 300);
      const executor = { api: impostor.api, log: undefined };
      const outcome = await exec(executor, call, async () => undefined, late.signal);
      assert.equal(outcome.status, 'broken', JSON.stringify(outcome));
      assert.equal(exitCodeOf(outcome), 69);
    });
  }
});

describe('what the engine answers', () => {
  const answers = [
    [404, '{"message":"No such container: db"}', 'workload-failed', /^stop container db: No such container: db$/],
    [409, '{"message":"it is paused"}', 'workload-failed', /it is paused/],
    [500, '{"message":"cannot kill it"}', 'workload-failed', /cannot kill it/],
    [500, '', 'engine-unavailable', /500/],
    [502, '<html>Bad Gateway</html>', 'engine-unavailable', /502/],
    [503, '{"message":"no server is available"}', 'engine-unavailable', /503: no server is available/],
    [403, '<html>Forbidden</html>', 'refused', /ALLOW_STOP=1/],
  ] as const;
  for (const [status, body, code, says] of answers) {
    it(`is understood: ${status} ${body}`, async ({ signal }) => {
      await using impostor = await openImpostor((_, response) => response.writeHead(status).end(body));
      const error = await failure(asked(impostor.api, signal));
      assert.equal(error.code, code);
      assert.match(error.message, says);
    });
  }

  it('is handed on where its caller can make sense of it', async ({ signal }) => {
    await using impostor = await openImpostor((request, response) => {
      response.writeHead(request.method === 'POST' && request.url === '/containers/1/stop?t=1' ? 304 : 400).end();
    });
    assert.equal((await asked(impostor.api, signal)).status, 304);
    assert.equal((await asked(impostor.api, signal, { path: '/elsewhere', accept: [400] })).status, 400);
  });

  it('is an outage when it breaks off, stays away or is no HTTP at all', async ({ signal }) => {
    await using cut = await openImpostor((request, response) => {
      response.writeHead(200, { 'Content-Length': '100' }).write('[{"Id":');
      setImmediate(() => request.socket.destroy());
    });
    assert.equal((await failure(asked(cut.api, signal))).code, 'engine-unavailable');
    await using noise = await openImpostor(({ socket }) => void socket.end('what?\r\n\r\n'));
    assert.equal((await failure(asked(noise.api, signal))).code, 'engine-unavailable');
    await using silent = await openImpostor(() => undefined);
    const error = await failure(asked(silent.api, signal, { limitMs: 50 }));
    assert.equal(error.code, 'engine-unavailable');
    assert.match(error.message, /no answer in 0.05 s/);
  });

  it('is not waited for after an abort, in its middle neither', async () => {
    const reason = new Error('enough');
    for (const begins of [true, false]) {
      const cancel = new AbortController();
      await using slow = await openImpostor((_, response) => {
        if (begins) response.writeHead(200).write('[');
        setImmediate(() => cancel.abort(reason));
      });
      await assert.rejects(asked(slow.api, cancel.signal), reason);
    }
  });
});

describe('where the engine is', () => {
  it('is told, and what to do, when nobody is there', async ({ signal }) => {
    const nowhere = await failure(asked(await openApi('unix:///nowhere/docker.sock'), signal));
    assert.equal(nowhere.code, 'engine-unavailable');
    assert.match(nowhere.message, /unix:\/\/\/nowhere\/docker.sock.*mount it, or set DOCKER_HOST/);
    const closed = await failure(asked(await openApi('tcp://127.0.0.1:1'), signal));
    assert.match(closed.message, /tcp:\/\/127.0.0.1:1 .*nothing listens there/);
  });

  it('must be said in a way that makes sense', async () => {
    for (const host of ['', 'docker.sock', 'ssh://root@host', 'unix://', 'tcp://']) {
      const error = await failure(openApi(host));
      assert.equal(error.code, 'configuration');
      assert.match(error.message, /DOCKER_HOST/);
    }
    assert.equal((await failure(openApi('tcp://host:2376', '/nowhere'))).code, 'configuration');
  });
});
