/** `sidehook recover`, as it is run in a cluster: a program of its own, over the scripted API server. */
import assert from 'node:assert/strict';
import { mkdtemp } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { type ApiServer, openApiServer } from '../support/api-server.ts';
import { startCli } from '../support/cli.ts';
import { until } from '../support/until.ts';
import { writeKubeconfig } from './kubernetes-bench.ts';
import { openNamespace } from './kubernetes-sidehook.ts';

const SLOW_MS = 170_000;

async function recover(server: ApiServer, dir: string, ...args: readonly string[]) {
  const place = await mkdtemp(join(dir, 'recover-'));
  const env = {
    KUBECONFIG: await writeKubeconfig(server, place, 'recover'),
    SIDEHOOK_ENGINE: 'kubernetes',
    SIDEHOOK_STATE_DIR: join(place, 'state'),
    SIDEHOOK_RUN_DIR: join(place, 'run'),
    SIDEHOOK_HOOKS_DIR: join(place, 'hooks'),
  };
  await using cli = startCli(['recover', ...args], env);
  return { exitCode: await cli.ended, out: cli.out(), err: cli.err() };
}

/** A namespace in which a restore of job `shop` has failed, whose pod is gone by now. */
async function openFailed() {
  await using stack = new AsyncDisposableStack();
  const server = stack.use(await openApiServer());
  const namespace = stack.use(await openNamespace(server));
  server.addController('deployments', 'web', { replicas: 2, annotations: { 'sidehook.io/hold': 'scale' } });
  await until(() => server.get('deployments', 'web')?.status.readyReplicas === 2, { what: 'web to be ready' });
  const one = await namespace.start('one');
  const { runId = '' } = (await one.signal('pre', { operation: 'restore', job: 'shop' })) ?? {};
  await one.signal('started', { operation: 'restore', job: 'shop', runId });
  await one.signal('post', { operation: 'restore', job: 'shop', runId, outcome: 'failure' });
  await one.lose();
  assert.equal(server.get('deployments', 'web')?.spec.replicas, 0);
  const owned = stack.move();
  return { server, dir: namespace.dir, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

describe('recovery in a cluster, after a restore that failed', () => {
  it('leaves held what it keeps, and says how that ends', { timeout: SLOW_MS }, async () => {
    await using failed = await openFailed();
    const { exitCode, out, err } = await recover(failed.server, failed.dir, '--release', 'other');
    assert.equal(exitCode, 74, out + err);
    assert.match(out + err, /a restore failed: deployment\/web stay held until sidehook recover --release JOB/);
    assert.equal(failed.server.get('deployments', 'web')?.spec.replicas, 0);
  });

  it('releases it when its job is named', { timeout: SLOW_MS }, async () => {
    await using failed = await openFailed();
    const { exitCode, out, err } = await recover(failed.server, failed.dir, '--release', 'shop');
    assert.equal(exitCode, 0, out + err);
    assert.match(out + err, /deployment\/web: running/);
    assert.equal(failed.server.get('deployments', 'web')?.spec.replicas, 2);
    assert.deepEqual(failed.server.all('leases'), []);
  });
});
