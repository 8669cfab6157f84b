import type { Plan, Step } from './plan.ts';
import type { Note } from './ports.ts';
import type { State } from './request.ts';
import type { PlanView } from './views.ts';

/** A plan for people: the steps of one state in the order in which they begin, and what is worth knowing. */
export function viewPlan(plan: Plan, asked: { operation: string; job: string; state: State }): PlanView {
  const steps = plan.steps.filter(({ call }) => call.state === asked.state);
  const hooks = (when: 'running' | 'held') => steps.filter(({ call }) => call.settings.while === when).map(viewStep);
  const holds = inOrder(plan).map(({ name, kind, after }) => {
    const needs = plan.holds.filter(({ key }) => after.includes(key)).map((hold) => hold.name);
    return {
      ...{ do: 'hold', what: kind, where: name },
      ...(needs.length === 0 ? {} : { why: `depends on ${needs.join(', ')}` }),
    };
  });
  const releases = holds.toReversed().map((hold) => ({ ...hold, do: 'release', what: `undo ${hold.what}` }));
  const views = {
    pre: [...hooks('running'), ...holds, ...hooks('held')],
    inspect: steps.map(viewStep),
    captured: [],
    post: [...hooks('held').toReversed(), ...releases, ...hooks('running').toReversed()],
  }[asked.state];
  return { ...asked, steps: views as PlanView['steps'], notes: [...plan.notes, ...adviceOn(plan, asked.operation)] };
}

function viewStep({ call }: Step): PlanView['steps'][number] {
  return { do: 'run', what: call.name, where: call.place.kind === 'host' ? 'host' : call.place.name };
}

/** Dependents before what they depend on. */
function inOrder({ holds }: Plan): Plan['holds'] {
  const left = new Map(holds.map((hold) => [hold.key, hold]));
  const ordered: Plan['holds'][number][] = [];
  while (left.size > 0) {
    const free = [...left.values()].filter(({ key }) => ![...left.values()].some(({ after }) => after.includes(key)));
    for (const hold of free) left.delete(hold.key);
    ordered.push(...free);
  }
  return ordered;
}

/** A dump taken while writers still write does not agree with the files that are copied after they were stopped. */
function adviceOn({ steps, holds }: Plan, operation: string): Note[] {
  const held = new Set(holds.map(({ key }) => key));
  if (held.size === 0) return [];
  const early = steps.filter(({ call }) => call.state === 'pre' && call.settings.while === 'running');
  return early.flatMap(({ call }) => {
    if (call.place.kind === 'host' || held.has(call.place.partOf ?? call.place.key) || operation === 'restore')
      return [];
    const { name } = call.place;
    return [
      `hook ${call.name} (${name}) runs before ${holds.map((hold) => hold.name).join(', ')} is held, and sees writes that come after it: while=held`,
    ];
  });
}
