/** Leases: what the cluster remembers for us, changed only as we read it. */
import { createHash } from 'node:crypto';
import { OperationalError } from '../core/errors.ts';
import type { Api } from './kubernetes-api.ts';
import { getOne, type Lease, listAll, pathOf } from './kubernetes-objects.ts';

/** How long a Lease must stand still until its holder counts as lost, and how often it is renewed. */
export type Pace = { readonly durationMs: number; readonly renewMs: number };

export const PACE: Pace = { durationMs: 60_000, renewMs: 10_000 };

const MANAGED_BY = 'app.kubernetes.io/managed-by';
const WHAT = 'sidehook.io/lease';

/** What a Lease is about. */
export type LeaseKind = 'job' | 'kept' | 'hold';

/** What we write into one. */
export type Content = {
  readonly kind: LeaseKind;
  readonly holder: string;
  readonly pace: Pace;
  readonly annotations: Readonly<Record<string, string>>;
};

/** A name that any job or workload can have: 63 characters at most, lower case, and unlike every other's. */
export function leaseName(kind: LeaseKind, of: string): string {
  const plain = `sidehook-${kind}-${of.replace('/', '-')}`;
  if (plain.length <= 63 && /^[a-z0-9-]*[a-z0-9]$/.test(plain)) return plain;
  const hash = createHash('sha256').update(of).digest('hex').slice(0, 10);
  return `${plain
    .toLowerCase()
    .replaceAll(/[^a-z0-9-]/g, '-')
    .slice(0, 50)}-${hash}`;
}

export function getLease(api: Api, name: string, signal: AbortSignal): Promise<Lease | undefined> {
  return getOne<Lease>(api, pathOf(api, 'leases', name), `read lease ${name}`, signal);
}

/** All of ours. @throws OperationalError as `Api.ask` */
export async function listLeases(api: Api, signal: AbortSignal): Promise<readonly (Lease & { kind: LeaseKind })[]> {
  const leases = await listAll<Lease>(api, pathOf(api, 'leases'), signal, { labelSelector: `${MANAGED_BY}=sidehook` });
  return leases.flatMap((lease) => {
    const kind = lease.metadata.labels?.[WHAT];
    return kind === 'job' || kind === 'kept' || kind === 'hold' ? [{ ...lease, kind }] : [];
  });
}

/** Makes one; undefined: somebody has it already. @throws OperationalError as `Api.ask` */
export async function createLease(
  api: Api,
  name: string,
  content: Content,
  signal: AbortSignal,
): Promise<Lease | undefined> {
  const body = {
    ...{ apiVersion: 'coordination.k8s.io/v1', kind: 'Lease' },
    metadata: {
      name,
      labels: { [MANAGED_BY]: 'sidehook', [WHAT]: content.kind },
      annotations: content.annotations,
    },
    spec: { ...specOf(content), acquireTime: microTime(), leaseTransitions: 0 },
  };
  const question = { doing: `write lease ${name}`, method: 'POST', path: pathOf(api, 'leases'), body } as const;
  const answer = await api.ask({ ...question, accept: [409], signal });
  return answer.status === 409 ? undefined : (answer.body as Lease);
}

/** Changes one that is still as we read it; undefined: it is not, or is gone. @throws OperationalError as `Api.ask` */
export async function updateLease(
  api: Api,
  lease: Lease,
  { holder, pace, annotations }: Omit<Content, 'kind'>,
  signal: AbortSignal,
): Promise<Lease | undefined> {
  const { name } = lease.metadata;
  const body = {
    ...lease,
    ...{ apiVersion: 'coordination.k8s.io/v1', kind: 'Lease' }, // which a list's items lack, and the API insists upon
    metadata: { ...lease.metadata, annotations: { ...lease.metadata.annotations, ...annotations } },
    spec: { ...lease.spec, ...specOf({ holder, pace }) },
  };
  const question = { doing: `write lease ${name}`, method: 'PUT', path: pathOf(api, 'leases', name), body } as const;
  const answer = await api.ask({ ...question, accept: [404, 409], signal });
  return answer.status === 404 || answer.status === 409 ? undefined : (answer.body as Lease);
}

/** Deletes one that is still as we read it. False: it has changed. @throws OperationalError as `Api.ask` */
export async function deleteLease(api: Api, { metadata }: Lease, signal: AbortSignal): Promise<boolean> {
  const { name, uid, resourceVersion } = metadata;
  const body = { preconditions: { uid, resourceVersion } };
  const question = {
    doing: `delete lease ${name}`,
    method: 'DELETE',
    path: pathOf(api, 'leases', name),
    body,
  } as const;
  const { status } = await api.ask({ ...question, accept: [404, 409], signal });
  return status !== 409;
}

const MOST_TRIES = 20;

/** Repeats a change until nobody came in between. @throws OperationalError `workload-failed` when somebody always does */
export async function untilUndisturbed<T>(doing: string, work: () => Promise<T | undefined>): Promise<T> {
  for (let tries = 0; tries < MOST_TRIES; tries += 1) {
    const result = await work();
    if (result !== undefined) return result;
  }
  throw new OperationalError('workload-failed', `${doing}: it was changed by others each of ${MOST_TRIES} times`);
}

function specOf({ holder, pace }: Pick<Content, 'holder' | 'pace'>) {
  return {
    holderIdentity: holder,
    leaseDurationSeconds: Math.ceil(pace.durationMs / 1000),
    renewTime: microTime(),
  };
}

/** For people, and to differ from the one before: nobody compares it with a clock of his own. */
function microTime(): string {
  const micros = String(Math.floor((performance.timeOrigin + performance.now()) * 1000) % 1000).padStart(3, '0');
  return new Date().toISOString().replace('Z', `${micros}Z`);
}
