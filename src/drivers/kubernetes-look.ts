/** One look at the namespace: a few lists, whatever is in it. */
import type { Note, View } from '../core/ports.ts';
import type { Workload, WorkloadRef } from '../core/workload.ts';
import type { Api } from './kubernetes-api.ts';
import { getLease, leaseName, listLeases } from './kubernetes-lease.ts';
import {
  type Controller,
  type ControllerKind,
  type Lease,
  listAll,
  type Pod,
  pathOf,
  type ReplicaSet,
} from './kubernetes-objects.ts';
import { findPod, getController, isOver, ownerOf, partsOf } from './kubernetes-pods.ts';
import { readRecord } from './kubernetes-record.ts';
import { notesOfScalers } from './kubernetes-scalers.ts';
import { isVeleros } from './kubernetes-velero.ts';
import { labelsOfAnnotations, readHoldLease, workloadOfController, workloadOfPod } from './kubernetes-workload.ts';

/** What a look needs to know. */
export type Lookout = {
  readonly api: Api;
  /** The sidecar's own pod: its controller is never held. */
  readonly ownPod: string | undefined;
  /** The operations for which Velero's annotations are read as ours. */
  readonly velero?: readonly string[] | undefined;
};

type Owned = { readonly kind: ControllerKind; readonly controller: Controller };

/** `Driver.look`. Targets name nothing outside of the namespace, so all that there is, is in it. */
export async function look(lookout: Lookout, signal: AbortSignal): Promise<View> {
  const { api } = lookout;
  const [deployments, statefulSets, replicaSets, allPods, leases] = await Promise.all([
    listAll<Controller>(api, pathOf(api, 'deployments'), signal),
    listAll<Controller>(api, pathOf(api, 'statefulsets'), signal),
    listAll<ReplicaSet>(api, pathOf(api, 'replicasets'), signal),
    listAll<Pod>(api, pathOf(api, 'pods'), signal),
    listLeases(api, signal),
  ]);
  const owned: Owned[] = [
    ...deployments.map((controller) => ({ kind: 'deployment', controller }) as const),
    ...statefulSets.map((controller) => ({ kind: 'statefulset', controller }) as const),
  ];
  const byUid = new Map(owned.map((one) => [one.controller.metadata.uid ?? '', one]));
  for (const { metadata } of replicaSets) {
    const owner = byUid.get(ownerOf(metadata)?.uid ?? '');
    if (owner !== undefined) byUid.set(metadata.uid ?? '', owner);
  }
  const holdLeases = new Map<string, Lease>(
    leases.filter(({ kind }) => kind === 'hold').map((one) => [one.metadata.name, one]),
  );
  const leaseOf = ({ kind, controller }: Owned): Lease | undefined =>
    holdLeases.get(leaseName('hold', keyOf(kind, controller)));
  const pods = allPods.filter((pod) => !isOver(pod));
  const ownedBy = (pod: Pod): Owned | undefined => byUid.get(ownerOf(pod.metadata)?.uid ?? '');
  const own = pods.find(({ metadata }) => metadata.name === lookout.ownPod);
  const self = own === undefined ? undefined : ownedBy(own);

  const controllers = owned.map((one): Workload => {
    const { kind, controller } = one;
    return workloadOfController(kind, controller, leaseOf(one), whyUnholdable(controller, self));
  });
  const withPods = new Set(pods.map(ownedBy));
  const without = owned.filter((one) => !withPods.has(one));
  const absent = without.flatMap((one) => podsHeldDown(lookout, one, leaseOf(one)));
  const present = pods.map((pod) => podWorkload(lookout, pod, ownedBy(pod)));
  const workloads = [...controllers, ...present.map(({ workload }) => workload), ...absent];
  const silent = without.filter((one) => !absent.some(({ partOf }) => partOf === keyOf(one.kind, one.controller)));
  const told = present.flatMap(({ notes }) => notes);
  const notes = [...told, ...notesOfSilence(silent, lookout), ...(await notesOfScalers(api, owned, signal))];
  return { workloads, notes, heldElsewhere: heldKeys(leases) };
}

