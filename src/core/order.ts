import type { Workload, WorkloadKey } from './workload.ts';

/** For each workload of interest, those of interest that it depends on: they stop after it and start before it. */
export type Order = ReadonlyMap<WorkloadKey, readonly WorkloadKey[]>;

/**
 * Orders the held workloads by what depends on what. Paths count that lead through workloads which are not held;
 * one-shot dependencies do not. With `others`, which other runs may hold, all are named that one of ours needs, by whatever
 * way: who holds what changes while it is held. There may be a cycle in it: `findCycle`.
 */
export function orderOf(
  held: ReadonlySet<WorkloadKey>,
  workloads: readonly Workload[],
  afterNames: ReadonlyMap<WorkloadKey, readonly string[]>,
  others: ReadonlySet<WorkloadKey> = new Set(),
): Order {
  const dependencies = dependenciesOf(workloads, afterNames);
  return new Map([...held].map((key) => [key, nearestHeld(key, held, dependencies, others)]));
}

/** Who depends directly on whom, by key. */
export function dependenciesOf(
  workloads: readonly Workload[],
  afterNames: ReadonlyMap<WorkloadKey, readonly string[]>,
): ReadonlyMap<WorkloadKey, readonly WorkloadKey[]> {
  const edges = new Map<WorkloadKey, WorkloadKey[]>();
  const byService = Map.groupBy(workloads, ({ project, service }) => `${project}/${service}`);
  for (const workload of workloads) {
    const services = workload.dependsOn.filter(({ condition }) => condition !== 'service_completed_successfully');
    const found = services.flatMap(({ project, service }) => byService.get(`${project}/${service}`) ?? []);
    const named = (afterNames.get(workload.key) ?? []).flatMap((name) => namedBy(name, workload, workloads));
    const keys = [...found, ...named].filter(({ oneOff }) => !oneOff).map(({ key }) => key);
    edges.set(
      workload.key,
      [...new Set(keys)].filter((key) => key !== workload.key),
    );
  }
  return edges;
}

/** `sidehook.hold.after` names a container, or a service of the same project. */
export function namedBy(name: string, workload: Workload, workloads: readonly Workload[]): readonly Workload[] {
  const byName = workloads.filter((other) => other.name === name);
  if (byName.length > 0) return byName;
  return workloads.filter((other) => other.service === name && other.project === workload.project);
}

function nearestHeld(
  start: WorkloadKey,
  held: ReadonlySet<WorkloadKey>,
  dependencies: ReadonlyMap<WorkloadKey, readonly WorkloadKey[]>,
  others: ReadonlySet<WorkloadKey>,
): WorkloadKey[] {
  const found = new Set<WorkloadKey>();
  const seen = new Set([start]);
  const ahead = [...(dependencies.get(start) ?? [])];
  for (let key = ahead.pop(); key !== undefined; key = ahead.pop()) {
    if (held.has(key) || others.has(key)) found.add(key); // itself, too: a cycle, and said so
    if (seen.has(key)) continue;
    seen.add(key);
    if (!held.has(key) || others.size > 0) ahead.push(...(dependencies.get(key) ?? []));
  }
  return [...found];
}

/** The members of one cycle, the first again at the end. */
export function findCycle(order: Order): WorkloadKey[] | undefined {
  const done = new Set<WorkloadKey>();
  const visit = (key: WorkloadKey, path: readonly WorkloadKey[]): WorkloadKey[] | undefined => {
    const at = path.indexOf(key);
    if (at >= 0) return [...path.slice(at), key];
    if (done.has(key)) return undefined;
    for (const next of order.get(key) ?? []) {
      const cycle = visit(next, [...path, key]);
      if (cycle !== undefined) return cycle;
    }
    done.add(key);
    return undefined;
  };
  for (const key of order.keys()) {
    const cycle = visit(key, []);
    if (cycle !== undefined) return cycle;
  }
  return undefined;
}
