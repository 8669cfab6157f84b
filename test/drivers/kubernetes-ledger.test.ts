import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { releaseNow } from '../../src/run/control.ts';
import { type ApiServer, openApiServer } from '../support/api-server.ts';
import { until } from '../support/until.ts';
import { openNamespace } from './kubernetes-sidehook.ts';

const HOLD = { 'sidehook.io/hold': 'scale' };

async function openShop(annotations: Record<string, string> = {}) {
  await using stack = new AsyncDisposableStack();
  const server = stack.use(await openApiServer());
  const namespace = stack.use(await openNamespace(server));
  server.addController('deployments', 'web', { replicas: 2, annotations: HOLD });
  server.addController('statefulsets', 'db', { replicas: 1, annotations });
  await until(() => readyOf(server, 'deployments', 'web') === 2 && readyOf(server, 'statefulsets', 'db') === 1, {
    what: 'all to be ready',
  });
  const owned = stack.move();
  return { server, namespace, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

function readyOf(server: ApiServer, what: string, name: string): number {
  return server.get(what, name)?.status.readyReplicas ?? 0;
}

const replicasOf = (server: ApiServer, name = 'web'): number => server.get('deployments', name)?.spec.replicas;
const leasesOf = (server: ApiServer): string[] =>
  server
    .all('leases')
    .map(({ metadata }) => metadata.name)
    .toSorted();

/** One that is lost when all is up again, and before its Leases are taken away. */
async function loseAfterRelease({ namespace }: Awaited<ReturnType<typeof openShop>>): Promise<void> {
  let scaled = 0;
  const dieAt = (point: string) => point === 'after PUT web/scale' && ++scaled === 2;
  const one = await namespace.start('one', { dieAt });
  assert.equal((await one.signal('pre'))?.exitCode, 0);
  assert.equal(await one.signal('post'), undefined);
  await one.lose();
}

describe('sidehooks of one namespace', () => {
  it('scale to zero and back, and leave no Lease behind', async () => {
    await using shop = await openShop();
    const one = await shop.namespace.start('one');
    assert.equal((await one.signal('pre'))?.exitCode, 0);
    assert.equal(replicasOf(shop.server), 0);
    assert.deepEqual(leasesOf(shop.server), ['sidehook-hold-deployment-web', 'sidehook-job-default']);
    const answer = await one.signal('post');
    assert.equal(answer?.exitCode, 0, answer?.message);
    assert.equal(replicasOf(shop.server), 2);
    assert.deepEqual(leasesOf(shop.server), []);
    assert.deepEqual(one.bugs, []);
    await one.kill();
  });

  it('leave at zero what they found there, and tell a backup in whose middle somebody scaled it up', async () => {
    for (const isScaled of [false, true]) {
      await using shop = await openShop();
      shop.server.addController('deployments', 'idle', { replicas: 0, annotations: HOLD });
      const one = await shop.namespace.start('one');
      const pre = await one.signal('pre');
      assert.ok(pre?.notes.includes('hold of deployment/idle: found exited, left so'), pre?.notes.join());
      if (isScaled) shop.server.scale('deployments', 'idle', 1);
      const post = await one.signal('post');
      assert.equal(post?.exitCode, isScaled ? 65 : 0, post?.message);
      if (isScaled) assert.match(post?.message ?? '', /deployment\/idle was found exited and runs since/);
      assert.equal(replicasOf(shop.server, 'idle'), isScaled ? 1 : 0);
      await one.kill();
    }
  });

  it('run one job at a time, across pods', async () => {
    await using shop = await openShop();
    const [one, two] = [await shop.namespace.start('one'), await shop.namespace.start('two')];
    assert.equal((await one.signal('pre'))?.exitCode, 0);
    const refused = await two.signal('pre');
    assert.equal(refused?.exitCode, 75);
    assert.match(refused.message ?? '', /not now: job default has a run open at .+_/);
    const waiting = two.signal('pre', { waitMs: 60_000 });
    await one.signal('post');
    assert.equal((await waiting)?.exitCode, 0);
    await two.signal('post');
    assert.deepEqual(leasesOf(shop.server), []);
    for (const sidehook of [one, two]) await sidehook.kill();
  });

  it('share a hold: up again when the last lets go', async () => {
    await using shop = await openShop();
    const [one, two] = [await shop.namespace.start('one'), await shop.namespace.start('two')];
    assert.equal((await one.signal('pre', { job: 'a' }))?.exitCode, 0);
    const joined = await two.signal('pre', { job: 'b' });
    assert.equal(joined?.exitCode, 0, joined?.message);
    const first = await one.signal('post', { job: 'a' });
    assert.equal(first?.exitCode, 0, first?.message);
    assert.equal(replicasOf(shop.server), 0);
    assert.ok(
      first.notes.some((note) => /deployment\/web: shared/.test(note)),
      first.notes.join(),
    );
    assert.equal((await two.signal('post', { job: 'b' }))?.exitCode, 0);
    assert.equal(replicasOf(shop.server), 2);
    assert.deepEqual(leasesOf(shop.server), []);
    for (const sidehook of [one, two]) await sidehook.kill();
  });

  it('keep a hook and another one’s hold apart', async () => {
    await using shop = await openShop({
      'sidehook.io/backup.pre': 'true',
      'sidehook.io/hold': 'scale',
      'sidehook.io/hold.on': 'restore',
    });
    const [one, two] = [await shop.namespace.start('one'), await shop.namespace.start('two')];
    assert.equal((await one.signal('pre', { job: 'a' }))?.exitCode, 0);
    const refused = await two.signal('pre', { job: 'b', operation: 'restore' });
    assert.equal(refused?.exitCode, 75);
    assert.match(refused.message ?? '', /in use by run .* \(backup of job a\)/);
    await one.signal('post', { job: 'a' });
    assert.deepEqual(leasesOf(shop.server), []);
    for (const sidehook of [one, two]) await sidehook.kill();
  });

  it('wait for pods that another one has scaled away, and then run their hooks', async () => {
    await using server = await openApiServer();
    await using namespace = await openNamespace(server);
    const diary = join(namespace.dir, 'diary');
    const line = `echo pre >>${diary}`;
    const annotations = { ...HOLD, 'sidehook.io/hold.on': 'restore', 'sidehook.io/backup.pre': line };
    server.addController('deployments', 'web', { replicas: 2, annotations });
    await until(() => readyOf(server, 'deployments', 'web') === 2, { what: 'all to be ready' });
    const [one, two] = [await namespace.start('one'), await namespace.start('two')];
    assert.equal((await one.signal('pre', { job: 'a', operation: 'restore' }))?.exitCode, 0);
    assert.deepEqual(server.all('pods'), []);
    const refused = await two.signal('pre', { job: 'b' });
    assert.equal(refused?.exitCode, 75, refused?.message);
    assert.match(refused.message ?? '', /not now: .*web.* is in use by run .* \(restore of job a\)/);
    const waiting = two.signal('pre', { job: 'b', waitMs: 120_000 });
    assert.equal((await one.signal('post', { job: 'a', operation: 'restore' }))?.exitCode, 0);
    const answer = await waiting;
    assert.equal(answer?.exitCode, 0, answer?.message);
    assert.equal(await readFile(diary, 'utf8'), 'pre\npre\n');
    await two.signal('post', { job: 'b' });
    assert.deepEqual(leasesOf(server), []);
    for (const sidehook of [one, two]) await sidehook.kill();
  });

  it('finish what a lost one held, and run what it owed', async () => {
    await using shop = await openShop({
      'sidehook.io/backup.pre': 'true',
      'sidehook.io/backup.post': 'test "$SIDEHOOK_OUTCOME" = abandoned',
    });
    const one = await shop.namespace.start('one');
    assert.equal((await one.signal('pre'))?.exitCode, 0);
    await one.lose();
    const two = await shop.namespace.start('two');
    await two.begin();
    await until(() => leasesOf(shop.server).length === 0, { what: 'the lost run to be finished', deadlineMs: 60_000 });
    assert.equal(replicasOf(shop.server), 2);
    const [run] = two.journal.runs('all');
    assert.equal(run?.outcome, 'abandoned');
    assert.deepEqual(
      two.journal.steps(run.id).map(({ call, outcome }) => `${call.state} ${outcome?.status}`),
      ['pre succeeded', 'post succeeded'],
    );
    await two.kill();
  });

  it('take but its Lease away, where a release was cut off when all was up again', async () => {
    await using shop = await openShop();
    await loseAfterRelease(shop);
    assert.equal(replicasOf(shop.server), 2);
    const generation = () => shop.server.get('deployments', 'web')?.metadata.generation;
    const before = generation();
    const two = await shop.namespace.start('two');
    await two.begin();
    await until(() => leasesOf(shop.server).length === 0, { what: 'no Lease to be left' });
    assert.equal(generation(), before, 'it was scaled once more');
    assert.deepEqual([...two.journal.holds(), ...two.bugs], []);
    await two.kill();
  });

  it('take a Lease away that nobody shares, and of which no run speaks', async () => {
    await using shop = await openShop();
    await loseAfterRelease(shop);
    shop.server.removeController('leases', 'sidehook-job-default');
    assert.deepEqual(leasesOf(shop.server), ['sidehook-hold-deployment-web']);
    const two = await shop.namespace.start('two');
    await two.begin();
    await until(() => leasesOf(shop.server).length === 0, { what: 'no Lease to be left' });
    assert.equal(replicasOf(shop.server), 2);
    assert.deepEqual([...two.journal.holds(), ...two.bugs], []);
    await two.kill();
  });

  it('run no hook in pods that are held, though no run speaks of that any more', async () => {
    await using server = await openApiServer();
    await using namespace = await openNamespace(server);
    const diary = join(namespace.dir, 'diary');
    const annotations = { ...HOLD, 'sidehook.io/hold.on': 'restore', 'sidehook.io/backup.pre': `echo pre >>${diary}` };
    server.addController('deployments', 'web', { replicas: 1, annotations });
    await until(() => readyOf(server, 'deployments', 'web') === 1, { what: 'all to be ready' });
    const [one, two] = [await namespace.start('one'), await namespace.start('two')];
    assert.equal((await one.signal('pre', { job: 'a', operation: 'restore' }))?.exitCode, 0);
    server.removeController('leases', 'sidehook-job-a');
    const refused = await two.signal('pre', { job: 'b' });
    assert.equal(refused?.exitCode, 75, refused?.message);
    assert.match(refused.message ?? '', /not now: .*web.* is held by another sidehook/);
    for (const sidehook of [one, two]) await sidehook.kill();
  });

  it('leave a restore as it was lost: what was held stays held, until it is released', async () => {
    await using shop = await openShop();
    const one = await shop.namespace.start('one');
    const { runId = '' } = (await one.signal('pre', { operation: 'restore' })) ?? {};
    assert.equal((await one.signal('started', { operation: 'restore', runId }))?.exitCode, 0);
    await one.lose();
    const two = await shop.namespace.start('two');
    await two.begin();
    await until(() => two.journal.run(runId)?.phase === 'kept', { what: 'the run to be kept', deadlineMs: 60_000 });
    const names = (): string => leasesOf(shop.server).join();
    await until(() => /sidehook-kept-/.test(names()) && !/-job-/.test(names()), { what: 'its job to be free' });
    assert.equal(replicasOf(shop.server), 0);
    await two.lose();
    const three = await shop.namespace.start('three');
    await three.begin();
    await until(() => three.journal.run(runId)?.phase === 'kept', { what: 'the next to keep it', deadlineMs: 60_000 });
    assert.equal(replicasOf(shop.server), 0);
    await three.kill();
  });

  it('release after a restore that succeeded what a failed one kept, though that pod is gone', async () => {
    await using shop = await openShop();
    const one = await shop.namespace.start('one');
    const { runId = '' } = (await one.signal('pre', { operation: 'restore' })) ?? {};
    await one.signal('started', { operation: 'restore', runId });
    const failed = await one.signal('post', { operation: 'restore', runId, outcome: 'failure' });
    assert.match(failed?.message ?? '', /stay held/);
    await one.lose();
    const two = await shop.namespace.start('two'); // sooner than it could tell that the other one is lost
    const again = await two.signal('pre', { operation: 'restore' });
    assert.equal(again?.exitCode, 0, again?.message ?? 'no answer');
    await two.signal('started', { operation: 'restore', runId: again.runId ?? '' });
    assert.equal(replicasOf(shop.server), 0);
    const answer = await two.signal('post', { operation: 'restore', runId: again.runId ?? '' });
    assert.equal(answer?.exitCode, 0, answer?.message ?? 'no answer');
    assert.equal(replicasOf(shop.server), 2);
    assert.deepEqual(leasesOf(shop.server), []);
    await two.kill();
  });

  it('have one that lives let go of a failed restore that another one took over', async () => {
    await using shop = await openShop();
    const one = await shop.namespace.start('one');
    const { runId = '' } = (await one.signal('pre', { operation: 'restore' })) ?? {};
    await one.signal('started', { operation: 'restore', runId });
    await one.signal('post', { operation: 'restore', runId, outcome: 'failure' });
    await one.begin();
    const two = await shop.namespace.start('two');
    await two.signal('pre', { operation: 'restore' });
    await two.signal('post', { operation: 'restore' });
    assert.equal(replicasOf(shop.server), 2);
    await until(() => one.journal.run(runId)?.phase === 'closed', { what: 'its run to be over', deadlineMs: 60_000 });
    assert.deepEqual(one.journal.holds(), []);
    assert.deepEqual(leasesOf(shop.server), []);
    for (const sidehook of [one, two]) await sidehook.kill();
  });

  it('leave no Lease behind of what was released by hand', async () => {
    await using shop = await openShop();
    const one = await shop.namespace.start('one');
    const { runId = '' } = (await one.signal('pre', { operation: 'restore' })) ?? {};
    await one.signal('started', { operation: 'restore', runId });
    await one.signal('post', { operation: 'restore', runId, outcome: 'failure' });
    assert.equal((await releaseNow({ runId }, one.shared)).exitCode, 0);
    assert.equal(replicasOf(shop.server), 2);
    assert.deepEqual(leasesOf(shop.server), []);
    await one.kill();
  });

  it('let a lost one that comes back with its journal do nothing again', async () => {
    await using shop = await openShop({ 'sidehook.io/backup.post': 'true' });
    const one = await shop.namespace.start('one');
    const { runId = '' } = (await one.signal('pre')) ?? {};
    await one.kill();
    const two = await shop.namespace.start('two');
    await two.begin();
    await until(() => leasesOf(shop.server).length === 0, { what: 'the lost run to be finished', deadlineMs: 60_000 });
    const execs = () => shop.server.asked.filter(({ path }) => path.endsWith('/exec')).length;
    const before = execs();
    const again = await shop.namespace.start('one');
    await again.begin();
    const run = again.journal.run(runId);
    assert.equal(run?.phase, 'closed');
    assert.match(run.distrust.join(), /taken over by another sidehook/);
    assert.deepEqual(again.journal.holds(), []);
    assert.equal(execs(), before);
    for (const sidehook of [two, again]) await sidehook.kill();
  });
});
