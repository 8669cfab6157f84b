/** One look at the engine: few list calls, and no more inspections than there are containers that matter. */
import type { View } from '../core/ports.ts';
import type { Target, Workload, WorkloadRef } from '../core/workload.ts';
import type { Api } from './docker-api.ts';
import { byPreference, findContainer, inspectContainer, listByKey, listContainers } from './docker-find.ts';
import {
  exposuresOf,
  findDoorway,
  findSharedPlace,
  makeGuard,
  type OwnPlace,
  type SharedPlace,
  sharesPlace,
} from './docker-guard.ts';
import { readImageLabels } from './docker-image-labels.ts';
import { notesOfSelf, type Self, whyNothingIsHeld } from './docker-self.ts';
import type { Inspected, Listed } from './docker-workload.ts';
import * as own from './docker-workload.ts';

/** What a look needs to know. */
export type Lookout = {
  readonly api: Api;
  readonly scope: 'project' | 'host' | readonly string[];
  readonly runDir: string;
  readonly stateDir: string;
  readonly own: readonly OwnPlace[];
  readonly findSelf: (signal: AbortSignal) => Promise<Self>;
  /** By image id, which never means another image: asked once each. */
  readonly imageLabels: Map<string, Readonly<Record<string, string>>>;
};

const AT_ONCE = 8;

/** `Driver.look`. */
export async function look(lookout: Lookout, targets: readonly Target[], signal: AbortSignal): Promise<View> {
  const { api, scope, runDir, stateDir } = lookout;
  const self = await lookout.findSelf(signal);
  const project = self.kind === 'container' ? self.container.Config.Labels?.[own.PROJECT_LABEL] : undefined;
  const place = await findSharedPlace(self, runDir);

  const inScope = await listScope(api, scope, project, signal);
  const sharers = scope === 'host' ? [] : await listClients(api, place, signal);
  const named = await listNamed(api, targets, { project, inScope }, signal);
  const isInScope = new Set(inScope.map(({ Id }) => Id));
  const listed = new Map([...sharers, ...named, ...inScope].map((one) => [one.Id, one]));
  const outside = new Set(named.filter(({ Id }) => !isInScope.has(Id)).map(({ Id }) => Id));

  const matters = (one: Listed): boolean =>
    outside.has(one.Id) ||
    own.hasOwnLabels(one.Labels) ||
    sharesPlace(one, place) ||
    targets.some((target) => isNamed(one, target, project));
  const inspected = await inspectAll(api, [...listed.values()].filter(matters), signal);

  const residents = [...inspected.values()].filter((one) => sharesPlace(one, place));
  const clients = residents.filter(({ Id }) => self.kind !== 'container' || Id !== self.container.Id);
  if (self.kind === 'container') residents.push(self.container);
  const guard = makeGuard({ self, runDir, place, residents, engine: await findDoorway(api) });
  const imageLabels = await readImageLabels(lookout, inspected.values(), signal);
  const wanted = new Set(targets.flatMap((target) => (target.kind === 'label' ? [target.label] : [])));

  const workloads: Workload[] = [];
  for (const one of listed.values()) {
    if (!isInScope.has(one.Id) && !outside.has(one.Id)) continue;
    const container = inspected.get(one.Id);
    if (matters(one) && container === undefined) continue; // removed meanwhile
    const around = {
      ...{ home: homeOf(scope, project), wanted, inScope: isInScope.has(one.Id), unholdable: guard(container ?? one) },
      imageLabels: imageLabels.labels.get(container?.Image ?? '') ?? {},
    };
    workloads.push(container === undefined ? own.workloadOfListed(one, around) : own.workloadOf(container, around));
  }
  const unholdable = whyNothingIsHeld(self, stateDir);
  const [exposed] = await exposuresOf(self, lookout.own, clients);
  return {
    workloads: withoutDoubles(workloads, listed),
    ...(project === undefined ? {} : { project }),
    ...(unholdable === undefined ? {} : { unholdable }),
    ...(exposed === undefined ? {} : { exposed: `${exposed.name}: ${exposed.says}` }),
    clients: clients.flatMap(own.incarnationOf),
    notes: [
      ...notesOfSelf(self, { scope, holds: inScope.some(({ Labels }) => Labels?.['sidehook.hold'] !== undefined) }),
      ...imageLabels.notes,
    ],
  };
}

/** `Driver.inspect`. Knows of the container alone: who else lives in its namespaces, only a look can tell. */
export async function inspectWorkload(
  lookout: Lookout,
  ref: WorkloadRef,
  signal: AbortSignal,
): Promise<Workload | undefined> {
  const container = await findContainer(lookout.api, ref, signal);
  return container === undefined ? undefined : workloadOfContainer(lookout, container, signal);
}

