/** The scripted API server is as strict as a real one: what it takes, a cluster takes. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type ApiServer, openApiServer } from '../support/api-server.ts';

const HEAD = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease' };
const SPEC = { holderIdentity: 'us', leaseDurationSeconds: 60, renewTime: '2026-11-25T03:00:00.000000Z' };

async function ask(server: ApiServer, method: string, name: string, body?: object): Promise<[number, string]> {
  const path = `/apis/coordination.k8s.io/v1/namespaces/${server.namespace}/leases${name}`;
  const response = await fetch(server.url + path, {
    method,
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  return [response.status, text];
}

describe('the scripted API server', () => {
  const refused: [why: string, status: number, body: object][] = [
    ['another kind', 400, { ...HEAD, kind: 'job', metadata: { name: 'one' }, spec: SPEC }],
    ['no kind', 400, { metadata: { name: 'one' }, spec: SPEC }],
    ['another version', 400, { ...HEAD, apiVersion: 'v1', metadata: { name: 'one' }, spec: SPEC }],
    ['a field that is unknown', 400, { ...HEAD, metadata: { name: 'one' }, spec: { ...SPEC, holder: 'us' } }],
    ['a field beside the spec', 400, { ...HEAD, metadata: { name: 'one' }, spec: SPEC, holder: 'us' }],
    ['a name that is none', 422, { ...HEAD, metadata: { name: 'One_' }, spec: SPEC }],
    ['no holder', 422, { ...HEAD, metadata: { name: 'one' }, spec: { ...SPEC, holderIdentity: '' } }],
    ['no length', 422, { ...HEAD, metadata: { name: 'one' }, spec: { ...SPEC, leaseDurationSeconds: 0.4 } }],
    ['another time', 422, { ...HEAD, metadata: { name: 'one' }, spec: { ...SPEC, renewTime: '2026-11-25' } }],
    ['too much', 422, { ...HEAD, metadata: { name: 'one', annotations: { a: 'x'.repeat(300_000) } }, spec: SPEC }],
    ['a version', 422, { ...HEAD, metadata: { name: 'one', resourceVersion: '1' }, spec: SPEC }],
  ];
  for (const [why, status, body] of refused) {
    it(`makes no Lease with ${why}`, async () => {
      await using server = await openApiServer();
      const [got, text] = await ask(server, 'POST', '', body);
      assert.equal(got, status, text);
      assert.deepEqual(server.all('leases'), []);
    });
  }

  it('writes nothing over that it was not shown', async () => {
    await using server = await openApiServer();
    assert.equal((await ask(server, 'POST', '', { ...HEAD, metadata: { name: 'one' }, spec: SPEC }))[0], 201);
    assert.equal((await ask(server, 'PUT', '/one', { ...HEAD, metadata: { name: 'one' }, spec: SPEC }))[0], 422);
    const metadata = { name: 'one', resourceVersion: '1' };
    assert.equal((await ask(server, 'PUT', '/one', { ...HEAD, metadata, spec: SPEC }))[0], 409);
    const { resourceVersion = '' } = server.get('leases', 'one')?.metadata ?? {};
    const other = { ...HEAD, metadata: { name: 'two', resourceVersion }, spec: SPEC };
    assert.equal((await ask(server, 'PUT', '/one', other))[0], 400);
    const same = { ...HEAD, metadata: { name: 'one', resourceVersion }, spec: { ...SPEC, holderIdentity: 'them' } };
    assert.equal((await ask(server, 'PUT', '/one', same))[0], 200);
  });

  it('does not say the kind of what it lists', async () => {
    await using server = await openApiServer();
    await ask(server, 'POST', '', { ...HEAD, metadata: { name: 'one' }, spec: SPEC });
    const { kind, items } = JSON.parse((await ask(server, 'GET', ''))[1]);
    assert.deepEqual([kind, items[0].kind, items[0].metadata.name], ['LeaseList', undefined, 'one']);
  });
});
