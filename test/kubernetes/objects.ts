/** Objects for the cluster, as JSON. */
import { BUSYBOX } from '../support/images.ts';

type PodOptions = {
  /** What it runs before it waits to be ended. */
  readonly line?: string;
  readonly annotations?: Readonly<Record<string, string>>;
};

/** A pod's template: a container of busybox, `main`, which ends at once when it is told to. */
function aTemplate(labels: object, { line = ':', annotations = {} }: PodOptions): object {
  const script = `trap 'exit 0' TERM; ${line}; while :; do sleep 3600 & wait $!; done`;
  return {
    metadata: { labels, annotations },
    spec: {
      terminationGracePeriodSeconds: 5,
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      containers: [{ name: 'main', image: BUSYBOX, command: ['sh', '-c', script] }],
    },
  };
}

/** A Deployment or a StatefulSet of such pods, labelled `app`. */
export function aWorkload(
  kind: 'Deployment' | 'StatefulSet',
  name: string,
  { replicas = 1, ...pod }: PodOptions & { readonly replicas?: number } = {},
): object {
  const labels = { app: name };
  return {
    ...{ apiVersion: 'apps/v1', kind, metadata: { name, labels } },
    spec: {
      ...{ replicas, selector: { matchLabels: labels }, template: aTemplate(labels, pod) },
      ...(kind === 'StatefulSet' ? { serviceName: name } : {}),
    },
  };
}

/** A HorizontalPodAutoscaler. It knows no metrics: it only keeps a workload between its bounds. */
export function anAutoscaler(deployment: string, minReplicas: number, maxReplicas: number): object {
  const resource = { name: 'cpu', target: { type: 'Utilization', averageUtilization: 80 } };
  return {
    ...{ apiVersion: 'autoscaling/v2', kind: 'HorizontalPodAutoscaler', metadata: { name: deployment } },
    spec: {
      ...{ minReplicas, maxReplicas, metrics: [{ type: 'Resource', resource }] },
      scaleTargetRef: { apiVersion: 'apps/v1', kind: 'Deployment', name: deployment },
    },
  };
}

/** A PodDisruptionBudget for the pods with these labels. */
export function aBudget(name: string, matchLabels: object, minAvailable: number): object {
  return {
    ...{ apiVersion: 'policy/v1', kind: 'PodDisruptionBudget', metadata: { name } },
    spec: { minAvailable, selector: { matchLabels } },
  };
}

/** In a pod's annotations: it is scaled to zero for a backup. */
export const HELD = { 'sidehook.io/hold': 'scale' };

/** For a backup: says that it has begun, and goes on when it is told to. */
export const WAITS = 'echo it begins; until [ -e /tmp/go ]; do sleep 0.2; done';

export const PATIENT_BACKUP = { image: BUSYBOX, command: ['sh', '-c', `${WAITS}; echo it ends`] };
