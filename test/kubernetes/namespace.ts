/** A namespace of a test's own on the cluster, and what tests ask of it. */
import { randomBytes } from 'node:crypto';
import { resolve } from 'node:path';
import { execa } from 'execa';
import { findHelm } from '../helm/helm.ts';
import { until } from '../support/until.ts';

const CHART = resolve(import.meta.dirname, '../../helm/sidehook');
/** For whatever takes some seconds: on a busy machine a pod alone may need half a minute to be there. */
export const SLOW_MS = 400_000;

/** Backups and recoveries begin when a test says so. */
const QUIET = { cronJob: { suspend: true }, recovery: { suspend: true } };

/** How a command ended; whatever it said is in `all`. */
export type Said = { readonly exitCode: number; readonly out: string; readonly all: string };

export type Namespace = AsyncDisposable & {
  readonly name: string;
  /** kubectl in this namespace. @throws when it fails */
  kubectl(...args: readonly string[]): Promise<string>;
  /** The same, however it ends. */
  tryKubectl(...args: readonly string[]): Promise<Said>;
  /** Makes objects, or changes them. */
  apply(...objects: readonly object[]): Promise<void>;
  /** Asks for a pod's eviction, as whoever drains its node does. */
  evict(pod: string): Promise<Said>;
  /** An object as it is, undefined where there is none. */
  // biome-ignore lint/suspicious/noExplicitAny: whatever kind it is, a test knows which
  get(kind: string, name: string): Promise<any>;
  // biome-ignore lint/suspicious/noExplicitAny: whatever kind it is, a test knows which
  list(kind: string, selector?: string): Promise<any[]>;
  helm(...args: readonly string[]): Promise<Said>;
  /** `helm upgrade --install` of our chart. @throws when it fails */
  install(release: string, values: object): Promise<void>;
  /** Runs the backup of a release now. Resolves to the job's name. */
  runNow(cronJob: string): Promise<string>;
  /** Waits for a job's end, and resolves to what came of its pod's container. */
  ended(job: string, container?: string): Promise<Said>;
  /** The pod of a job, once it is there. */
  podOf(job: string): Promise<string>;
  /** Waits until a container has said so. */
  logged(pod: string, container: string, text: string | RegExp): Promise<void>;
};

