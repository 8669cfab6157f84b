/** The API's objects in the run's words: controllers and pods become workloads. */
import { OperationalError } from '../core/errors.ts';
import type { Lost } from '../core/ledger.ts';
import type { Note } from '../core/ports.ts';
import type { Workload } from '../core/workload.ts';
import type { Controller, ControllerKind, Lease, Pod } from './kubernetes-objects.ts';
import { containersOf, isReady, isRunning } from './kubernetes-pods.ts';
import { isVeleros, readVelero } from './kubernetes-velero.ts';

const PREFIX = 'sidehook.io/';
/** Of what a pod template says, this is for its controller; all else is for each pod. */
const FOR_CONTROLLER = /^sidehook\.(?:hold(?:\..*)?|job)$/;
const FOR_POD = /^(?!sidehook\.hold(?:\.|$))/;
const DEFAULT_TERM_S = 600;

/** `sidehook.io/hold: scale` reads as the label `sidehook.hold: scale`. */
export function labelsOfAnnotations(annotations: Readonly<Record<string, string>> = {}): Record<string, string> {
  const own = Object.entries(annotations).filter(([name]) => name.startsWith(PREFIX));
  return Object.fromEntries(own.map(([name, value]) => [`sidehook.${name.slice(PREFIX.length)}`, value]));
}

/** What a hold's Lease says of the workload. */
export type HoldLease = {
  readonly replicas: number;
  readonly uid: string;
  /** The marks of the incarnation that was held, and of its end, once that is known. */
  readonly started: string;
  readonly finished?: string;
  readonly sharers: readonly Sharer[];
};

/** A run that shares a hold. */
export type Sharer = { readonly run: string; readonly job: string; readonly holder: string };

export function readHoldLease({ metadata }: Lease): HoldLease {
  const { annotations = {} } = metadata;
  const read = (name: string): string | undefined => annotations[`${PREFIX}${name}`];
  const finished = read('finished');
  return {
    replicas: Number(read('replicas') ?? 1),
    uid: read('uid') ?? '',
    started: read('started') ?? '',
    ...(finished ? { finished } : {}),
    sharers: JSON.parse(read('runs') ?? '[]') as Sharer[],
  };
}

export function writeHoldLease({ replicas, uid, started, finished, sharers }: HoldLease): Record<string, string> {
  return {
    [`${PREFIX}replicas`]: String(replicas),
    [`${PREFIX}uid`]: uid,
    [`${PREFIX}started`]: started,
    [`${PREFIX}finished`]: finished ?? '',
    [`${PREFIX}runs`]: JSON.stringify(sharers),
  };
}

/** No run that anybody answers for needs it held. */
export function isOrphan(lease: Lease, alive: ReadonlySet<string>): boolean {
  return !readHoldLease(lease).sharers.some(({ run }) => alive.has(run));
}

/** The hold that a Lease speaks of. */
export function holdIn(lease: Lease): Lost['holds'] {
  const key = lease.metadata.annotations?.['sidehook.io/workload'];
  const { uid, sharers } = readHoldLease(lease);
  return key === undefined ? [] : [{ ref: { key, instance: uid, name: key }, runs: sharers.map(({ run }) => run) }];
}

/** Counts the changes of what a workload is to be: the later one is the greater string. */
export function markOf({ metadata }: Controller): string {
  return `generation ${String(metadata.generation ?? 0).padStart(9, '0')}`;
}

/** By the word of who has seen what is wanted by now. */
function areAllReady({ metadata, spec, status = {} }: Controller): boolean {
  const { observedGeneration = 0, readyReplicas = 0 } = status;
  return observedGeneration >= (metadata.generation ?? 0) && readyReplicas >= (spec.replicas ?? 1);
}

