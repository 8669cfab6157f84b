import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type IncomingMessage, request as openRequest } from 'node:http';
import { describe, it } from 'node:test';
import type { Delivery, Output } from '../../../src/core/ports.ts';
import { decodeEvents, type WireEvent } from '../../../src/intake/socket-wire.ts';
import { aRunView, isLost, openSidecar } from '../../support/scripted-sidecar.ts';
import { until } from '../../support/until.ts';
import { makeVirtualClock } from '../../support/virtual-clock.ts';

const PRE = { version: 1, id: 'request-1', operation: 'backup', state: 'pre', lease: 'held' };

describe('a signal over the socket', () => {
  it('hands the request on as it was parsed, and answers in lines of JSON', async ({ signal }) => {
    await using sidecar = await openSidecar({});
    const body = { ...PRE, job: 'nightly', params: { path: '/data' }, wait: '5m', leaseId: 'mine' };
    const response = await post(sidecar.socketPath, body, signal);
    assert.equal(response.statusCode, 200);
    assert.equal(response.headers['content-type'], 'application/x-ndjson');
    assert.deepEqual(await all(response), [
      { type: 'accepted', id: 'request-1' },
      { type: 'answer', answer: { exitCode: 0, runId: 'run-1', notes: [] } },
    ]);
    assert.deepEqual(sidecar.seen[0]?.request, {
      ...{ id: 'request-1', client: 'default', operation: 'backup', state: 'pre', job: 'nightly', lease: 'held' },
      ...{ params: { PATH: '/data' }, waitMs: 300_000, outcome: 'success' },
    });
    assert.equal(sidecar.seen[0]?.sender.ref, 'socket/default/lease/mine');
  });

  it('makes an id for those who send none', async ({ signal }) => {
    await using sidecar = await openSidecar({});
    for (const _ of [1, 2]) await all(await post(sidecar.socketPath, { operation: 'backup', state: 'post' }, signal));
    const [one, two] = sidecar.seen.map(({ request }) => request.id);
    assert.match(one ?? '', /^[0-9a-f-]{36}$/);
    assert.notEqual(one, two);
  });

  it('streams output while the hook runs, whole and apart', async ({ signal }) => {
    const bytes = Buffer.from(Array.from({ length: 300_000 }, (_, index) => (index * 7) % 256));
    const heard = Promise.withResolvers<void>();
    await using sidecar = await openSidecar({
      async script({ output, answer }) {
        await output({ stream: 'err', bytes: Buffer.from('begun') });
        await heard.promise; // the hook goes on only once its first word was read
        await output({ stream: 'out', bytes });
        await answer({ exitCode: 3, message: 'backup pre: hook x exited 3', notes: ['odd'] });
      },
    });
    const events: WireEvent[] = [];
    for await (const event of decodeEvents(await post(sidecar.socketPath, PRE, signal))) {
      events.push(event);
      if (event.type === 'output') heard.resolve();
    }
    const outputs = events.flatMap((event) => (event.type === 'output' ? [event.output] : []));
    assert.equal(textOf(outputs, 'err').toString(), 'begun');
    assert.deepEqual(textOf(outputs, 'out'), bytes);
    const answer = { exitCode: 3, message: 'backup pre: hook x exited 3', notes: ['odd'] };
    assert.deepEqual(events.at(-1), { type: 'answer', answer });
  });

  it('answers once, whatever the daemon says after that', async ({ signal }) => {
    await using sidecar = await openSidecar({
      async script({ output, answer }) {
        await answer({ exitCode: 1, notes: [] });
        await answer({ exitCode: 2, notes: [] });
        await output({ stream: 'out', bytes: Buffer.from('late') });
      },
    });
    const events = await all(await post(sidecar.socketPath, PRE, signal));
    assert.deepEqual(events.slice(1), [{ type: 'answer', answer: { exitCode: 1, notes: [] } }]);
  });

  it('is withdrawn when its client leaves before anybody took it up', async ({ signal }) => {
    await using sidecar = await openSidecar({ deaf: true });
    const leaving = new AbortController();
    const gone = assert.rejects(post(sidecar.socketPath, { ...PRE, leaseId: 'mine' }, leaving.signal));
    await until(() => sidecar.parsed.length > 0, { what: 'the request', signal });
    leaving.abort();
    await gone;
    await sidecar.intake().lease('socket/default/lease/mine')?.lost(signal);

    void sidecar.hear();
    await all(await post(sidecar.socketPath, { ...PRE, id: 'request-2' }, signal));
    assert.deepEqual(sidecar.parsed, ['request-1', 'request-2']);
    assert.deepEqual(
      sidecar.seen.map(({ request }) => request.id),
      ['request-2'],
    );
  });

  it('is not taken up, nor refused, by a sidecar that ends: its client asks the next one', async ({ signal }) => {
    await using sidecar = await openSidecar({ deaf: true });
    const broken = assert.rejects(post(sidecar.socketPath, PRE, signal), { code: 'ECONNRESET' });
    await until(() => sidecar.parsed.length > 0, { what: 'the request', signal });
    await sidecar.stop();
    await broken;
    assert.deepEqual(sidecar.seen, []);
    const ended = new AbortController();
    ended.abort(new Error('over'));
    await sidecar.start();
    for await (const delivery of sidecar.intake().deliveries(ended.signal)) assert.fail(delivery.request.id);
  });

  it('holds a hook up while its client does not read, and lets it go on when it does', async ({ signal }) => {
    let written = 0;
    await using sidecar = await openSidecar({
      async script({ output, answer }) {
        for (; written < 64; written += 1) await output({ stream: 'out', bytes: Buffer.alloc(65_536, 'x') });
        await answer({ exitCode: 0, notes: [] });
      },
    });
    const response = await post(sidecar.socketPath, PRE, signal);
    await until(() => written > 0, { what: 'the first output', signal });
    let before = -1;
    await until(
      () => {
        const isStill = written === before;
        before = written;
        return isStill;
      },
      { what: 'the hook to wait', signal, everyMs: 200 },
    );
    assert.ok(written < 40, `${written} pieces of 64 KiB went nowhere`);
    const events = await all(response);
    assert.equal(events.filter(({ type }) => type === 'output').length, 64);
    assert.equal(events.at(-1)?.type, 'answer');
  });

  it('drops output, and says how much, when the client has not read for five minutes', async ({ signal }) => {
    const clock = makeVirtualClock();
    const done = Promise.withResolvers<void>();
    let total = 0;
    await using sidecar = await openSidecar({
      clock,
      async script({ output, answer }) {
        for (let turn = 0; turn < 64; turn += 1) await output({ stream: 'out', bytes: Buffer.alloc(65_536, 'x') });
        total = 64 * 65_536;
        done.resolve();
        await answer({ exitCode: 0, notes: [] });
      },
    });
    const response = await post(sidecar.socketPath, PRE, signal);
    await done.promise; // although nobody reads
    assert.ok(clock.monotonicMs() >= 300_000);
    const events = await all(response);
    const arrived = events.reduce(
      (sum, event) => sum + (event.type === 'output' ? event.output.bytes.byteLength : 0),
      0,
    );
    const dropped = events.reduce((sum, event) => sum + (event.type === 'dropped' ? event.bytes : 0), 0);
    assert.ok(dropped > 0);
    assert.equal(arrived + dropped, total);
    assert.equal(events.at(-1)?.type, 'answer');
  });
});