/** Makes a namespace. What is in it goes with it. */
export async function openNamespace(prefix: string): Promise<Namespace> {
  const name = `${prefix}-${randomBytes(3).toString('hex')}`;

  async function run(program: string, args: readonly string[], input?: string): Promise<Said> {
    const stdin = input === undefined ? { stdin: 'ignore' as const } : { input };
    const ended = await execa(program, ['--namespace', name, ...args], { reject: false, all: true, ...stdin });
    return { exitCode: ended.exitCode ?? -1, out: ended.stdout, all: ended.all };
  }
  const tryKubectl = (...args: readonly string[]) => run('kubectl', args);
  async function kubectl(...args: readonly string[]): Promise<string> {
    const { exitCode, out, all } = await tryKubectl(...args);
    if (exitCode !== 0) throw new Error(`kubectl ${args.join(' ')}: ${all}`);
    return out;
  }
  async function apply(...objects: readonly object[]): Promise<void> {
    const input = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects });
    const { exitCode, all } = await run('kubectl', ['apply', '--filename', '-'], input);
    if (exitCode !== 0) throw new Error(`apply: ${all}`);
  }
  async function evict(pod: string): Promise<Said> {
    const path = `/api/v1/namespaces/${name}/pods/${pod}/eviction`;
    const eviction = { apiVersion: 'policy/v1', kind: 'Eviction', metadata: { name: pod, namespace: name } };
    return run('kubectl', ['create', '--raw', path, '--filename', '-'], JSON.stringify(eviction));
  }
  async function get(kind: string, object: string) {
    const { exitCode, out, all } = await tryKubectl('get', kind, object, '--output=json');
    if (exitCode === 0) return JSON.parse(out);
    if (all.includes('NotFound')) return undefined;
    throw new Error(`get ${kind} ${object}: ${all}`);
  }
  async function list(kind: string, selector = '') {
    return JSON.parse(await kubectl('get', kind, `--selector=${selector}`, '--output=json')).items;
  }
  const helm = async (...args: readonly string[]) => run(await findHelm(), args);
  async function install(release: string, values: object): Promise<void> {
    const args = ['upgrade', '--install', release, CHART, '--values', '-'];
    const said = await run(await findHelm(), args, JSON.stringify({ ...QUIET, ...values }));
    if (said.exitCode !== 0) throw new Error(`helm install: ${said.all}`);
  }
  async function runNow(cronJob: string): Promise<string> {
    const job = `now-${randomBytes(3).toString('hex')}`;
    await kubectl('create', 'job', `--from=cronjob/${cronJob}`, job);
    return job;
  }
  async function podOf(job: string): Promise<string> {
    const podName = async () => (await list('pods', `job-name=${job}`))[0]?.metadata.name as string | undefined;
    return until(podName, { what: `a pod of job ${job}`, deadlineMs: SLOW_MS, everyMs: 250 });
  }
  async function ended(job: string, container = 'backup'): Promise<Said> {
    const pod = await podOf(job);
    const phase = async () => {
      const found = await get('pod', pod);
      const is = found?.status.phase;
      return is === 'Succeeded' || is === 'Failed' ? found : undefined;
    };
    const found = await until(phase, { what: `job ${job} to end`, deadlineMs: SLOW_MS, everyMs: 250 });
    const { containerStatuses = [], initContainerStatuses = [] } = found.status;
    const statuses = [...containerStatuses, ...initContainerStatuses];
    const exitCode = statuses.find((status) => status.name === container)?.state.terminated?.exitCode ?? -1;
    const out = await kubectl('logs', pod, '--container', container);
    return { exitCode, out, all: out };
  }
  async function logged(pod: string, container: string, text: string | RegExp): Promise<void> {
    const isSaid = async () => {
      const { out } = await tryKubectl('logs', pod, '--container', container);
      return typeof text === 'string' ? out.includes(text) : text.test(out);
    };
    await until(isSaid, { what: `${text} in the log of ${pod}`, deadlineMs: SLOW_MS, everyMs: 250 });
  }

  await kubectl('create', 'namespace', name);
  return {
    ...{ name, kubectl, tryKubectl, apply, evict, get, list, helm, install, runNow, ended, podOf, logged },
    async [Symbol.asyncDispose]() {
      await tryKubectl('delete', 'namespace', name, '--wait=false');
      await tryKubectl('delete', 'pods', '--all', '--grace-period=1', '--wait=false');
    },
  };
}

/** Uninstalls a release, and waits until its namespace is as bare as it began. @throws saying what is left */
export async function leavesNothing(space: Namespace, release: string): Promise<void> {
  await space.kubectl('delete', 'jobs', '--all', '--wait'); // those that tests began, which Helm does not know
  const { exitCode, all } = await space.helm('uninstall', release, '--wait', '--timeout', `${SLOW_MS}ms`);
  if (exitCode !== 0) throw new Error(`helm uninstall: ${all}`);
  const kinds = 'all,configmaps,secrets,serviceaccounts,roles,rolebindings,leases,persistentvolumeclaims';
  const bare = ['configmap/kube-root-ca.crt', 'serviceaccount/default'];
  let left: readonly string[] = [];
  const isBare = async () => {
    const found = (await space.kubectl('get', kinds, '--output=name')).split('\n').filter(Boolean);
    left = found.filter((name) => !bare.includes(name));
    return left.length === 0;
  };
  // What has been deleted may take its time to end.
  await until(isBare, { what: 'nothing to be left', deadlineMs: SLOW_MS, everyMs: 500 }).catch((cause: unknown) => {
    throw new Error(`${release} is uninstalled, and there still is ${left.join(', ')}`, { cause });
  });
}
