import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseLabels } from '../../src/core/labels.ts';
import { readVelero } from '../../src/drivers/kubernetes-velero.ts';
import { aSituation, planOf } from '../support/builders.ts';
import { until } from '../support/until.ts';
import { openKubernetesBench } from './kubernetes-bench.ts';

const POD = { name: 'db-0', containers: ['main', 'proxy'] };
const ALL = ['backup', 'restore'];
const read = (annotations: Record<string, string>, operations = ALL) => readVelero(annotations, POD, operations);
const PRE = 'pre.hook.backup.velero.io';

describe("Velero's annotations", () => {
  it('are read as ours, with what Velero takes where nothing is said', () => {
    assert.deepEqual(read({ [`${PRE}/command`]: '["/sbin/fsfreeze", "-f", "/data"]' }), {
      labels: {
        'sidehook.backup.pre': '["/sbin/fsfreeze", "-f", "/data"]',
        'sidehook.backup.pre.on-error': 'abort',
        'sidehook.backup.pre.timeout': '30s',
        'sidehook.container': 'main',
      },
      notes: [],
      cannot: {},
    });
    const restore = read({ 'post.hook.restore.velero.io/command': '/load' }).labels;
    assert.equal(restore['sidehook.restore.post'], '["/load"]');
    assert.equal(restore['sidehook.restore.post.on-error'], 'continue');
  });

  it('may say all that Velero knows', () => {
    const post = 'post.hook.restore.velero.io';
    const { labels, notes } = read({
      [`${PRE}/command`]: '/bin/freeze',
      [`${PRE}/on-error`]: 'Continue',
      [`${PRE}/timeout`]: '1m30.5s',
      [`${PRE}/container`]: 'proxy',
      [`${post}/command`]: '["load"]',
      [`${post}/container`]: 'proxy',
      [`${post}/on-error`]: 'Fail',
      [`${post}/exec-timeout`]: '2h',
      [`${post}/wait-timeout`]: '5m',
      [`${post}/wait-for-ready`]: 'true',
    });
    assert.deepEqual(labels, {
      'sidehook.backup.pre': '["/bin/freeze"]',
      'sidehook.backup.pre.on-error': 'continue',
      'sidehook.backup.pre.timeout': '1m30s500ms',
      'sidehook.container': 'proxy',
      'sidehook.restore.post': '["load"]',
      'sidehook.restore.post.on-error': 'abort',
      'sidehook.restore.post.timeout': '2h',
    });
    assert.deepEqual(
      notes.map((note) => /wait-(timeout|for-ready): passed over/.exec(note)?.[1]),
      ['timeout', 'for-ready'],
    );
  });

  it('have the older names, too, where the newer ones are not there', () => {
    const old = { 'hook.backup.velero.io/command': '/old', 'hook.backup.velero.io/timeout': '10s' };
    assert.equal(read(old).labels['sidehook.backup.pre'], '["/old"]');
    assert.equal(read(old).labels['sidehook.backup.pre.timeout'], '10s');
    const both = read({ ...old, [`${PRE}/command`]: '/new' });
    assert.equal(both.labels['sidehook.backup.pre'], '["/new"]');
    assert.equal(both.labels['sidehook.backup.pre.timeout'], '30s');
  });

  const wrong: [annotations: Record<string, string>, why: RegExp][] = [
    [{ [`${PRE}/on-error`]: 'Ignore' }, /db-0, annotation pre\..*\/on-error: expected Fail or Continue, got "Ignore"/],
    [{ [`${PRE}/timeout`]: '30' }, /annotation pre\..*\/timeout: expected a duration .*, got "30"/],
    [{ [`${PRE}/timeout`]: '0s' }, /\/timeout: expected a duration/],
    [{ [`${PRE}/container`]: 'absent' }, /\/container: expected a container of it \(main, proxy\), got "absent"/],
    [
      { 'post.hook.backup.velero.io/command': '/thaw', 'post.hook.backup.velero.io/container': 'proxy' },
      /\/container: expected the same container as that of its other hooks \(main\)/,
    ],
  ];
  for (const [annotations, why] of wrong) {
    it(`are refused where they cannot be obeyed: ${Object.keys(annotations).at(-1)} ${Object.values(annotations).at(-1)}`, () => {
      assert.throws(() => read({ [`${PRE}/command`]: '/freeze', ...annotations }), {
        code: 'configuration',
        message: why,
      });
    });
  }

  it('are refused where a command begins as an array and is none', () => {
    const labels = read({ [`${PRE}/command`]: '["a' }).labels;
    const workload = { ...POD, ...{ kind: 'pod', key: 'pod/db-0', instance: '', labels, imageLabels: [] } } as const;
    assert.throws(
      () => parseLabels({ ...aSituation([]).view, ...workload } as never, { timeoutMs: 1, operations: ALL }),
      {
        code: 'configuration',
      },
    );
  });

  it('leave to Velero what is not done here', () => {
    assert.deepEqual(read({ 'post.hook.restore.velero.io/command': '/load' }, ['backup']).labels, {});
    const { notes } = read({ 'pre.hook.backup.velero.io/retries': '3' });
    assert.match(notes.join(), /retries: passed over/);
  });
});