/** `Driver.inspect`. */
export async function inspectWorkload(
  lookout: Lookout,
  ref: WorkloadRef & { readonly partOf?: string },
  signal: AbortSignal,
): Promise<Workload | undefined> {
  const { api, ownPod } = lookout;
  const parts = partsOf(ref.key);
  if (parts === undefined) {
    const pod = await findPod(api, ref, signal);
    if (pod === undefined) return undefined;
    const controller = ref.partOf === undefined ? undefined : await getController(api, ref.partOf, signal);
    const kind = partsOf(ref.partOf ?? '')?.kind;
    const owner = kind === undefined || controller === undefined ? undefined : { kind, controller };
    return podWorkload(lookout, pod, owner).workload;
  }
  const [controller, lease] = await Promise.all([
    getController(api, ref.key, signal),
    getLease(api, leaseName('hold', ref.key), signal),
  ]);
  if (controller === undefined) return undefined;
  const isOurs = ownPod?.startsWith(`${parts.name}-`) === true && (await ownsPod(api, controller, ownPod, signal));
  return workloadOfController(parts.kind, controller, lease, isOurs ? ITSELF : undefined);
}

async function ownsPod(api: Api, { metadata }: Controller, name: string, signal: AbortSignal): Promise<boolean> {
  const pod = await findPod(api, { key: `pod/${name}`, instance: '', name }, signal);
  const owner = pod === undefined ? undefined : ownerOf(pod.metadata);
  return owner?.uid === metadata.uid || owner?.name.startsWith(`${metadata.name}-`) === true;
}

const ITSELF = 'the sidecar itself lives in it';

function whyUnholdable({ metadata }: Controller, self: Owned | undefined): string | undefined {
  return self !== undefined && self.controller.metadata.uid === metadata.uid ? ITSELF : undefined;
}

/** The pods that a workload will have again once its hold is over: who wants to run a hook in them waits for that. */
function podsHeldDown(lookout: Lookout, owner: Owned, lease: Lease | undefined): Workload[] {
  if (lease === undefined) return [];
  const { name } = owner.controller.metadata;
  const { metadata, spec } = owner.controller.spec.template;
  const { replicas } = readHoldLease(lease);
  const pods = Array.from({ length: replicas }, (_, index) => ({
    metadata: { ...metadata, name: `${name}-${index}` },
    spec,
  }));
  return pods.map((pod) => podWorkload(lookout, pod, owner).workload);
}

/** By the holds that there are, and by those that runs have claimed. */
function heldKeys(leases: readonly Lease[]): readonly string[] {
  return leases.flatMap((lease) => {
    const key = lease.metadata.annotations?.['sidehook.io/workload'];
    const claims = readRecord(lease)?.claims ?? [];
    return [...(key === undefined ? [] : [key]), ...claims.filter(({ use }) => use === 'hold').map((one) => one.key)];
  });
}

function keyOf(kind: ControllerKind, { metadata }: Controller): string {
  return `${kind}/${metadata.name}`;
}

function podWorkload({ velero }: Lookout, pod: Pod, owner: Owned | undefined): ReturnType<typeof workloadOfPod> {
  if (owner === undefined) return workloadOfPod(pod, undefined, velero);
  const { kind, controller } = owner;
  const template = controller.spec.template.metadata?.annotations ?? {};
  return workloadOfPod(pod, { key: keyOf(kind, controller), template }, velero);
}

/** Hooks that a template asks for, and no pod is there to run them in: nothing is skipped in silence. */
function notesOfSilence(without: readonly Owned[], { velero }: Lookout): Note[] {
  return without.flatMap(({ kind, controller }) => {
    const { annotations = {} } = controller.spec.template.metadata ?? {};
    const labels = Object.keys(labelsOfAnnotations(annotations));
    const hooks = labels.filter((label) => /^sidehook\.(?!hold\b)[^.]+\.[^.]+$/.test(label));
    const veleros = velero === undefined ? [] : Object.keys(annotations).filter(isVeleros);
    if (hooks.length + veleros.length === 0) return [];
    return [`${keyOf(kind, controller)}: its annotations ask for hooks, and it has no pod to run them in`];
  });
}
