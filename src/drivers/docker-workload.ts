/** What the engine says of a container -> Workload. Pure. */
import type { Dependency, Incarnation, Workload, WorkloadKey, WorkloadState } from '../core/workload.ts';

/** One line of `GET /containers/json`: what we read of it. */
export type Listed = {
  readonly Id: string;
  readonly Names?: readonly string[];
  readonly ImageID?: string;
  readonly Created?: number;
  readonly Labels?: Labels | null;
  readonly State?: string;
  readonly Status?: string;
  readonly HostConfig?: { readonly NetworkMode?: string };
  readonly NetworkSettings?: { readonly Networks?: Networks | null };
  readonly Ports?: readonly { readonly PublicPort?: number }[] | null;
  readonly Mounts?: readonly Mount[] | null;
};

/** `GET /containers/ID/json`: what we read of it. */
export type Inspected = {
  readonly Id: string;
  readonly Name: string;
  readonly Image?: string;
  readonly State: {
    readonly Status?: string;
    readonly Running?: boolean;
    readonly Paused?: boolean;
    readonly ExitCode?: number;
    readonly StartedAt?: string;
    readonly FinishedAt?: string;
    readonly Health?: { readonly Status?: string } | null;
  };
  readonly Config: {
    readonly Hostname?: string;
    readonly User?: string;
    /** Seconds; absent: the engine's own 10. */
    readonly StopTimeout?: number;
    readonly Labels?: Labels | null;
    readonly Healthcheck?: Healthcheck | null;
  };
  readonly HostConfig: {
    readonly AutoRemove?: boolean;
    readonly NetworkMode?: string;
    readonly PidMode?: string;
    readonly IpcMode?: string;
    readonly RestartPolicy?: { readonly Name?: string } | null;
  };
  readonly GraphDriver?: { readonly Data?: { readonly UpperDir?: string } | null } | null;
  readonly NetworkSettings?: {
    readonly Networks?: Networks | null;
    readonly Ports?: Readonly<Record<string, readonly { readonly HostPort?: string }[] | null>> | null;
  } | null;
  readonly Mounts?: readonly Mount[] | null;
  readonly ExecIDs?: readonly string[] | null;
};

/** Tells the two apart: only of a list's line is the state a word. */
export function isInspected(container: Listed | Inspected): container is Inspected {
  return typeof container.State === 'object';
}

export type Mount = {
  readonly Type?: string;
  readonly Name?: string;
  readonly Source?: string;
  readonly Destination: string;
  readonly RW?: boolean;
};

type Labels = Readonly<Record<string, string>>;
type Networks = Readonly<Record<string, { readonly IPAddress?: string; readonly Aliases?: readonly string[] | null }>>;
type Healthcheck = {
  readonly Test?: readonly string[] | null;
  readonly Interval?: number;
  readonly Timeout?: number;
  readonly StartPeriod?: number;
  readonly Retries?: number;
};

/** What is known of a workload from elsewhere than its own container. */
export type Surroundings = {
  /** The sidecar's own compose project; outside compose those that were named. */
  readonly home: readonly (string | undefined)[];
  readonly inScope: boolean;
  /** The `sidehook.*` labels of its image. */
  readonly imageLabels: Labels;
  /** Labels beside `sidehook.*` that targets ask for. */
  readonly wanted: ReadonlySet<string>;
  readonly unholdable: string | undefined;
};

export const PROJECT_LABEL = 'com.docker.compose.project';
export const SERVICE_LABEL = 'com.docker.compose.service';
export const NUMBER_LABEL = 'com.docker.compose.container-number';
const ONE_OFF_LABEL = 'com.docker.compose.oneoff';
const DEPENDS_ON_LABEL = 'com.docker.compose.depends_on';
const OWN_PREFIX = 'sidehook.';

/** Whether a container's labels ask for anything. */
export function hasOwnLabels(labels: Labels | null | undefined): boolean {
  return Object.keys(labels ?? {}).some((name) => name.startsWith(OWN_PREFIX));
}

/** A workload from all that the engine knows of it. */
export function workloadOf(container: Inspected, around: Surroundings): Workload {
  const { State: state, Config: config } = container;
  const status = stateOf(state.Status);
  return {
    ...identityOf(container.Id, container.Name, config.Labels ?? {}, around),
    state: status,
    health: healthOf(state.Health?.Status),
    startedAt: momentOf(state.StartedAt),
    finishedAt: momentOf(state.FinishedAt),
    ...(status === 'exited' && state.ExitCode !== undefined ? { exitCode: state.ExitCode } : {}),
    healthTermMs: healthTermOf(config.Healthcheck),
  };
}