describe('the Kubernetes driver, beside Velero', () => {
  const annotations = { [`${PRE}/command`]: '["true"]', [`${PRE}/timeout`]: '5s' };
  const init = { 'init.hook.restore.velero.io/container-image': 'alpine' };

  async function openBeside(more: Record<string, string> = {}) {
    await using stack = new AsyncDisposableStack();
    const bench = stack.use(await openKubernetesBench());
    bench.server.addController('statefulsets', 'store', { annotations: { ...annotations, ...more } });
    await until(() => bench.server.get('statefulsets', 'store')?.status.readyReplicas === 1, {
      what: 'store to be ready',
    });
    const driver = stack.use(bench.open('beside', { compat: ['velero'], operations: ALL }));
    const owned = stack.move();
    return { bench, driver, [Symbol.asyncDispose]: () => owned.disposeAsync() };
  }

  it('runs its hooks, if it is asked to', async ({ signal }) => {
    await using beside = await openBeside();
    const { workloads } = await beside.driver.look([], signal);
    const { steps } = planOf(aSituation(workloads));
    assert.deepEqual(
      steps.map(({ call }) => [call.name, call.program, call.settings.timeoutMs]),
      [['sidehook.backup.pre', { kind: 'argv', argv: ['true'] }, 5_000]],
    );
    const without = await beside.bench.driver.look([], signal);
    assert.deepEqual(planOf(aSituation(without.workloads)).steps, []);
  });

  it('passes over what the pod template does not say, and names it', async ({ signal }) => {
    await using beside = await openBeside();
    const pod = beside.bench.server.get('pods', 'store-0') ?? assert.fail();
    pod.metadata.annotations = { ...annotations, [`${PRE}/command`]: '["curl", "evil"]' };
    const { workloads } = await beside.driver.look([], signal);
    const found = workloads.find(({ name }) => name === 'store-0');
    assert.deepEqual(found?.imageLabels, [`${PRE}/command`]);
    assert.deepEqual(planOf(aSituation(workloads)).steps, []);
  });

  it('does no restore that would need an init container, and does its backups', async ({ signal }) => {
    await using beside = await openBeside(init);
    const { workloads } = await beside.driver.look([], signal);
    assert.equal(planOf(aSituation(workloads)).steps.length, 1);
    assert.throws(() => planOf(aSituation(workloads), 'restore'), {
      code: 'configuration',
      message: /pod store-0, annotation init\.hook\.restore\.velero\.io\/container-image: an init container cannot/,
    });
  });

  it('takes nothing that is said twice, and differs', async ({ signal }) => {
    await using beside = await openBeside({ 'sidehook.io/backup.pre': 'echo ours' });
    await assert.rejects(beside.driver.look([], signal), { code: 'configuration', message: /backup\.pre: Velero's/ });
  });
});