/** `lease`: of the hold of it, by whichever sidehook. */
export function workloadOfController(
  kind: ControllerKind,
  controller: Controller,
  lease: Lease | undefined,
  unholdable: string | undefined,
): Workload {
  const { metadata, spec } = controller;
  const { name, uid = '' } = metadata;
  const replicas = spec.replicas ?? 1;
  const labels = labelsOfAnnotations(spec.template.metadata?.annotations);
  const held = lease === undefined ? undefined : readHoldLease(lease);
  const isDown = replicas === 0;
  const sharers = (held?.sharers ?? []).map(({ run }) => run);
  return {
    ...{ kind, key: `${kind}/${name}`, instance: uid, name: `${kind}/${name}`, service: name },
    ...{ oneOff: false, inScope: true, foreign: false, imageLabels: [], dependsOn: [] },
    labels: Object.fromEntries(Object.entries(labels).filter(([label]) => FOR_CONTROLLER.test(label))),
    state: isDown ? 'exited' : 'running',
    health: isDown ? 'none' : areAllReady(controller) ? 'healthy' : 'starting',
    startedAt: isDown && held?.uid === uid ? held.started : isDown ? '' : markOf(controller),
    finishedAt: held?.uid === uid && held.finished !== undefined ? held.finished : isDown ? markOf(controller) : '',
    healthTermMs: (spec.progressDeadlineSeconds ?? DEFAULT_TERM_S) * 1000,
    ...(held?.uid === uid && sharers.length > 0 ? { heldFor: sharers } : {}),
    ...(unholdable === undefined ? {} : { unholdable }),
  };
}

/**
 * `template`: the annotations of its controller's pod template, where that can be read. `velero`: the operations for which
 * Velero's annotations are read, too; undefined: none.
 */
export function workloadOfPod(
  pod: Pod,
  owner: { readonly key: string; readonly template: Readonly<Record<string, string>> } | undefined,
  velero: readonly string[] | undefined,
): { readonly workload: Workload; readonly notes: readonly Note[] } {
  const { metadata, status } = pod;
  const { name, uid = '' } = metadata;
  const annotations = Object.entries(metadata.annotations ?? {});
  const spoken = annotations.filter(([one]) => one.startsWith(PREFIX) || (velero !== undefined && isVeleros(one)));
  const isOperators = ([one, value]: [string, string]): boolean => owner === undefined || owner.template[one] === value;
  const trusted = Object.fromEntries(spoken.filter(isOperators));
  const read = readVelero(trusted, { name, containers: containersOf(pod) }, velero ?? []);
  // Where there is no controller to hold, a wish to hold is kept, and so refused.
  const ours = Object.entries(labelsOfAnnotations(trusted));
  const own = withVelero(
    name,
    Object.fromEntries(ours.filter(([label]) => owner === undefined || FOR_POD.test(label))),
    read.labels,
  );
  const foreign = Object.entries(metadata.labels ?? {}).filter(([label]) => !label.startsWith('sidehook.'));
  const workload: Workload = {
    ...{ kind: 'pod', key: `pod/${name}`, instance: uid, name, containers: containersOf(pod) },
    ...{ oneOff: false, inScope: true, foreign: false, dependsOn: [] },
    ...(owner === undefined ? {} : { partOf: owner.key }),
    labels: { ...Object.fromEntries(foreign), ...own },
    imageLabels: spoken
      .filter((one) => !isOperators(one))
      .map(([one]) => Object.keys(labelsOfAnnotations({ [one]: '' }))[0] ?? one),
    ...(Object.keys(read.cannot).length > 0 ? { forbids: read.cannot } : {}),
    state: isRunning(pod) ? 'running' : status?.phase === 'Pending' ? 'created' : 'exited',
    health: isReady(pod) ? 'healthy' : 'starting',
    ...{ startedAt: status?.startTime ?? '', finishedAt: '', healthTermMs: 0 },
    ...(owner === undefined ? { unholdable: 'only a Deployment or a StatefulSet can be scaled' } : {}),
  };
  return { workload, notes: read.notes };
}

/** What is said twice is not what anybody means. */
function withVelero(
  pod: string,
  ours: Readonly<Record<string, string>>,
  veleros: Readonly<Record<string, string>>,
): Readonly<Record<string, string>> {
  const twice = Object.keys(veleros).find((label) => ours[label] !== undefined && ours[label] !== veleros[label]);
  if (twice === undefined) return { ...ours, ...veleros };
  const why = `annotation sidehook.io/${twice.slice('sidehook.'.length)}: Velero's annotations say so, too, and differ`;
  throw new OperationalError('configuration', `pod ${pod}, ${why}`);
}
