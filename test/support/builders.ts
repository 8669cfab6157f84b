import { parseHookFile } from '../../src/core/header.ts';
import type { Hook } from '../../src/core/hook.ts';
import { parseLabels } from '../../src/core/labels.ts';
import { makePlan, type Plan, type Situation } from '../../src/core/plan.ts';
import type { Dependency, Workload } from '../../src/core/workload.ts';

/** A running container `app/NAME/1` with no labels. */
export function aWorkload(name: string, more: Partial<Workload> = {}): Workload {
  return {
    ...{
      kind: 'container',
      key: `app/${name}/1`,
      instance: `id-${name}`,
      name,
      project: 'app',
      service: name,
      number: 1,
    },
    ...{ oneOff: false, inScope: true, foreign: false, labels: {}, imageLabels: [], state: 'running', health: 'none' },
    ...{ startedAt: '2026-01-01T00:00:00Z', finishedAt: '0001-01-01T00:00:00Z', healthTermMs: 0, dependsOn: [] },
    ...more,
  };
}

/** One that is held by its label. */
export function aHeldWorkload(name: string, ...dependsOn: string[]): Workload {
  return aWorkload(name, {
    labels: { 'sidehook.hold': 'stop' },
    dependsOn: dependsOn.map((service) => aDependency(service)),
  });
}

export function aDependency(service: string, condition: Dependency['condition'] = 'service_started'): Dependency {
  return { project: 'app', service, condition };
}

/** A shell hook of hooks.d with this header. */
export function aHook(name: string, header = ''): Hook {
  const text = `#!/bin/sh\n${header === '' ? '' : `# sidehook: ${header}\n`}`;
  return parseHookFile(
    { name, path: `/hooks.d/${name}`, text, head: text },
    { timeoutMs: 1000, operations: ['backup', 'restore'] },
  );
}

/** What a survey of these would find. */
export function aSituation(
  workloads: readonly Workload[],
  hooks: readonly Hook[] = [],
  more: Partial<Situation> = {},
): Situation {
  const limits = { timeoutMs: 1000, operations: ['backup', 'restore'] };
  const wishes = new Map(workloads.map((workload) => [workload.key, parseLabels(workload, limits)]));
  const labelHooks = [...wishes.values()].flatMap(({ hook }) => hook ?? []);
  return {
    hooks: [...hooks, ...labelHooks],
    view: { workloads, project: 'app', notes: [] },
    wishes,
    held: [],
    notes: [],
    ...more,
  };
}

export function planOf(situation: Situation, operation = 'backup', job = 'default'): Plan {
  return makePlan({ operation, job }, situation);
}
