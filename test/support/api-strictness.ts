/** What a real API server says of bodies that are not as they have to be; `undefined`: nothing. */
import type { Fault } from './api-server.ts';

/** How the API calls what is kept under a path. */
export const KINDS: Readonly<Record<string, { readonly apiVersion: string; readonly kind: string }>> = {
  pods: { apiVersion: 'v1', kind: 'Pod' },
  deployments: { apiVersion: 'apps/v1', kind: 'Deployment' },
  statefulsets: { apiVersion: 'apps/v1', kind: 'StatefulSet' },
  replicasets: { apiVersion: 'apps/v1', kind: 'ReplicaSet' },
  leases: { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease' },
  horizontalpodautoscalers: { apiVersion: 'autoscaling/v2', kind: 'HorizontalPodAutoscaler' },
};
const SCALE = { apiVersion: 'autoscaling/v1', kind: 'Scale' };

const LEASE_SPEC: Readonly<Record<string, (value: unknown) => boolean>> = {
  holderIdentity: (value) => typeof value === 'string' && value !== '',
  leaseDurationSeconds: (value) => Number.isInteger(value) && (value as number) > 0,
  leaseTransitions: (value) => Number.isInteger(value) && (value as number) >= 0,
  acquireTime: isMicroTime,
  renewTime: isMicroTime,
  strategy: (value) => typeof value === 'string',
  preferredHolder: (value) => typeof value === 'string',
};
const METADATA = [
  ...['name', 'namespace', 'uid', 'resourceVersion', 'generation', 'creationTimestamp', 'deletionTimestamp'],
  ...['labels', 'annotations', 'ownerReferences', 'finalizers', 'managedFields'],
];
const MOST_ANNOTATIONS = 256 * 1024;
const NAME = /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/;
const LABEL_VALUE = /^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$/;

type Body = {
  readonly apiVersion?: unknown;
  readonly kind?: unknown;
  readonly metadata?: Readonly<Record<string, unknown>>;
  readonly spec?: Readonly<Record<string, unknown>>;
};

/** Of something that is to be made (`name` undefined) or written over. */
export function faultOf(
  what: string,
  name: string | undefined,
  sub: string | undefined,
  body: unknown,
): Fault | undefined {
  const { apiVersion, kind } = sub === 'scale' ? SCALE : (KINDS[what] ?? SCALE);
  const given = (body ?? {}) as Body;
  if (given.kind !== kind || given.apiVersion !== apiVersion) {
    return refusal(400, `${given.kind} in version "${given.apiVersion}" cannot be handled as a ${kind}`);
  }
  const stray = [
    ...Object.keys(given).filter((key) => !['apiVersion', 'kind', 'metadata', 'spec', 'status'].includes(key)),
    ...Object.keys(given.metadata ?? {}).filter((key) => !METADATA.includes(key)),
    ...(kind === 'Lease' ? Object.keys(given.spec ?? {}).filter((key) => LEASE_SPEC[key] === undefined) : []),
    ...(kind === 'Scale' ? Object.keys(given.spec ?? {}).filter((key) => key !== 'replicas') : []),
  ];
  if (stray.length > 0) return refusal(400, `strict decoding error: unknown field "${stray.join('", "')}"`);
  const { metadata = {}, spec = {} } = given;
  if (name !== undefined && metadata.name !== name) {
    return refusal(400, `the name of the object (${metadata.name}) does not match the name on the URL (${name})`);
  }
  const wrong = wrongIn(metadata, kind === 'Lease' ? spec : {}, name === undefined);
  return wrong.length === 0 ? undefined : refusal(422, `${kind} "${metadata.name}" is invalid: ${wrong.join(', ')}`);
}

function wrongIn(
  { name, resourceVersion, labels = {}, annotations = {} }: Readonly<Record<string, unknown>>,
  spec: Readonly<Record<string, unknown>>,
  isNew: boolean,
): string[] {
  const wrong = Object.entries(spec)
    .filter(([key, value]) => LEASE_SPEC[key]?.(value) === false)
    .map(([key, value]) => `spec.${key}: Invalid value: ${JSON.stringify(value)}`);
  if (typeof name !== 'string' || !NAME.test(name) || name.length > 253) wrong.push(`metadata.name: ${name}`);
  if (isNew && resourceVersion !== undefined) wrong.push('resourceVersion should not be set on objects to be created');
  if (!isNew && !resourceVersion) wrong.push('metadata.resourceVersion: must be specified for an update');
  for (const [key, value] of Object.entries(labels as object)) {
    if (typeof value !== 'string' || value.length > 63 || !LABEL_VALUE.test(value))
      wrong.push(`label ${key}: ${value}`);
  }
  const values = Object.entries(annotations as object);
  if (values.some(([, value]) => typeof value !== 'string')) wrong.push('metadata.annotations: not strings');
  const bytes = values.reduce(
    (sum, [key, value]) => sum + Buffer.byteLength(key) + Buffer.byteLength(String(value)),
    0,
  );
  if (bytes > MOST_ANNOTATIONS) wrong.push('metadata.annotations: Too long: may not be more than 262144 bytes');
  return wrong;
}

function isMicroTime(value: unknown): boolean {
  return typeof value === 'string' && /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/.test(value);
}

function refusal(status: number, message: string): Fault {
  const reason = status === 400 ? 'BadRequest' : 'Invalid';
  return { status, body: { kind: 'Status', status: 'Failure', reason, message, code: status } };
}