/** What of a container has not ended: none, or this one since it started, if it has. */
export function incarnationOf({ Id, Name, State, Config }: Inspected): readonly Incarnation[] {
  const name = Name.replace(/^\//, '');
  const state = stateOf(State.Status);
  if (state === 'exited') return [];
  const startedAt = state === 'created' ? '' : momentOf(State.StartedAt);
  return [{ key: keyOf(name, Config.Labels ?? {}), instance: Id, name, startedAt }];
}

/**
 * A workload from a line of the list alone, for those that nobody asks anything of: it has no `sidehook.*` labels, its
 * moments are unknown (empty), and its health check's term is 0.
 */
export function workloadOfListed(container: Listed, around: Surroundings): Workload {
  const { Status: text = '' } = container;
  const state = stateOf(container.State);
  const exitCode = /^Exited \((\d+)\)/.exec(text)?.[1];
  return {
    ...identityOf(container.Id, nameOf(container), container.Labels ?? {}, around),
    state,
    health: healthOf(/\((?:health: )?(healthy|unhealthy|starting)\)/.exec(text)?.[1]),
    startedAt: '',
    finishedAt: '',
    ...(state === 'exited' && exitCode !== undefined ? { exitCode: Number(exitCode) } : {}),
    healthTermMs: 0,
  };
}

/** The name of a line of the list; linked containers have several, the own one is without a second slash. */
export function nameOf({ Id, Names = [] }: Listed): string {
  const own = Names.find((name) => !name.replace(/^\//, '').includes('/')) ?? Id.slice(0, 12);
  return own.replace(/^\//, '');
}

/** Survives a container's being made anew. One of `compose run` has its service's number, and so goes by its name. */
export function keyOf(name: string, labels: Labels): WorkloadKey {
  const { [PROJECT_LABEL]: project, [SERVICE_LABEL]: service, [NUMBER_LABEL]: number } = labels;
  const isReplica = project !== undefined && service !== undefined && !isOneOff(labels);
  return isReplica ? `${project}/${service}/${number ?? '1'}` : `container:${name}`;
}

type Identity = Omit<Workload, 'state' | 'health' | 'startedAt' | 'finishedAt' | 'exitCode' | 'healthTermMs'>;

function identityOf(id: string, slashName: string, labels: Labels, around: Surroundings): Identity {
  const name = slashName.replace(/^\//, '');
  const { [PROJECT_LABEL]: project, [SERVICE_LABEL]: service, [NUMBER_LABEL]: number } = labels;
  const { [DEPENDS_ON_LABEL]: dependsOn = '' } = labels;
  const isRead = (label: string) => label.startsWith(OWN_PREFIX) || around.wanted.has(label);
  const isImages = (label: string) => label.startsWith(OWN_PREFIX) && around.imageLabels[label] === labels[label];
  return {
    kind: 'container',
    key: keyOf(name, labels),
    instance: id,
    name,
    ...(project === undefined ? {} : { project }),
    ...(service === undefined ? {} : { service }),
    ...(number === undefined ? {} : { number: Number(number) }),
    oneOff: isOneOff(labels),
    inScope: around.inScope,
    foreign: !around.home.includes(project),
    labels: Object.fromEntries(Object.entries(labels).filter(([label]) => isRead(label) && !isImages(label))),
    imageLabels: Object.keys(labels).filter(isImages),
    dependsOn: project === undefined ? [] : dependenciesOf(dependsOn, project),
    ...(around.unholdable === undefined ? {} : { unholdable: around.unholdable }),
  };
}

/** Whether `compose run` made it. */
export function isOneOff(labels: Labels): boolean {
  const { [ONE_OFF_LABEL]: oneOff = '' } = labels;
  return oneOff.toLowerCase() === 'true';
}

/** `db:service_healthy:false,cache:service_started:true`, or of older composes `db,cache`. */
function dependenciesOf(label: string, project: string): readonly Dependency[] {
  return label
    .split(',')
    .map((part) => part.trim().split(':'))
    .filter(([service]) => service !== '')
    .map(([service = '', condition]) => ({ project, service, condition: conditionOf(condition) }));
}

function conditionOf(text: string | undefined): Dependency['condition'] {
  return text === 'service_healthy' || text === 'service_completed_successfully' ? text : 'service_started';
}

/** Podman has more words than Docker. */
function stateOf(text = ''): WorkloadState {
  switch (text.toLowerCase()) {
    case 'running':
      return 'running';
    case 'paused':
      return 'paused';
    case 'restarting':
      return 'restarting';
    case 'created':
    case 'configured':
    case 'initialized':
      return 'created';
    default:
      return 'exited';
  }
}

function healthOf(text: string | undefined): Workload['health'] {
  return text === 'healthy' || text === 'unhealthy' || text === 'starting' ? text : 'none';
}

/**
 * A moment in UTC with all nine digits of its fraction, so that the later one is the greater string; the engine leaves
 * out zeros at the end, and Podman has the host's time zone. Empty for never.
 */
function momentOf(text = ''): string {
  const [, seconds, fraction = '', zone] =
    /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)$/.exec(text) ?? [];
  if (seconds === undefined || seconds.startsWith('0001-')) return '';
  const utc = new Date(`${seconds}${zone}`).toISOString().slice(0, -'.000Z'.length);
  return `${utc}.${fraction.padEnd(9, '0')}Z`;
}

const NANOSECONDS_PER_MS = 1e6;

/** The engine's own defaults stand in for what is 0 or absent. */
function healthTermOf(check: Healthcheck | null | undefined): number {
  if (check === undefined || check === null || check.Test?.[0] === 'NONE') return 0;
  const { Interval, Timeout, StartPeriod = 0, Retries } = check;
  const [interval, timeout] = [Interval || 30e9, Timeout || 30e9];
  return Math.ceil((StartPeriod + (interval + timeout) * (Retries || 3)) / NANOSECONDS_PER_MS);
}