describe('a lease over the socket', () => {
  it('is the connection of its request, while there is no other', async ({ signal }) => {
    await using sidecar = await openSidecar({ script: () => undefined });
    const leaving = new AbortController();
    await post(sidecar.socketPath, PRE, leaving.signal);
    const { sender } = await sidecar.requested('pre');
    assert.equal(await isLost(sender), false);
    leaving.abort();
    await sender.lost(signal);
  });

  it('outlives requests that break off, as long as its own connection is open', async ({ signal }) => {
    await using sidecar = await openSidecar({ script: () => undefined });
    const lease = await open(sidecar.socketPath, '/v1/leases/mine', signal);
    const leaving = new AbortController();
    const response = await post(sidecar.socketPath, { ...PRE, leaseId: 'mine' }, leaving.signal);
    const { sender } = await sidecar.requested('pre');
    leaving.abort();
    await once(response, 'close').catch(() => undefined);
    assert.equal(await isLost(sender), false);
    lease.destroy();
    await sender.lost(signal);
  });

  it('tells who keeps it that the run was given up', async ({ signal }) => {
    await using sidecar = await openSidecar({});
    const lease = await open(sidecar.socketPath, '/v1/leases/mine', signal);
    const events = decodeEvents(lease);
    assert.deepEqual((await events.next()).value, { type: 'leased' });
    sidecar.intake().lease('socket/default/lease/mine')?.abandon?.('it held for too long');
    assert.deepEqual((await events.next()).value, { type: 'abandoned', why: 'it held for too long' });
  });

  it('is taken over by /v1/runs/{id}/lease, which ends with its connection', async ({ signal }) => {
    await using sidecar = await openSidecar({});
    await all(await post(sidecar.socketPath, PRE, signal));
    const { sender } = await sidecar.requested('pre');
    assert.equal(await isLost(sender), false);
    sidecar.runs.set('run-1', aRunView({ leaseRef: sender.ref }));
    const lease = await open(sidecar.socketPath, '/v1/runs/run-1/lease', signal);
    assert.deepEqual((await decodeEvents(lease).next()).value, { type: 'leased' });
    lease.destroy();
    await sender.lost(signal);
  });

  it('shows nobody the lease of another client, nor of a run that is over or came another way', async ({ signal }) => {
    await using sidecar = await openSidecar({});
    sidecar.runs.set('foreign', aRunView({ id: 'foreign', client: 'other', leaseRef: 'socket/other/lease/x' }));
    sidecar.runs.set('spooled', aRunView({ id: 'spooled', leaseRef: 'spool/default/x' }));
    sidecar.runs.set('over', aRunView({ id: 'over', phase: 'closed' }));
    const statusOf = async (id: string) => (await open(sidecar.socketPath, `/v1/runs/${id}/lease`, signal)).statusCode;
    assert.deepEqual([await statusOf('foreign'), await statusOf('none')], [404, 404]);
    assert.deepEqual([await statusOf('spooled'), await statusOf('over')], [409, 409]);
  });

  it('survives a restart of the sidecar when its client comes back, and not when it does not', async ({ signal }) => {
    await using sidecar = await openSidecar({ leaseTtlMs: 400 });
    const lease = await open(sidecar.socketPath, '/v1/leases/mine', signal);
    await all(await post(sidecar.socketPath, { ...PRE, leaseId: 'mine' }, signal));
    const before = (await sidecar.requested('pre')).sender;
    await sidecar.stop();
    assert.equal(await isLost(before), false);
    lease.destroy();

    await sidecar.start();
    const [mine, other] = ['mine', 'other'].map((id) => sidecar.intake().lease(`socket/default/lease/${id}`));
    assert.ok(mine && other);
    const isMineLost = mine.lost(signal).then(() => true);
    const again = await open(sidecar.socketPath, '/v1/leases/mine', signal);
    await other.lost(signal);
    assert.equal(await isLost(mine), false);
    again.destroy();
    assert.equal(await isMineLost, true);
  });

  it('knows its own refs alone', async () => {
    await using sidecar = await openSidecar({});
    const request = { ...aRequest(), id: 'x' };
    assert.equal(sidecar.intake().lease('spool/default/x'), undefined);
    assert.equal(sidecar.intake().reopen(request, 'socket/other/lease/x'), undefined);
    const reopened = sidecar.intake().reopen(request, 'socket/default/request/x');
    assert.equal(reopened?.sender.ref, 'socket/default/request/x');
    await reopened?.output({ stream: 'out', bytes: Buffer.from('to nobody') });
    await reopened?.answer({ exitCode: 0, notes: [] });
  });
});

