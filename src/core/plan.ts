import { OperationalError, unreachable } from './errors.ts';
import type { Hold, HoldKind } from './hold.ts';
import type { Action, Hook, HookCall, Place } from './hook.ts';
import type { LabelWishes } from './labels.ts';
import { addNotes, makeHolds } from './plan-holds.ts';
import type { Note, View } from './ports.ts';
import { STATES, type State } from './request.ts';
import {
  describeTarget,
  isSelected,
  type Target,
  type Workload,
  type WorkloadKey,
  type WorkloadRef,
} from './workload.ts';

/** What there is to decide upon, looked up beforehand. */
export type Situation = {
  /** In order: files by name, then labels by project, service and number. */
  readonly hooks: readonly Hook[];
  readonly view: View;
  readonly wishes: ReadonlyMap<WorkloadKey, LabelWishes>;
  /** What is held already, by whichever run: the journal's word. */
  readonly held: readonly Held[];
  readonly notes: readonly Note[];
};

/** Of a hold, what a plan has to know. */
export type Held = Pick<Hold, 'key'>;

/** Whose plan it is. */
export type Asked = { readonly operation: string; readonly job: string };

/** A whole run, decided before its first step: `pre` as it goes, and what `inspect` and `post` will need. */
export type Plan = {
  readonly steps: readonly Step[];
  readonly holds: readonly HoldSpec[];
  readonly left: readonly Left[];
  readonly claims: readonly Claim[];
  readonly notes: readonly Note[];
};

/** One hook in one place at one state. */
export type Step = {
  readonly id: string;
  /** The same for all states of one hook in one place: `post` is owed once `pre` was started. */
  readonly owner: string;
  readonly call: HookCall;
};

/** One workload that is to be made still. */
export type HoldSpec = WorkloadRef & {
  readonly kind: HoldKind;
  /** Those that it depends on and that we hold, or another run may. */
  readonly after: readonly WorkloadKey[];
  readonly awaitHealth: boolean;
  readonly healthTermMs: number;
  readonly stopTimeoutMs?: number;
  readonly maxMs?: number;
};

/** What would have been made still, was found so, and is left so: it is to be still to the end all the same. */
export type Left = WorkloadRef & Pick<Workload, 'state' | 'startedAt'>;

/** What a run needs of a workload, for its whole length. */
export type Claim = { readonly key: WorkloadKey; readonly name: string; readonly use: 'hold' | 'exec' };

/**
 * Decides what to do and in which order, and does none of it.
 * @throws OperationalError `configuration`, `refused`, `not-executable`: nothing was done, and the message says why
 */
export function makePlan(asked: Asked, situation: Situation): Plan {
  const { exposed } = situation.view;
  if (exposed !== undefined) throw new OperationalError('configuration', exposed);
  const forbidden = situation.view.workloads.flatMap(({ forbids }) => forbids?.[asked.operation] ?? [])[0];
  if (forbidden !== undefined) throw new OperationalError('configuration', forbidden);
  const notes: Note[] = [...situation.view.notes, ...situation.notes];
  const left: Left[] = [];
  const holds = makeHolds(asked, situation, left, notes);
  const held = new Set(holds.map(({ key }) => key));
  const steps = situation.hooks
    .filter((hook) => hook.jobs === undefined || hook.jobs.includes(asked.job))
    .flatMap((hook) => stepsOf(hook, asked, situation, held, notes))
    .map((step, index): Step => ({ ...step, id: `${step.call.state}-${String(index + 1).padStart(3, '0')}` }));
  if (steps.length === 0 && holds.length === 0) notes.push(`nothing to do: no hook and no hold for ${asked.operation}`);
  return { steps, holds, left, claims: makeClaims(steps, holds), notes };
}

/** An error in a container outside one's own project passes that container over; it stops nobody's backup. */
function stepsOf(
  hook: Hook,
  asked: Asked,
  situation: Situation,
  held: ReadonlySet<WorkloadKey>,
  notes: Note[],
): Omit<Step, 'id'>[] {
  try {
    return makeSteps(hook, asked, situation, held, notes);
  } catch (error) {
    const { target } = hook;
    const whose = situation.view.workloads.find(({ key }) => target.kind === 'workload' && key === target.key);
    if (!(whose?.foreign && error instanceof OperationalError)) throw error;
    addNotes(notes, [`${whose.kind} ${whose.name}: passed over: ${error.message}`]);
    return [];
  }
}

