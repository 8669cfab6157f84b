/** Tokens that end in the middle: the kubelet writes new ones into the file in which they are. */
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { OperationalError } from '../../src/core/errors.ts';
import { openKubernetes } from '../../src/drivers/kubernetes.ts';
import { aCall, runToEnd } from '../drivers/contract.ts';
import { until } from '../support/until.ts';
import { openNamespace, SLOW_MS } from './namespace.ts';
import { aWorkload } from './objects.ts';

const LONG_MS = 15 * 60_000;
const ACCOUNT = 'nightly-sidehook';

/** A Deployment, a driver with the rights that the chart gives, and its token, which can be taken away. */
async function openBench() {
  await using opened = new AsyncDisposableStack();
  const space = opened.use(await openNamespace('credentials'));
  await space.install(ACCOUNT, { backup: { command: ['true'] } });
  await space.apply(aWorkload('Deployment', 'db'));
  await space.kubectl('rollout', 'status', 'deployment/db', `--timeout=${SLOW_MS}ms`);
  const dir = await mkdtemp(join(tmpdir(), 'sidehook-credentials-'));
  opened.defer(() => rm(dir, { recursive: true, force: true }));
  const tokenFile = join(dir, 'token');
  /** A token that lasts as long as a Secret does. */
  async function issue(name: string): Promise<void> {
    await space.apply({ apiVersion: 'v1', kind: 'Secret', metadata: { name } });
    const bound = ['--bound-object-kind=Secret', `--bound-object-name=${name}`];
    await writeFile(tokenFile, await space.kubectl('create', 'token', ACCOUNT, ...bound));
  }
  /** The server goes by what it remembers for some seconds. */
  async function revoke(name: string): Promise<void> {
    const token = await readFile(tokenFile, 'utf8');
    await space.kubectl('delete', 'secret', name);
    const anonymous = ['--kubeconfig=/dev/null', `--server=${cluster.server}`, '--insecure-skip-tls-verify'];
    const isRefused = async () =>
      (await space.tryKubectl(...anonymous, `--token=${token}`, 'get', 'pods')).all.includes('Unauthorized');
    await until(isRefused, { what: 'the token to be refused', deadlineMs: SLOW_MS, everyMs: 500 });
  }
  const config = JSON.parse(await readFile(process.env.KUBECONFIG ?? '', 'utf8'));
  const { cluster } = config.clusters[0];
  config.contexts[0].context.namespace = space.name;
  // As a service account has it.
  config.users[0].user = { 'auth-provider': { name: 'tokenFile', config: { tokenFile } } };
  await writeFile(join(dir, 'kubeconfig'), JSON.stringify(config));
  await issue('first');
  const env = { KUBECONFIG: join(dir, 'kubeconfig') };
  const driver = opened.use(openKubernetes({ env, stateDir: join(dir, 'state') }));
  const { metadata } = await space.get('deployment', 'db');
  const workload = { key: 'deployment/db', instance: metadata.uid, name: 'deployment/db' };
  const owned = opened.move();
  return { space, driver, workload, issue, revoke, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

describe('a token that ends in the middle', { timeout: LONG_MS, concurrency: 2 }, () => {
  it('is a refusal until there is a new one, and then what is held goes up again', async ({ signal }) => {
    await using bench = await openBench();
    const { driver, workload } = bench;
    assert.equal((await driver.hold(workload, 'scale', SLOW_MS, signal)).state, 'exited');
    await bench.revoke('first');
    const isRefused = (error: unknown) => error instanceof OperationalError && error.code === 'refused';
    await assert.rejects(driver.release(workload, 'scale', signal), isRefused);
    await bench.issue('second');
    assert.equal((await driver.release(workload, 'scale', signal)).state, 'running');
    assert.deepEqual(await bench.space.list('leases'), []);
  });

  it('does not keep a hook from being run with the new one', async ({ signal }) => {
    await using bench = await openBench();
    const { driver, workload } = bench;
    const call = aCall(workload, { kind: 'shell', line: 'echo it runs' });
    assert.equal((await runToEnd(driver, call, signal)).out, 'it runs\n');
    await bench.revoke('first');
    await bench.issue('second');
    assert.deepEqual(await runToEnd(driver, call, signal), {
      ...{ outcome: { status: 'succeeded' }, out: 'it runs\n', err: '' },
    });
  });
});
