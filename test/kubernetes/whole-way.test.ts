/** A backup on a real cluster from end to end, with the rights that the chart gives and no more. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { BUSYBOX } from '../support/images.ts';
import { until } from '../support/until.ts';
import { leavesNothing, type Namespace, openNamespace, SLOW_MS } from './namespace.ts';
import { aWorkload, HELD } from './objects.ts';
import { openStack, RELEASE, type Stack } from './stack.ts';

const SUITE_MS = 20 * 60_000;

describe('a backup on a cluster', { timeout: SUITE_MS }, () => {
  let stack: Stack;
  before(async () => {
    stack = await openStack('whole');
  });
  after(() => stack[Symbol.asyncDispose]());

  it('scales down, runs hooks in pods, scales up, and ends with its sidecar', async () => {
    const { job, pod } = await stack.begin();
    // One that has ended may still be on its way out of the API.
    const isAlive = ({ status }: { status: { phase: string } }) => !['Succeeded', 'Failed'].includes(status.phase);
    const left = (await stack.list('pods', 'app in (web,db)')).filter(isAlive);
    assert.deepEqual(left, [], 'pods that still run while the backup runs');
    assert.equal(await stack.diary(), 'backup pre ');
    assert.equal((await stack.list('leases')).filter(({ metadata }) => metadata.name.includes('hold')).length, 2);
    await stack.goOn(pod);
    const { exitCode, out } = await stack.ended(job);
    assert.equal(exitCode, 0, out);
    assert.match(out, /hook in vault: pre.*it begins\nit ends\n.*hook in vault: post/s);
    assert.equal(await stack.diary(), 'backup pre \nbackup post success');
    await stack.isUp();
    const { status } = await stack.get('pod', pod);
    assert.equal(status.initContainerStatuses[0].state.terminated.exitCode, 0);
  });

  it('gives the backup no token, and the sidecar one that may do little', async () => {
    const { job, pod } = await stack.begin();
    const inside = (container: string, ...command: string[]) =>
      stack.tryKubectl('exec', pod, '-c', container, '--', ...command);
    assert.notEqual((await inside('backup', 'ls', '/var/run/secrets/kubernetes.io')).exitCode, 0);
    assert.equal((await inside('sidehook', 'cat', '/var/run/secrets/kubernetes.io/serviceaccount/token')).exitCode, 0);
    const may = async (...question: string[]) =>
      (await stack.tryKubectl('auth', 'can-i', ...question, `--as=system:serviceaccount:${stack.name}:${RELEASE}`)).out;
    assert.equal(await may('update', 'deployments', '--subresource=scale'), 'yes');
    const never = [
      ['patch', 'deployments'],
      ['update', 'deployments'],
      ['create', 'pods'],
      ['delete', 'pods'],
    ];
    for (const question of [...never, ['get', 'secrets'], ['get', 'configmaps']]) {
      assert.equal(await may(...question), 'no', question.join(' '));
    }
    await stack.goOn(pod);
    assert.equal((await stack.ended(job)).exitCode, 0);
    await stack.isUp();
  });

  it('passes `helm test`, and says what it would do', async () => {
    const { exitCode, all } = await stack.helm('test', RELEASE, '--logs', '--timeout', `${SLOW_MS}ms`);
    assert.equal(exitCode, 0, all);
    assert.match(all, /deployment\/web/);
    assert.match(all, /10-vault/);
  });

  it('leaves nothing when it is uninstalled', async () => {
    await stack.kubectl('delete', 'deployment/web', 'deployment/vault', 'statefulset/db', '--wait');
    await leavesNothing(stack, RELEASE);
  });
});

describe('a backup that fails on a cluster', { timeout: SUITE_MS }, () => {
  let space: Namespace;
  before(async () => {
    space = await openNamespace('fails');
    await space.apply(aWorkload('Deployment', 'web', { annotations: HELD }), aWorkload('Deployment', 'vault'));
    for (const name of ['web', 'vault']) {
      await space.kubectl('rollout', 'status', `deployment/${name}`, `--timeout=${SLOW_MS}ms`);
    }
  });
  after(() => space[Symbol.asyncDispose]());

  const hook = (line: string) => `#!/bin/sh\n# sidehook: target=pod:app=vault on=backup.pre while=held\n${line}\n`;
  async function backUp(values: object) {
    const backup = { image: BUSYBOX, command: ['echo', 'the data'] };
    await space.install(RELEASE, { engine: 'kubernetes', backup, ...values });
    return space.ended(await space.runNow(RELEASE));
  }
  const isUp = async () => {
    assert.equal(await space.kubectl('get', 'deployment/web', '--output=jsonpath={.spec.replicas}'), '1');
    const noLease = async () => (await space.list('leases')).length === 0;
    await until(noLease, { what: 'no Lease to be left', deadlineMs: SLOW_MS, everyMs: 250 });
  };

  it("brings a pod hook's exit code to the backup's container, and all back up", async () => {
    const { exitCode, out } = await backUp({ hooks: { '10-fail': hook('echo no >&2; exit 42') } });
    assert.equal(exitCode, 42, out);
    assert.match(out, /^no$/m);
    assert.match(out, /hook 10-fail .*exited 42/);
    assert.doesNotMatch(out, /the data/);
    await isUp();
  });

  it('takes its hooks from a ConfigMap of your own', async () => {
    const data = { '10-own': hook('echo from my own; exit 7') };
    await space.apply({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'own-hooks' }, data });
    const { exitCode, out } = await backUp({ hooks: null, hooksFrom: { configMap: 'own-hooks' } });
    assert.equal(exitCode, 7, out);
    assert.match(out, /^from my own$/m);
    await isUp();
  });

  it('names the right that is missing for a hook, and stops nothing', async () => {
    const { exitCode, out } = await backUp({ hooks: { '10-fail': hook('exit 42') }, features: { exec: false } });
    assert.notEqual(exitCode, 0);
    assert.notEqual(exitCode, 42);
    assert.match(out, /pods\/exec/);
    assert.doesNotMatch(out, /the data/);
    await isUp();
    const doctor = await space.helm('test', RELEASE, '--logs', '--timeout', `${SLOW_MS}ms`);
    assert.notEqual(doctor.exitCode, 0, doctor.all);
    assert.match(
      doctor.all,
      /add to the Role: \{apiGroups: \[''\], resources: \[pods\/exec\], verbs: \[create, get\]\}/,
    );
  });

  it('names the right that is missing for a hold', async () => {
    const { exitCode, out } = await backUp({ features: { scale: false } });
    assert.notEqual(exitCode, 0);
    assert.match(out, /deployments\/scale/);
    assert.doesNotMatch(out, /the data/);
    await isUp();
  });
});
