/** Kubernetes: hooks in pods, and Deployments and StatefulSets that are scaled to zero and back. */
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { OperationalError } from '../core/errors.ts';
import type { Driver, Log } from '../core/ports.ts';
import type { Workload, WorkloadRef } from '../core/workload.ts';
import { openApi } from './kubernetes-api.ts';
import { changes } from './kubernetes-changes.ts';
import { examine } from './kubernetes-doctor.ts';
import { endMarked } from './kubernetes-end.ts';
import { exec } from './kubernetes-exec.ts';
import { hold, release } from './kubernetes-hold.ts';
import { PACE, type Pace } from './kubernetes-lease.ts';
import { makeLedger } from './kubernetes-ledger.ts';
import { inspectWorkload, look } from './kubernetes-look.ts';
import { containerOf, findPod, isRunning } from './kubernetes-pods.ts';

/** How the API is found, and who we are there. */
export type KubernetesOptions = {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly stateDir: string;
  /** Whose annotations are read as ours, too. */
  readonly compat?: readonly string[];
  /** Those that are allowed here. */
  readonly operations?: readonly string[];
  readonly log?: Log;
  /** For tests. */
  readonly pace?: Pace;
};

/**
 * Opens the driver. Asks nothing yet: an API that is away is an outage of what is asked then. Disposing of it ends
 * `changes`, not the hooks.
 * @throws OperationalError `configuration`: no cluster is named
 */
export function openKubernetes(options: KubernetesOptions): Driver & AsyncDisposable {
  const { env, stateDir, log, pace = PACE, compat = [], operations = [] } = options;
  const api = openApi({ env });
  const closing = new AbortController();
  const ownPod = env.KUBERNETES_SERVICE_HOST === undefined ? undefined : env.POD_NAME || hostname();
  const lookout = { api, ownPod, velero: compat.includes('velero') ? operations : undefined };
  let known: string | undefined;
  /** Written down when it is first needed, and not by who only looks. */
  const identity = (): string => {
    known ??= identityOf(stateDir, ownPod ?? hostname());
    return known;
  };
  const ledger = makeLedger({ api, log, identity, pace });
  const holder = {
    ...{ api, log, pace, sharersOf: ledger.sharersOf },
    get identity(): string {
      return identity();
    },
  };
  const mustInspect = async (ref: WorkloadRef, signal: AbortSignal): Promise<Workload> => {
    const found = await inspectWorkload(lookout, ref, signal);
    if (found !== undefined) return found;
    throw new OperationalError('workload-failed', `scale ${ref.name}: it was removed meanwhile`);
  };
  const onlyScale = (kind: string): void => {
    if (kind !== 'scale') throw new OperationalError('workload-failed', `${kind}: Kubernetes can only scale`);
  };

  return {
    engine: 'kubernetes',
    ledger,
    look: (_targets, signal) => look(lookout, signal),
    inspect: (ref, signal) => inspectWorkload(lookout, ref, signal),
    exec: (call, sink, signal) => exec({ api, log }, call, sink, signal),
    async hold(ref, kind, timeoutMs, signal) {
      onlyScale(kind);
      await hold(holder, ref, timeoutMs, signal);
      return mustInspect(ref, signal);
    },
    async release(ref, kind, signal) {
      onlyScale(kind);
      await release(holder, ref, signal);
      return mustInspect(ref, signal);
    },
    examine: (uses, signal) => examine(lookout, uses, signal),
    changes: (signal) => changes(api, log, AbortSignal.any([signal, closing.signal])),
    async endLeftovers(ref, markPrefix, signal) {
      const pod = await findPod(api, ref, signal);
      if (pod === undefined || !isRunning(pod)) return;
      const container = containerOf(pod, (ref as { readonly container?: string }).container);
      if (container === undefined) return;
      const why = await endMarked({ api, pod, container }, { mark: markPrefix, match: 'prefix' });
      if (why === undefined) return;
      throw new OperationalError('workload-failed', `end what a hook left running in pod ${ref.name}: ${why}`);
    },
    async [Symbol.asyncDispose]() {
      closing.abort();
    },
  };
}

/** Who we are in Leases: as long as the journal lives, for what the journal knows is what we can finish ourselves. */
function identityOf(stateDir: string, name: string): string {
  const path = join(stateDir, 'identity');
  const known = existsSync(path) ? readFileSync(path, 'utf8').trim() : '';
  if (known !== '') return known; // a crash may have left an empty one
  const identity = `${name}_${randomBytes(6).toString('hex')}`;
  mkdirSync(stateDir, { recursive: true, mode: 0o700 });
  writeFileSync(`${path}.new`, identity, { flush: true });
  renameSync(`${path}.new`, path);
  return identity;
}
