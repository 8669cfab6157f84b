/** Docker, and Podman's Docker API. */
import { OperationalError } from '../core/errors.ts';
import type { Driver, Log } from '../core/ports.ts';
import { openApi } from './docker-api.ts';
import { changes } from './docker-changes.ts';
import { examine } from './docker-doctor.ts';
import { endMarked } from './docker-end.ts';
import { exec } from './docker-exec.ts';
import { findContainer } from './docker-find.ts';
import type { OwnPlace } from './docker-guard.ts';
import { hold, release } from './docker-hold.ts';
import { inspectWorkload, look, workloadOfContainer } from './docker-look.ts';
import { findSelf, type Self } from './docker-self.ts';
import { findStopping } from './docker-stopping.ts';

/** Which engine, what of it is ours, and where the sidecar keeps its own. */
export type DockerOptions = {
  /** As DOCKER_HOST: `unix:///PATH` or `tcp://HOST:PORT`. */
  readonly host: string;
  /** As DOCKER_CERT_PATH: a folder with ca.pem, cert.pem and key.pem. */
  readonly certDir?: string;
  /** The sidecar's own compose project, everything, or these projects beside its own. */
  readonly scope: 'project' | 'host' | readonly string[];
  readonly runDir: string;
  readonly stateDir: string;
  /** What no client may write: hooks, state, configuration. */
  readonly own?: readonly OwnPlace[];
  readonly log?: Log;
};

/**
 * Opens the driver. Asks nothing yet: an engine that is away is an outage of what is asked then. Disposing of it ends
 * `changes` and the connections, not the hooks.
 * @throws OperationalError `configuration` for a host that makes no sense
 */
export async function openDocker(options: DockerOptions): Promise<Driver & AsyncDisposable> {
  const { host, certDir, scope, runDir, stateDir, own = [], log } = options;
  const api = await openApi(host, certDir);
  const closing = new AbortController();

  let known: Self | undefined;
  const findSelfOnce = async (signal: AbortSignal): Promise<Self> => {
    known ??= await findSelf(api, signal);
    const self = known;
    if (self.kind === 'unknown') known = undefined; // perhaps the engine knows us a little later
    return self;
  };
  const lookout = { api, scope, runDir, stateDir, own, findSelf: findSelfOnce, imageLabels: new Map() };

  return {
    engine: 'docker',
    look: (targets, signal) => look(lookout, targets, signal),
    inspect: (ref, signal) => inspectWorkload(lookout, ref, signal),
    exec: (call, sink, signal) => exec({ api, log }, call, sink, signal),
    hold: async (ref, kind, timeoutMs, signal) =>
      workloadOfContainer(lookout, await hold(api, ref, kind, timeoutMs, signal), signal),
    release: async (ref, kind, signal) => workloadOfContainer(lookout, await release(api, ref, kind, signal), signal),
    findStopping: (except, forMs, signal) => findStopping(lookout, except, forMs, signal),
    changes: (signal) => changes(api, log, AbortSignal.any([signal, closing.signal])),
    examine: (uses, signal) => examine(lookout, uses, signal),
    async endLeftovers(ref, markPrefix, signal) {
      const container = await findContainer(api, ref, signal);
      if (container === undefined || container.State.Running !== true) return;
      const why = await endMarked(api, container.Id, { mark: markPrefix, match: 'prefix' });
      if (why === undefined) return;
      throw new OperationalError('workload-failed', `end what a hook left running in ${ref.name}: ${why}`);
    },
    async [Symbol.asyncDispose]() {
      closing.abort();
      api.close();
    },
  };
}
