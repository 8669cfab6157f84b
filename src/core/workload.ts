/**
 * What is held, or what a hook runs in. With Docker both are one container; on Kubernetes a Deployment or StatefulSet is
 * held, and hooks run in its pods.
 */
export type Workload = WorkloadRef & {
  readonly kind: WorkloadKind;
  /** Of a pod: the workload that is held in its place, where there is one. */
  readonly partOf?: WorkloadKey;
  /** Of a pod: the names of its containers. */
  readonly containers?: readonly string[];
  readonly project?: string;
  readonly service?: string;
  readonly number?: number;
  /** Made by `compose run`: carries its service's labels, and is never a target nor held. */
  readonly oneOff: boolean;
  /** The sidecar's own project (or everything, with scope host): found by labels. Others are found by name alone. */
  readonly inScope: boolean;
  /** Of another project than the sidecar's own: an error in its labels passes it over and stops nobody's backup. */
  readonly foreign: boolean;
  /** All its labels, but for `sidehook.*` ones that equal the image's own; of a pod, `sidehook.io/*` annotations as such. */
  readonly labels: Readonly<Record<string, string>>;
  /** `sidehook.*` labels that are not its operator's (the image's own; not in the pod template): passed over, and named. */
  readonly imageLabels: readonly string[];
  readonly state: WorkloadState;
  readonly health: 'none' | 'starting' | 'healthy' | 'unhealthy';
  /** The engine's marks of this incarnation; compared for equality and age, never with our own clock. */
  readonly startedAt: string;
  readonly finishedAt: string;
  readonly exitCode?: number;
  /** How long its health check may take by its own settings: start period + (interval + timeout) * retries. */
  readonly healthTermMs: number;
  readonly dependsOn: readonly Dependency[];
  /** Why it may never be held: it is the sidecar, a client, shares a namespace with one, or is made with --rm. */
  readonly unholdable?: string;
  /** Operations that its operator's wishes for it make impossible, and why. */
  readonly forbids?: Readonly<Record<string, string>>;
  /** It is held, or about to be, for these runs of whichever sidehook: where the engine itself remembers holds. */
  readonly heldFor?: readonly string[];
};

/**
 * Whether a release is to wait until it is healthy. A container that is only starting counts: it may be healthy by the time
 * it stops, and its check ends. Pods that are not ready may never be.
 */
export function isHealthExpected({ health, kind }: Pick<Workload, 'health' | 'kind'>): boolean {
  return health === 'healthy' || (health === 'starting' && kind === 'container');
}

/** A workload from one start to its next stop. `startedAt` is empty where it has been made and not been started. */
export type Incarnation = WorkloadRef & { readonly startedAt: string };

/** Finds a workload again: the instance while it lives, the key after it was made anew. */
export type WorkloadRef = {
  /** Survives being made anew: `PROJECT/SERVICE/NUMBER` of compose, else the container's name. */
  readonly key: WorkloadKey;
  /** The engine's id of this one container. */
  readonly instance: string;
  /** What people call it. */
  readonly name: string;
};

/** `container` with Docker; the others on Kubernetes. */
export type WorkloadKind = 'container' | 'pod' | 'deployment' | 'statefulset';

export type WorkloadKey = string & { readonly brand?: 'WorkloadKey' };

export type WorkloadState = 'running' | 'paused' | 'restarting' | 'created' | 'exited';

/** From compose's `com.docker.compose.depends_on`; a one-shot dependency does not order holds. */
export type Dependency = {
  readonly project: string;
  readonly service: string;
  readonly condition: 'service_started' | 'service_healthy' | 'service_completed_successfully';
};

/** Where a hook runs, as the operator wrote it. */
export type Target =
  | { readonly kind: 'host' }
  | { readonly kind: 'container'; readonly name: string }
  | { readonly kind: 'service'; readonly service: string; readonly project?: string }
  | { readonly kind: 'label'; readonly label: string; readonly value: string }
  /** The pods with these labels; `container`: which of each one's containers, unset: the pod's default one. */
  | { readonly kind: 'pod'; readonly selector: readonly Requirement[]; readonly container?: string }
  /** The one container whose label the hook is. */
  | {
      readonly kind: 'workload';
      readonly key: WorkloadKey;
      readonly name: string;
      readonly container?: string;
    };

/** One part of a label selector: `app=db`, `tier!=cache`, `app`, `!app`. */
export type Requirement = {
  readonly label: string;
  readonly is: 'equal' | 'other' | 'there' | 'absent';
  readonly value: string;
};

/** A target as its operator wrote it: `service:db`. */
export function describeTarget(target: Target): string {
  switch (target.kind) {
    case 'host':
      return 'host';
    case 'container':
      return `container:${target.name}`;
    case 'service':
      return `service:${target.project === undefined ? '' : `${target.project}/`}${target.service}`;
    case 'label':
      return `label:${target.label}=${target.value}`;
    case 'pod':
      return `pod:${target.selector.map(describeRequirement).join(',')}${containerOf(target)}`;
    case 'workload':
      return `${target.key.startsWith('pod/') ? 'pod' : 'container'}:${target.name}${containerOf(target)}`;
  }
}

function containerOf({ container }: { readonly container?: string }): string {
  return container === undefined ? '' : `;container=${container}`;
}

function describeRequirement({ label, is, value }: Requirement): string {
  return { equal: `${label}=${value}`, other: `${label}!=${value}`, there: label, absent: `!${label}` }[is];
}

/** Whether these labels fulfil a selector, by the rules of Kubernetes: what is absent is also other than any value. */
export function isSelected(
  labels: Readonly<Record<string, string | undefined>>,
  selector: readonly Requirement[],
): boolean {
  return selector.every(({ label, is, value }) => {
    const own = labels[label];
    return { equal: own === value, other: own !== value, there: own !== undefined, absent: own === undefined }[is];
  });
}
