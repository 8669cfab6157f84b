import { existsSync, statSync } from 'node:fs';
import { OperationalError } from '../core/errors.ts';
import type { Driver, Log } from '../core/ports.ts';
import { openNone } from './none.ts';

/** What a driver is chosen and opened by. */
export type DriverOptions = {
  readonly engine: 'auto' | 'docker' | 'kubernetes' | 'none';
  readonly scope: 'project' | 'host' | readonly string[];
  /** What clients share with us, and what they must not: a container that mounts the first is a client. */
  readonly runDir: string;
  readonly stateDir: string;
  /** What no client may write, by the setting that names it. */
  readonly own: readonly { readonly name: string; readonly path: string }[];
  /** Whose labels or annotations are read as ours, too. */
  readonly compat: readonly string[];
  readonly operations: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly log: Log;
};

/**
 * Opens the driver of the engine that is named, or found: by DOCKER_HOST, at the usual sockets, or by the service account
 * of the pod that we are in. Drivers are imported
 * only here, and only the one that is chosen.
 * @throws OperationalError `configuration`: no engine is found, and none was not said
 */
export async function openDriver(options: DriverOptions): Promise<Driver & AsyncDisposable> {
  const { engine, env } = options;
  const noCompat = (): void => {
    if (options.compat.length > 0)
      throw new OperationalError('configuration', 'compat: velero is for Kubernetes alone');
  };
  if (engine === 'none') noCompat();
  if (engine === 'none') return { ...openNone(), [Symbol.asyncDispose]: () => Promise.resolve() };
  if (engine === 'kubernetes') return openCluster(options);
  const host = env.DOCKER_HOST || usualSocket(env);
  if (host === undefined) {
    if (engine === 'auto' && env.KUBERNETES_SERVICE_HOST !== undefined && existsSync(TOKEN))
      return openCluster(options);
    const places = `DOCKER_HOST, ${socketsOf(env).join(', ')}, nor a service account's token`;
    const why = `no engine found at ${places}: mount its socket, or say engine: none`;
    throw new OperationalError('configuration', `engine ${engine}: ${why}`);
  }
  noCompat();
  const { openDocker } = await import('./docker.ts');
  const certDir = env.DOCKER_CERT_PATH;
  return openDocker({ ...options, host, ...(certDir ? { certDir } : {}) });
}

const TOKEN = '/var/run/secrets/kubernetes.io/serviceaccount/token';

async function openCluster(options: DriverOptions): Promise<Driver & AsyncDisposable> {
  if (options.scope !== 'project') {
    const why = 'on Kubernetes it is the namespace, and nothing else: leave it out';
    throw new OperationalError('configuration', `scope: ${why}`);
  }
  const { openKubernetes } = await import('./kubernetes.ts');
  return openKubernetes(options);
}

function usualSocket(env: DriverOptions['env']): string | undefined {
  const path = socketsOf(env).find((candidate) => statSync(candidate, { throwIfNoEntry: false })?.isSocket());
  return path === undefined ? undefined : `unix://${path}`;
}

function socketsOf({ XDG_RUNTIME_DIR: own }: DriverOptions['env']): string[] {
  const rootless = own === undefined ? [] : [`${own}/docker.sock`, `${own}/podman/podman.sock`];
  return ['/var/run/docker.sock', '/run/podman/podman.sock', ...rootless];
}