function makeSteps(
  hook: Hook,
  { operation }: Asked,
  { view, held: alreadyHeld }: Situation,
  held: ReadonlySet<WorkloadKey>,
  notes: Note[],
): Omit<Step, 'id'>[] {
  const steps: Omit<Step, 'id'>[] = [];
  for (const state of STATES) {
    const action = hook.actions.find((one) => isFor(one, operation, state));
    if (action === undefined) continue;
    for (const place of placesOf(hook, action, view, alreadyHeld, notes)) {
      const name = hook.target.kind === 'workload' ? `sidehook.${operation}.${state}` : hook.name;
      if (place.kind === 'workload' && held.has(place.partOf ?? place.key) && action.settings.while === 'held') {
        const why = 'while=held, but its target is itself held; let it run while=running, or do not hold its target';
        throw new OperationalError('configuration', `hook ${name} (${place.target}): ${why}`);
      }
      const { program, settings } = action;
      const call: HookCall = { hookId: hook.id, name, operation, state, program, settings, place };
      steps.push({ owner: `${hook.id}@${place.kind === 'host' ? 'host' : place.key}`, call });
    }
  }
  return steps;
}

function isFor(action: Action, operation: string, state: State): boolean {
  return (
    (action.operation === '*' || action.operation === operation) && (action.state === '*' || action.state === state)
  );
}

function placesOf(hook: Hook, { settings }: Action, view: View, held: readonly Held[], notes: Note[]): Place[] {
  if (hook.target.kind === 'host') return [{ kind: 'host' }];
  const target = describeTarget(hook.target);
  const who = `hook ${hook.name} (${target})`;
  const matches = matchesOf(hook.target, view);
  // What another run holds is not missing: claims make this run wait for it.
  const isUsable = ({ key, partOf, state }: Workload): boolean =>
    state === 'running' || held.some((hold) => hold.key === (partOf ?? key));
  if (settings.match !== 'any') {
    if (matches.length === 0)
      throw new OperationalError('configuration', `${who}: no such ${nounOf(hook.target)}; match=any allows none`);
    const still = matches.find((workload) => !isUsable(workload));
    if (still !== undefined) {
      const why = `${still.kind} ${still.name} is ${still.state}, not running; match=any passes over what does not run`;
      throw new OperationalError('not-executable', `${who}: ${why}`);
    }
  }
  if (settings.match === 'one' && matches.length !== 1) {
    const names = matches.map(({ name }) => name).join(', ');
    throw new OperationalError('configuration', `${who}: match=one, but ${matches.length} match: ${names}`);
  }
  const passedOver = matches.filter((workload) => !isUsable(workload));
  addNotes(
    notes,
    passedOver.map(({ kind, name, state }) => `${who}: ${kind} ${name} is ${state}: passed over`),
  );
  const { container } = hook.target as { readonly container?: string };
  return matches.filter(isUsable).map(({ kind, key, instance, name, partOf, containers }) => {
    if (kind === 'pod' && settings.user !== undefined)
      throw new OperationalError('configuration', `${who}: user=${settings.user}: Kubernetes has no such thing`);
    if (container !== undefined && containers?.includes(container) !== true)
      throw new OperationalError('configuration', `${who}: ${kind} ${name} has no container ${container}`);
    return {
      ...{ kind: 'workload', key, instance, name, target },
      ...(container === undefined ? {} : { container }),
      ...(partOf === undefined ? {} : { partOf }),
    };
  });
}

function nounOf(target: Target): 'pod' | 'container' {
  return target.kind === 'pod' ? 'pod' : 'container';
}

/** The workloads that a target names, in byte order. */
function matchesOf(target: Target, { workloads, project }: View): readonly Workload[] {
  const candidates = workloads.filter(({ oneOff }) => !oneOff);
  switch (target.kind) {
    case 'host':
      return [];
    case 'workload':
      return candidates.filter(({ key }) => key === target.key);
    case 'container':
      return candidates.filter(({ name }) => name === target.name);
    case 'service': {
      const wanted = target.project ?? project;
      return candidates.filter(
        (one) => one.service === target.service && (wanted === undefined || one.project === wanted),
      );
    }
    case 'pod':
      return candidates.filter(({ kind, labels }) => kind === 'pod' && isSelected(labels, target.selector));
    case 'label':
      return candidates.filter(({ inScope, labels }) => inScope && labels[target.label] === target.value);
    default:
      return unreachable(target);
  }
}

function makeClaims(steps: readonly Step[], holds: readonly HoldSpec[]): Claim[] {
  const claims = new Map<string, Claim>();
  for (const { key, name } of holds) claims.set(`hold ${key}`, { key, name, use: 'hold' });
  for (const { call } of steps) {
    if (call.place.kind === 'host') continue;
    const { name, partOf } = call.place;
    const key = partOf ?? call.place.key;
    claims.set(`exec ${key}`, { key, name, use: 'exec' });
  }
  return [...claims.values()];
}
