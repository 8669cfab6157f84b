/** What we stop, we start again, whatever dies: on a real cluster. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { until } from '../support/until.ts';
import { SLOW_MS } from './namespace.ts';
import { PATIENT_BACKUP, WAITS } from './objects.ts';
import { openStack, RELEASE, type Stack } from './stack.ts';

const SUITE_MS = 30 * 60_000;

/** Each with an application of its own; some wait a minute until a lost sidecar is given up. */
describe('faults on a cluster', { timeout: SUITE_MS, concurrency: 3 }, () => {
  it('goes on when the sidecar is killed in the middle', async () => {
    await using stack = await openStack('sidecar');
    const { job, pod } = await stack.begin();
    await stack.signal(pod, 'sidehook', 'SIGKILL');
    const isBack = async () => {
      const [sidecar] = (await stack.get('pod', pod)).status.initContainerStatuses;
      return sidecar.restartCount > 0 && sidecar.state.running !== undefined;
    };
    await until(isBack, { what: 'the sidecar to be started again', deadlineMs: SLOW_MS, everyMs: 250 });
    await stack.goOn(pod);
    const { exitCode, out } = await stack.ended(job);
    assert.equal(exitCode, 0, out);
    await stack.isUp();
    assert.equal(await stack.diary(), 'backup pre \nbackup post success');
  });

  it('ends the run of a backup that is killed', async () => {
    await using stack = await openStack('killed');
    const { job, pod } = await stack.begin();
    await stack.signal(pod, 'backup', 'SIGKILL');
    assert.equal((await stack.ended(job)).exitCode, 137);
    await stack.isUp();
    assert.equal(await stack.diary(), 'backup pre \nbackup post abandoned');
  });

  it('ends the run of a pod that is deleted', async () => {
    await using stack = await openStack('deleted');
    const { pod } = await stack.begin();
    await stack.kubectl('delete', 'pod', pod, '--wait=false');
    await stack.isUp();
    assert.match(await stack.diary(), ENDED);
  });

  it('ends the run of a pod whose node is drained', async () => {
    await using stack = await openStack('drained', { podLabels: { drained: 'yes' } });
    const { pod } = await stack.begin();
    const drained = stack.tryKubectl(
      'drain',
      'node',
      '--pod-selector=drained=yes',
      '--delete-emptydir-data',
      '--force',
    );
    try {
      const isLetGo = async () => (await stack.replicas('deployment/web')) > 0;
      await until(isLetGo, { what: 'the evicted pod to let go', deadlineMs: SLOW_MS, everyMs: 250 });
    } finally {
      await stack.kubectl('uncordon', 'node'); // there is no other, and the sidecar waits for what it has started
    }
    const { exitCode, all } = await drained;
    assert.equal(exitCode, 0, all);
    assert.match(all, new RegExp(`${pod} evicted`));
    await stack.isUp();
    assert.match(await stack.diary(), ENDED);
  });

  it('has the next backup finish what a lost pod left', async () => {
    await using stack = await openStack('again');
    await lose(stack);
    const { job, pod } = await stack.begin();
    await stack.goOn(pod);
    assert.equal((await stack.ended(job)).exitCode, 0);
    await stack.isUp();
    const [first, ...rest] = ['backup pre ', 'backup post abandoned', 'backup pre ', 'backup post success'];
    assert.equal(await stack.diary(), [first, ...rest].join('\n'));
  });

  it('has the recovery finish what a lost pod left, if no backup comes again', async () => {
    await using stack = await openStack('recovery', { recovery: { enabled: true, suspend: true } });
    await lose(stack);
    const job = await stack.runNow(`${RELEASE}-recovery`);
    const { exitCode, out } = await stack.ended(job, 'recovery');
    assert.equal(exitCode, 0, out);
    await stack.isUp();
    assert.equal(await stack.diary(), 'backup pre \nbackup post abandoned');
  });

  it('keeps what a failed restore held when its pod is gone, until the release job lets go of it', async () => {
    const command = ['sh', '-c', 'echo it is half written; exit 3'];
    await using stack = await openStack('release', { restore: { command } });
    const restore = await stack.runNow(`${RELEASE}-restore`);
    const { exitCode, all } = await stack.ended(restore, 'restore');
    assert.equal(exitCode, 3, all);
    await stack.kubectl('delete', 'job', restore, '--wait');
    for (const workload of ['deployment/web', 'statefulset/db'])
      assert.equal(await stack.replicas(workload), 0, workload);
    const job = await stack.runNow(`${RELEASE}-release`);
    const released = await stack.ended(job, 'release');
    assert.equal(released.exitCode, 0, released.out);
    await stack.isUp();
  });

  it('ends with 137 when the backup runs out of memory, and all is up again', async () => {
    const backup = {
      ...PATIENT_BACKUP,
      command: ['sh', '-c', `${WAITS}; tail /dev/zero`],
      resources: { limits: { memory: '32Mi' } },
    };
    await using stack = await openStack('memory', { backup });
    const { job, pod } = await stack.begin();
    await stack.goOn(pod);
    const { exitCode, out } = await stack.ended(job);
    assert.equal(exitCode, 137, out);
    const { status } = await stack.get('pod', pod);
    assert.equal(status.containerStatuses[0].state.terminated.reason, 'OOMKilled');
    await stack.isUp();
    assert.match(await stack.diary(), ENDED); // some kernels end the command alone, and some the whole container
  });
});

/** The client's own `post`, or the sidecar's for it, whichever comes first. */
const ENDED = /^backup pre \nbackup post (failure|abandoned)$/;

/** The whole pod is gone at once in the middle of its backup, and has no chance to put anything in order. */
async function lose(stack: Stack): Promise<void> {
  const { pod } = await stack.begin();
  for (const container of ['sidehook', 'backup']) await stack.signal(pod, container, 'SIGSTOP');
  await stack.kubectl('delete', 'pod', pod, '--grace-period=0', '--force');
}
