/** The API's objects, as much of them as we read, and how they are asked for. */
import type { Answer, Api } from './kubernetes-api.ts';

export type Metadata = {
  readonly name: string;
  readonly uid?: string;
  readonly resourceVersion?: string;
  readonly generation?: number;
  readonly creationTimestamp?: string;
  readonly deletionTimestamp?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly ownerReferences?: readonly Owner[];
};

export type Owner = {
  readonly kind: string;
  readonly name: string;
  readonly uid: string;
  readonly controller?: boolean;
};

export type Pod = {
  readonly metadata: Metadata;
  readonly spec: {
    readonly containers: readonly { readonly name: string }[];
    readonly initContainers?: readonly { readonly name: string; readonly restartPolicy?: string }[];
    readonly terminationGracePeriodSeconds?: number;
  };
  readonly status?: {
    readonly phase?: string;
    readonly startTime?: string;
    readonly conditions?: readonly { readonly type: string; readonly status: string }[];
    readonly containerStatuses?: readonly ContainerStatus[];
    readonly initContainerStatuses?: readonly ContainerStatus[];
  };
};

export type ContainerStatus = {
  readonly name: string;
  readonly containerID?: string;
  readonly state?: { readonly running?: object };
};

/** A Deployment or a StatefulSet. */
export type Controller = {
  readonly metadata: Metadata;
  readonly spec: {
    readonly replicas?: number;
    readonly selector: Selector;
    readonly template: {
      readonly metadata?: Pick<Metadata, 'labels' | 'annotations'>;
      readonly spec: Pod['spec'];
    };
    readonly minReadySeconds?: number;
    readonly progressDeadlineSeconds?: number;
  };
  readonly status?: {
    readonly replicas?: number;
    readonly readyReplicas?: number;
    readonly observedGeneration?: number;
  };
};

export type Selector = {
  readonly matchLabels?: Readonly<Record<string, string>>;
  readonly matchExpressions?: readonly {
    readonly key: string;
    readonly operator: string;
    readonly values?: readonly string[];
  }[];
};

export type ReplicaSet = { readonly metadata: Metadata };

export type Scale = {
  readonly metadata: Metadata;
  readonly spec?: { readonly replicas?: number };
  readonly status?: { readonly replicas?: number; readonly selector?: string };
};

export type Lease = {
  readonly metadata: Metadata;
  readonly spec?: {
    readonly holderIdentity?: string;
    readonly leaseDurationSeconds?: number;
    readonly acquireTime?: string;
    readonly renewTime?: string;
  };
};

/** `deployment/web`, taken apart. */
export type ControllerKind = 'deployment' | 'statefulset';

/** Where the API keeps what. */
export function pathOf(
  { namespace }: Api,
  what: 'pods' | 'deployments' | 'statefulsets' | 'replicasets' | 'leases' | 'horizontalpodautoscalers',
  name?: string,
): string {
  const group = {
    pods: 'api/v1',
    deployments: 'apis/apps/v1',
    statefulsets: 'apis/apps/v1',
    replicasets: 'apis/apps/v1',
    leases: 'apis/coordination.k8s.io/v1',
    horizontalpodautoscalers: 'apis/autoscaling/v2',
  }[what];
  const rest = name === undefined ? '' : `/${encodeURIComponent(name)}`;
  return `/${group}/namespaces/${encodeURIComponent(namespace)}/${what}${rest}`;
}

const PAGE = '500';

/** All objects of a kind, page by page. @throws OperationalError as `Api.ask` */
export async function listAll<Item>(
  api: Api,
  path: string,
  signal: AbortSignal,
  query: Readonly<Record<string, string>> = {},
): Promise<readonly Item[]> {
  const doing = `list ${path.slice(path.lastIndexOf('/') + 1)}`;
  const items: Item[] = [];
  let next: string | undefined;
  do {
    const page = { ...query, limit: PAGE, ...(next === undefined ? {} : { continue: next }) };
    const { status, body } = await api.ask({ doing, path, query: page, accept: [410], signal });
    // The list is too old to be continued: begin anew, in one piece.
    if (status === 410) return itemsOf<Item>(await api.ask({ doing, path, query, signal }));
    const answer = body as { readonly metadata?: { readonly continue?: string } };
    items.push(...itemsOf<Item>({ body }));
    next = answer.metadata?.continue || undefined;
  } while (next !== undefined);
  return items;
}

function itemsOf<Item>({ body }: Pick<Answer, 'body'>): readonly Item[] {
  return (body as { readonly items?: readonly Item[] } | undefined)?.items ?? [];
}

/** One object; undefined: there is none. @throws OperationalError as `Api.ask` */
export async function getOne<Item>(
  api: Api,
  path: string,
  doing: string,
  signal: AbortSignal,
): Promise<Item | undefined> {
  const { status, body } = await api.ask({ doing, path, accept: [404], signal });
  return status === 404 ? undefined : (body as Item);
}