/** As `inspectWorkload`, of a container that has just been inspected. */
export async function workloadOfContainer(
  lookout: Lookout,
  container: Inspected,
  signal: AbortSignal,
): Promise<Workload> {
  const { scope, runDir } = lookout;
  const self = await lookout.findSelf(signal);
  const project = self.kind === 'container' ? self.container.Config.Labels?.[own.PROJECT_LABEL] : undefined;
  const place = await findSharedPlace(self, runDir);
  const guard = makeGuard({ self, runDir, place, residents: [], engine: undefined });
  const theirs = container.Config.Labels?.[own.PROJECT_LABEL];
  const projects = scope === 'host' ? undefined : scopeProjects(scope, project);
  const inScope = projects === undefined || (theirs !== undefined && projects.includes(theirs));
  const { labels } = await readImageLabels(lookout, [container], signal);
  const imageLabels = labels.get(container.Image ?? '') ?? {};
  return own.workloadOf(container, {
    ...{ home: homeOf(scope, project), wanted: new Set(), inScope, imageLabels, unholdable: guard(container) },
  });
}

/** Whose mistakes are ours: who names projects, and has none of his own, means these. */
function homeOf(scope: Lookout['scope'], project: string | undefined): readonly (string | undefined)[] {
  return project === undefined && typeof scope === 'object' ? scope : [project];
}

function scopeProjects(scope: 'project' | readonly string[], project: string | undefined): readonly string[] {
  const others = scope === 'project' ? [] : scope;
  return [...new Set([...(project === undefined ? [] : [project]), ...others])];
}

async function listScope(
  api: Api,
  scope: Lookout['scope'],
  project: string | undefined,
  signal: AbortSignal,
): Promise<readonly Listed[]> {
  if (scope === 'host') return listContainers(api, {}, signal);
  const lists = scopeProjects(scope, project).map((name) =>
    listContainers(api, { label: [`${own.PROJECT_LABEL}=${name}`] }, signal),
  );
  return (await Promise.all(lists)).flat();
}

/** Clients of other projects: what one of them lives in may be ours. */
export async function listClients(
  api: Api,
  place: SharedPlace | undefined,
  signal: AbortSignal,
): Promise<readonly Listed[]> {
  if (place === undefined) return [];
  const listed = await listContainers(api, { volume: [place.volume ?? place.path] }, signal);
  return listed.filter((one) => sharesPlace(one, place));
}

/** What the targets name outside of the scope. Labels count within it alone: anyone can put any label on his own. */
async function listNamed(
  api: Api,
  targets: readonly Target[],
  { project, inScope }: { readonly project: string | undefined; readonly inScope: readonly Listed[] },
  signal: AbortSignal,
): Promise<readonly Listed[]> {
  const missing = targets.filter((target) => !inScope.some((one) => isNamed(one, target, project)));
  const filters = new Map<string, () => Promise<readonly Listed[]>>();
  for (const target of missing) {
    if (target.kind === 'container') {
      const pattern = `^/?${target.name.replace(/[^\w-]/g, '\\$&')}$`;
      filters.set(`name ${target.name}`, () => listContainers(api, { name: [pattern] }, signal));
    } else if (target.kind === 'workload') {
      filters.set(`key ${target.key}`, () => listByKey(api, target.key, signal));
    } else if (target.kind === 'service' && (target.project ?? project) !== undefined) {
      const label = [`${own.PROJECT_LABEL}=${target.project ?? project}`, `${own.SERVICE_LABEL}=${target.service}`];
      filters.set(`service ${label}`, () => listContainers(api, { label }, signal));
    }
  }
  const found = (await Promise.all([...filters.values()].map((list) => list()))).flat();
  return found.filter((one) => missing.some((target) => isNamed(one, target, project)));
}

function isNamed(one: Listed, target: Target, project: string | undefined): boolean {
  const labels = one.Labels ?? {};
  switch (target.kind) {
    case 'host':
    case 'pod':
      return false;
    case 'container':
      return own.nameOf(one) === target.name;
    case 'workload':
      return own.keyOf(own.nameOf(one), labels) === target.key;
    case 'label':
      return labels[target.label] === target.value;
    case 'service': {
      const wanted = target.project ?? project;
      return (
        labels[own.SERVICE_LABEL] === target.service &&
        (wanted ?? labels[own.PROJECT_LABEL]) === labels[own.PROJECT_LABEL]
      );
    }
  }
}

async function inspectAll(
  api: Api,
  containers: readonly Listed[],
  signal: AbortSignal,
): Promise<ReadonlyMap<string, Inspected>> {
  const found = new Map<string, Inspected>();
  const queue = containers.values();
  const work = async (): Promise<void> => {
    for (const { Id } of queue) {
      const container = await inspectContainer(api, Id, signal);
      if (container !== undefined) found.set(Id, container);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return found;
}

/** Compose has two containers of one key for a moment, while it makes one anew. */
function withoutDoubles(workloads: readonly Workload[], listed: ReadonlyMap<string, Listed>): readonly Workload[] {
  const lineOf = ({ instance }: Workload): Listed => listed.get(instance) ?? { Id: instance };
  const groups = Map.groupBy(workloads, ({ key }) => key).values();
  return groups.flatMap((group) => group.toSorted((a, b) => byPreference(lineOf(a), lineOf(b))).slice(0, 1)).toArray();
}
