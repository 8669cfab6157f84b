/** What the tests of the Kubernetes driver stand on: a scripted API server with one Deployment. */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Log } from '../../src/core/ports.ts';
import { type KubernetesOptions, openKubernetes } from '../../src/drivers/kubernetes.ts';
import { type ApiServer, openApiServer } from '../support/api-server.ts';
import { until } from '../support/until.ts';
import { type Bench, type Conduct, OTHER_RUN, RUN } from './contract.ts';

export type KubernetesBench = Bench & {
  readonly server: ApiServer;
  readonly dir: string;
  /** What the driver had to say. */
  readonly said: readonly string[];
  /** Another sidehook of the namespace, with a state directory of its own. */
  open(name: string, options?: Partial<KubernetesOptions>): ReturnType<typeof openKubernetes>;
};

/** A folder with a kubeconfig for this server, whose token lies in the file `token` beside it. */
export async function writeKubeconfig(
  server: Pick<ApiServer, 'url' | 'namespace'>,
  dir: string,
  token = 'first',
): Promise<string> {
  const path = join(dir, 'kubeconfig');
  await writeFile(join(dir, 'token'), token);
  const config = {
    ...{ apiVersion: 'v1', kind: 'Config', 'current-context': 'test' },
    clusters: [{ name: 'test', cluster: { server: server.url, 'insecure-skip-tls-verify': true } }],
    // As a service account has it.
    users: [
      { name: 'test', user: { 'auth-provider': { name: 'tokenFile', config: { tokenFile: join(dir, 'token') } } } },
    ],
    contexts: [{ name: 'test', context: { cluster: 'test', user: 'test', namespace: server.namespace } }],
  };
  await writeFile(path, JSON.stringify(config));
  return path;
}

/** Opens a bench whose workload is the Deployment `db`. */
export async function openKubernetesBench(replicas = 1): Promise<KubernetesBench> {
  await using opened = new AsyncDisposableStack();
  const server = opened.use(await openApiServer());
  const dir = await mkdtemp(join(tmpdir(), 'sidehook-kubernetes-'));
  opened.defer(() => rm(dir, { recursive: true, force: true }));
  const kubeconfig = await writeKubeconfig(server, dir);
  const said: string[] = [];
  const open = (name: string, options: Partial<KubernetesOptions> = {}) =>
    openKubernetes({ env: { KUBECONFIG: kubeconfig }, stateDir: join(dir, name), log: aLog(said), ...options });
  const driver = opened.use(open('state'));
  const { metadata } = server.addController('deployments', 'db', { replicas });
  await until(() => server.get('deployments', 'db')?.status.readyReplicas === replicas, { what: 'db to be ready' });
  const workload = { key: 'deployment/db', instance: metadata.uid, name: 'deployment/db' };
  opened.defer(async () => {
    for (const run of [RUN, OTHER_RUN]) await killMarked(run);
  });
  const owned = opened.move();
  return {
    ...{ driver, workload, server, dir, said, open },
    impossible: { kind: 'script', name: '20-dump', interpreter: ['/opt/absent-interpreter'], text: 'true' },
    program: (conduct) => ({ kind: 'shell', line: lineOf(conduct) }),
    async state() {
      const spec = server.get('deployments', 'db')?.spec;
      return spec === undefined ? 'gone' : spec.replicas === 0 ? 'exited' : 'running';
    },
    countMarked: async (prefix) => (await findMarked(prefix)).length,
    stop: async () => server.scale('deployments', 'db', 0),
    remove: async () => {
      server.removeController('deployments', 'db');
      await until(() => server.all('pods').length === 0, { what: 'pods to be gone' });
    },
    cutOff: async () => server.setDown(true),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

function lineOf({ out = '', err = '', waits = false, exitCode = 0 }: Conduct): string {
  const waiting = waits ? 'sh -c "sleep 3600 & wait" & wait;' : '';
  return `printf %s '${out}'; printf %s '${err}' >&2; ${waiting} exit ${exitCode}`;
}

/** The processes of this machine with such a mark: the scripted server's pods are no more than that. */
async function findMarked(prefix: string): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const found = pids.map(async (pid) => {
    const text = await readFile(`/proc/${pid}/environ`, 'latin1').catch(() => '');
    return text.split('\0').some((entry) => entry.startsWith(`SIDEHOOK_STEP=${prefix}`)) ? [Number(pid)] : [];
  });
  return (await Promise.all(found)).flat();
}

async function killMarked(prefix: string): Promise<void> {
  for (const pid of await findMarked(prefix)) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // gone meanwhile
    }
  }
}

function aLog(said: string[]): Log {
  const note = (message: string, fields?: Record<string, unknown>) =>
    void said.push(`${message} ${JSON.stringify(fields)}`);
  const log: Log = { debug: note, info: note, warn: note, error: note, hookOutput: () => undefined, child: () => log };
  return log;
}
