/** The chart on a real cluster that enforces the profile `restricted`, with hooks that run in the sidecar itself. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { BUSYBOX } from '../support/images.ts';
import { until } from '../support/until.ts';
import { leavesNothing, type Namespace, openNamespace, SLOW_MS } from './namespace.ts';

const SUITE_MS = 15 * 60_000;
const RELEASE = 'nightly-sidehook';

describe('the chart, with hooks in the sidecar', { timeout: SUITE_MS }, () => {
  let space: Namespace;
  before(async () => {
    space = await openNamespace('chart');
    await space.kubectl('label', 'namespace', space.name, 'pod-security.kubernetes.io/enforce=restricted');
  });
  after(() => space[Symbol.asyncDispose]());

  const backup = (...command: readonly string[]) => ({ image: BUSYBOX, command });
  const hook = (line: string) => `#!/bin/sh\n# sidehook: on=backup.pre,backup.post\n${line}\n`;

  it('runs hooks before and after a backup, and the sidecar ends with it', async () => {
    const hooks = { '10-tell': hook('echo "$1 $2 $SIDEHOOK_STATUS"') };
    await space.install(RELEASE, { hooks, backup: backup('sh', '-c', 'echo the data; exit 5') });
    const job = await space.runNow(RELEASE);
    const { exitCode, out } = await space.ended(job);
    assert.equal(exitCode, 5, out);
    const lines = out.split('\n').filter((line) => !line.startsWith('sidehook:'));
    assert.deepEqual(lines, ['backup pre ', 'the data', 'backup post 5']);
    const pod = await space.get('pod', await space.podOf(job));
    assert.equal(pod.status.initContainerStatuses[0].state.terminated.exitCode, 0);
    assert.equal(pod.status.initContainerStatuses[0].restartCount, 0);
  });

  it('runs when its schedule says so', async () => {
    const values = { hooks: { '10-tell': hook('echo "$1 $2"') }, backup: backup('echo', 'the data') };
    await space.install(RELEASE, { ...values, cronJob: { schedule: '* * * * *' } });
    const isOwn = ({ metadata }: { metadata: { name: string } }) => metadata.name.startsWith(RELEASE);
    const begun = async () => (await space.list('jobs')).find(isOwn)?.metadata.name as string | undefined;
    const job = await until(begun, { what: 'a job of the schedule', deadlineMs: SLOW_MS, everyMs: 500 });
    await space.install(RELEASE, values); // that one is enough
    const { exitCode, out } = await space.ended(job);
    assert.equal(exitCode, 0, out);
    assert.match(out, /^backup pre\nthe data\nbackup post$/m);
  });

  it("gives the backup's container a hook's exit code, and runs no backup then", async () => {
    await space.install(RELEASE, { hooks: { '10-fail': hook('exit 42') }, backup: backup('echo', 'the data') });
    const { exitCode, out } = await space.ended(await space.runNow(RELEASE));
    assert.equal(exitCode, 42, out);
    assert.doesNotMatch(out, /the data/);
  });

  it('takes its hooks from a ConfigMap of your own', async () => {
    const data = { '10-own': hook('echo own; exit 7') };
    await space.apply({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'own' }, data });
    await space.install(RELEASE, { hooksFrom: { configMap: 'own' }, backup: backup('echo', 'the data') });
    const { exitCode, out } = await space.ended(await space.runNow(RELEASE));
    assert.equal(exitCode, 7, out);
    assert.match(out, /^own$/m);
    await space.kubectl('delete', 'configmap', 'own');
  });

  it('runs as a plain container, where there are no native sidecars, and ends with the backup', async () => {
    const hooks = { '10-tell': hook('echo "$1 $2"') };
    await space.install(RELEASE, { hooks, backup: backup('echo', 'the data'), sidecar: { native: false } });
    const job = await space.runNow(RELEASE);
    const { exitCode, out } = await space.ended(job);
    assert.equal(exitCode, 0, out);
    assert.match(out, /^backup pre\nthe data\nbackup post$/m);
    assert.equal((await space.ended(job, 'sidehook')).exitCode, 0);
  });

  it('leaves nothing when it is uninstalled', async () => {
    await leavesNothing(space, RELEASE);
  });
});