describe('what a client may look at', () => {
  it('is its own runs, without what is ours alone', async ({ signal }) => {
    await using sidecar = await openSidecar({});
    sidecar.runs.set('foreign', aRunView({ id: 'foreign', client: 'other' }));
    const { leaseRef: _, ...shown } = aRunView();
    assert.deepEqual(await json(await open(sidecar.socketPath, '/v1/runs', signal)), { runs: [shown] });
    assert.deepEqual(await json(await open(sidecar.socketPath, '/v1/runs/run-1', signal)), shown);
    assert.equal((await open(sidecar.socketPath, '/v1/runs/foreign', signal)).statusCode, 404);
  });

  it('is neither the status nor a release; the operator has both, and all runs', async ({ signal }) => {
    const released: unknown[] = [];
    await using sidecar = await openSidecar({
      views: {
        async release(which) {
          released.push(which);
          return { exitCode: 74, message: 'db is not healthy', notes: [] };
        },
      },
    });
    sidecar.runs.set('foreign', aRunView({ id: 'foreign', client: 'other' }));
    assert.equal((await open(sidecar.socketPath, '/v1/status', signal)).statusCode, 404);
    assert.equal((await post(sidecar.socketPath, { all: true }, signal, '/v1/release')).statusCode, 404);
    assert.deepEqual(released, []);

    const { runs } = (await json(await open(sidecar.controlPath, '/v1/runs', signal))) as { runs: { id: string }[] };
    assert.deepEqual(
      runs.map(({ id }) => id),
      ['run-1', 'foreign'],
    );
    const answer = await json(await post(sidecar.controlPath, { all: true }, signal, '/v1/release'));
    assert.deepEqual(answer, { exitCode: 74, message: 'db is not healthy', notes: [] });
    await json(await post(sidecar.controlPath, { run: 'run-1' }, signal, '/v1/release'));
    assert.deepEqual(released, [{ all: true }, { runId: 'run-1' }]);
    for (const body of [{}, { all: false }, { all: true, run: 'x' }, { run: '../x' }, { run: 'x', now: 1 }, []]) {
      assert.equal((await post(sidecar.controlPath, body, signal, '/v1/release')).statusCode, 422);
    }
    assert.equal(released.length, 2);
  });

  it('says by status whether the daemon is healthy', async ({ signal }) => {
    let why: string[] = [];
    await using sidecar = await openSidecar({ views: { health: async () => ({ ok: why.length === 0, why }) } });
    assert.equal((await open(sidecar.socketPath, '/healthz', signal)).statusCode, 200);
    why = ['the engine is away'];
    const response = await open(sidecar.controlPath, '/healthz', signal);
    assert.equal(response.statusCode, 503);
    assert.deepEqual(await json(response), { ok: false, why });
  });
});

