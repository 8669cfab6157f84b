/** A small application, and a backup of it that waits in its middle. */
import assert from 'node:assert/strict';
import { execa } from 'execa';
import { until } from '../support/until.ts';
import { type Namespace, openNamespace, SLOW_MS } from './namespace.ts';
import { aWorkload, HELD, PATIENT_BACKUP } from './objects.ts';

export const RELEASE = 'nightly-sidehook';

export type Stack = Namespace & {
  /** Starts the backup, and waits until it is in its middle: all is held. */
  begin(): Promise<{ readonly job: string; readonly pod: string }>;
  /** Lets the backup end. */
  goOn(pod: string): Promise<void>;
  /** Replicas that a workload is to have. */
  replicas(workload: string): Promise<number>;
  /** Waits until all runs as it did in the beginning, or with so many replicas, and no Lease is left. */
  isUp(replicas?: Readonly<Record<string, number>>): Promise<void>;
  /** What the hooks in the pod `vault` wrote down. */
  diary(): Promise<string>;
  /** Signals the first process of a pod's container, as the kernel of the node would. */
  signal(pod: string, container: string, signal: 'SIGKILL' | 'SIGSTOP'): Promise<void>;
};

const HELD_WORKLOADS = { 'deployment/web': 2, 'statefulset/db': 1 };

/** `web` and `db` are held; hooks in `vault`, which is not, keep a diary of before and after. */
export async function openStack(name: string, values: object = {}): Promise<Stack> {
  const space = await openNamespace(name);
  await space.apply(
    aWorkload('Deployment', 'web', { replicas: HELD_WORKLOADS['deployment/web'], annotations: HELD }),
    aWorkload('StatefulSet', 'db', { replicas: HELD_WORKLOADS['statefulset/db'], annotations: HELD }),
    aWorkload('Deployment', 'vault'),
  );
  const hook = [
    ...['#!/bin/sh', '# sidehook: target=pod:app=vault on=backup.pre,backup.post'],
    ...['echo "$1 $2 $SIDEHOOK_OUTCOME" >>/tmp/diary', 'echo "hook in vault: $2"', ''],
  ];
  await space.install(RELEASE, {
    ...{ engine: 'kubernetes', hooks: { '10-vault': hook.join('\n') }, backup: PATIENT_BACKUP },
    ...values,
  });
  for (const workload of [...Object.keys(HELD_WORKLOADS), 'deployment/vault']) {
    await space.kubectl('rollout', 'status', workload, `--timeout=${SLOW_MS}ms`);
  }

  async function begin() {
    const job = await space.runNow(RELEASE);
    const pod = await space.podOf(job);
    await space.logged(pod, 'backup', 'it begins');
    for (const workload of Object.keys(HELD_WORKLOADS)) assert.equal(await replicas(workload), 0, workload);
    return { job, pod };
  }
  const goOn = async (pod: string) => void (await space.kubectl('exec', pod, '-c', 'backup', '--', 'touch', '/tmp/go'));
  async function replicas(workload: string): Promise<number> {
    return Number(await space.kubectl('get', workload, '--output=jsonpath={.spec.replicas}'));
  }
  async function isUp(replicasThen: Readonly<Record<string, number>> = {}): Promise<void> {
    for (const [workload, count] of Object.entries({ ...HELD_WORKLOADS, ...replicasThen })) {
      const isBack = async () => (await replicas(workload)) === count;
      await until(isBack, { what: `${workload} to have ${count} replicas`, deadlineMs: SLOW_MS, everyMs: 500 });
      await space.kubectl('rollout', 'status', workload, `--timeout=${SLOW_MS}ms`);
    }
    const noLease = async () => (await space.list('leases')).length === 0;
    await until(noLease, { what: 'no Lease to be left', deadlineMs: SLOW_MS, everyMs: 500 });
  }
  const diary = async () => space.kubectl('exec', 'deployment/vault', '--', 'cat', '/tmp/diary');
  async function signal(pod: string, container: string, name: 'SIGKILL' | 'SIGSTOP'): Promise<void> {
    const { status } = await space.get('pod', pod);
    const all = [...status.containerStatuses, ...(status.initContainerStatuses ?? [])];
    const id = all.find((one) => one.name === container).containerID.replace('containerd://', '');
    await execa('ctr', ['tasks', 'kill', '--signal', name, id]);
  }
  return { ...space, begin, goOn, replicas, isUp, diary, signal };
}
