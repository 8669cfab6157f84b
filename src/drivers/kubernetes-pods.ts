/** Finds pods, and says how they are. */
import type { WorkloadRef } from '../core/workload.ts';
import type { Api } from './kubernetes-api.ts';
import {
  type Controller,
  type ControllerKind,
  getOne,
  listAll,
  type Metadata,
  type Owner,
  type Pod,
  pathOf,
  type ReplicaSet,
  type Selector,
} from './kubernetes-objects.ts';

const DEFAULT_CONTAINER = 'kubectl.kubernetes.io/default-container';

/** Runs, and nobody has asked for its end. */
export function isRunning({ metadata, status }: Pod): boolean {
  return status?.phase === 'Running' && metadata.deletionTimestamp === undefined;
}

/** It has ended, or is about to: whatever takes its place is another pod. */
export function isOver({ metadata, status }: Pod): boolean {
  return metadata.deletionTimestamp !== undefined || status?.phase === 'Succeeded' || status?.phase === 'Failed';
}

export function isReady({ status }: Pod): boolean {
  return (status?.conditions ?? []).some((one) => one.type === 'Ready' && one.status === 'True');
}

/** Its containers, native sidecars included. */
export function containersOf({ spec }: Pod): string[] {
  const sidecars = (spec.initContainers ?? []).filter(({ restartPolicy }) => restartPolicy === 'Always');
  return [...spec.containers, ...sidecars].map(({ name }) => name);
}

/** The one that is named, else the pod's default one; undefined: it has no such container. */
export function containerOf(pod: Pod, wanted?: string): string | undefined {
  const names = containersOf(pod);
  const name = wanted ?? pod.metadata.annotations?.[DEFAULT_CONTAINER] ?? names[0];
  return name !== undefined && names.includes(name) ? name : undefined;
}

/** What tells one start of a container from the next; undefined: it does not run. */
export function runningIn({ status }: Pod, container: string): string | undefined {
  const all = [...(status?.containerStatuses ?? []), ...(status?.initContainerStatuses ?? [])];
  const found = all.find(({ name }) => name === container);
  return found?.state?.running === undefined ? undefined : (found.containerID ?? 'running');
}

/** `deployment/web`, taken apart; undefined for a pod's key. */
export function partsOf(key: string): { readonly kind: ControllerKind; readonly name: string } | undefined {
  const [, kind, name] = /^(deployment|statefulset)\/(.+)$/.exec(key) ?? [];
  return kind === undefined || name === undefined ? undefined : { kind: kind as ControllerKind, name };
}

/** The controller with this key; undefined: there is none. @throws OperationalError as `Api.ask` */
export function getController(api: Api, key: string, signal: AbortSignal): Promise<Controller | undefined> {
  const parts = partsOf(key);
  if (parts === undefined) return Promise.resolve(undefined);
  return getOne<Controller>(api, pathOf(api, `${parts.kind}s`, parts.name), `look for ${key}`, signal);
}

/** Its pods. A selector may find those of others, too: their owner counts. @throws OperationalError as `Api.ask` */
export async function podsOf(api: Api, { metadata, spec }: Controller, signal: AbortSignal): Promise<readonly Pod[]> {
  const query = { labelSelector: selectorText(spec.selector) };
  const pods = await listAll<Pod>(api, pathOf(api, 'pods'), signal, query);
  const owners = pods.map((pod) => ownerOf(pod.metadata));
  const isByWay = owners.some((owner) => owner?.kind === 'ReplicaSet');
  const sets = isByWay ? await listAll<ReplicaSet>(api, pathOf(api, 'replicasets'), signal, query) : [];
  const ours = sets.filter((set) => ownerOf(set.metadata)?.uid === metadata.uid);
  const uids = new Set([metadata.uid, ...ours.map((set) => set.metadata.uid)]);
  return pods.filter((_pod, index) => uids.has(owners[index]?.uid));
}

/** Who made it, and keeps it. */
export function ownerOf({ ownerReferences = [] }: Metadata): Owner | undefined {
  return ownerReferences.find(({ controller }) => controller === true);
}

function selectorText({ matchLabels = {}, matchExpressions = [] }: Selector): string {
  const expressions = matchExpressions.map(({ key, operator, values = [] }) => {
    if (operator === 'Exists') return key;
    if (operator === 'DoesNotExist') return `!${key}`;
    return `${key} ${operator === 'In' ? 'in' : 'notin'} (${values.join(',')})`;
  });
  return [...Object.entries(matchLabels).map(([label, value]) => `${label}=${value}`), ...expressions].join(',');
}

/**
 * The pod that is meant, or what took its place: the same name (a StatefulSet's), or another one of its controller.
 * Undefined: neither is there. @throws OperationalError as `Api.ask`
 */
export async function findPod(
  api: Api,
  ref: WorkloadRef & { readonly partOf?: string },
  signal: AbortSignal,
): Promise<Pod | undefined> {
  const controllerKey = partsOf(ref.key) === undefined ? ref.partOf : ref.key;
  const name = partsOf(ref.key) === undefined ? ref.key.replace(/^pod\//, '') : undefined;
  const same =
    name === undefined ? undefined : await getOne<Pod>(api, pathOf(api, 'pods', name), `look for pod ${name}`, signal);
  if (same !== undefined && !isOver(same)) return same;
  const controller = controllerKey === undefined ? undefined : await getController(api, controllerKey, signal);
  if (controller === undefined) return same;
  const heirs = (await podsOf(api, controller, signal)).filter((pod) => !isOver(pod));
  const [heir] = heirs.toSorted((a, b) => rank(b) - rank(a) || byName(a, b));
  return heir ?? same;
}

function rank(pod: Pod): number {
  return Number(isRunning(pod)) + Number(isReady(pod));
}

function byName(a: Pod, b: Pod): number {
  return a.metadata.name < b.metadata.name ? -1 : 1;
}