function aRequest(): Delivery['request'] {
  const fields = { operation: 'backup', state: 'post', job: 'default', params: {}, waitMs: 0 } as const;
  return { id: 'request-1', client: 'default', ...fields, lease: 'held', outcome: 'success' };
}

function open(socketPath: string, path: string, signal: AbortSignal): Promise<IncomingMessage> {
  return send(socketPath, { method: 'GET', path }, signal);
}

function post(socketPath: string, body: object, signal: AbortSignal, path = '/v1/signals'): Promise<IncomingMessage> {
  const headers = { 'content-type': 'application/json; charset=utf-8' };
  return send(socketPath, { method: 'POST', path, headers }, signal, JSON.stringify(body));
}

async function send(socketPath: string, options: object, signal: AbortSignal, body?: string): Promise<IncomingMessage> {
  const request = openRequest({ socketPath, agent: false, signal, ...options });
  request.end(body);
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  request.on('error', () => undefined);
  response.on('error', () => undefined);
  return response;
}

function all(response: IncomingMessage): Promise<WireEvent[]> {
  return collect(decodeEvents(response));
}

async function json(response: IncomingMessage): Promise<unknown> {
  return JSON.parse(Buffer.concat(await collect<Buffer>(response)).toString());
}

function textOf(outputs: readonly Output[], stream: Output['stream']): Buffer {
  return Buffer.concat(outputs.filter((output) => output.stream === stream).map(({ bytes }) => bytes));
}

async function collect<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const found: Item[] = [];
  for await (const item of items) found.push(item);
  return found;
}
