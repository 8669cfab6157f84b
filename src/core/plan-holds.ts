import { OperationalError, unreachable } from './errors.ts';
import { wordOf } from './labels.ts';
import { dependenciesOf, findCycle, namedBy, type Order, orderOf } from './order.ts';
import type { Asked, HoldSpec, Left, Situation } from './plan.ts';
import type { Note } from './ports.ts';
import { isHealthExpected, type Workload, type WorkloadKey } from './workload.ts';

/**
 * Decides what is to be made still, and after what. What is still already goes to `left`.
 * @throws OperationalError `configuration`: one of them may not be held, or nothing may, or their order is a cycle
 */
export function makeHolds(
  { operation, job }: Asked,
  { view, wishes, held }: Situation,
  left: Left[],
  notes: Note[],
): HoldSpec[] {
  const wanted: Workload[] = [];
  for (const workload of view.workloads) {
    const wish = wishes.get(workload.key)?.hold;
    if (wish === undefined || !wish.operations.includes(operation)) continue;
    if (wish.jobs !== undefined && !wish.jobs.includes(job)) continue;
    const byUs = workload.heldFor !== undefined || held.some(({ key }) => key === workload.key);
    if (!byUs && workload.state !== 'running' && workload.state !== 'restarting') {
      left.push(leftOf(workload));
      notes.push(describeLeft(workload));
    } else if (workload.unholdable === undefined) wanted.push(workload);
    else if (workload.foreign) notes.push(`hold of ${workload.name}: passed over: ${workload.unholdable}`);
    else throw new OperationalError('configuration', `hold of ${workload.name}: refused: ${workload.unholdable}`);
  }
  if (wanted.length > 0 && view.unholdable !== undefined) {
    throw new OperationalError(
      'configuration',
      `hold of ${wanted.map(({ name }) => name).join(', ')}: refused: ${view.unholdable}`,
    );
  }

  const afterNames = new Map([...wishes].map(([key, { after }]) => [key, after]));
  const holdable = new Set([...wishes].flatMap(([key, { hold }]) => (hold === undefined ? [] : [key])));
  const { held: ordered, order } = inOrder(wanted, view.workloads, afterNames, holdable, notes);
  const keys = new Set(order.keys());
  addNotes(notes, namedInVain(view.workloads, afterNames));
  addNotes(notes, bereft(keys, view.workloads, afterNames));
  return ordered.map((workload): HoldSpec => {
    const { kind, stopTimeoutMs, maxMs } = wishes.get(workload.key)?.hold ?? unreachable(undefined as never);
    const { key, instance, name, healthTermMs } = workload;
    return {
      ...{ key, instance, name, kind, healthTermMs },
      after: order.get(key) ?? [],
      awaitHealth: isHealthExpected(workload),
      ...(stopTimeoutMs === undefined ? {} : { stopTimeoutMs }),
      ...(maxMs === undefined ? {} : { maxMs }),
    };
  });
}

/** What is to be remembered of one that is left as it was found. */
export function leftOf({ key, instance, name, state, startedAt }: Workload): Left {
  return { key, instance, name, state, startedAt };
}

/** That one is left as it was found, for people. */
export function describeLeft({ name, state }: Left): Note {
  return `hold of ${name}: found ${state}, left so`;
}

/** Orders them. A cycle of other projects' workloads is theirs to mend: they are passed over, and stop nobody's backup. */
function inOrder(
  wanted: readonly Workload[],
  workloads: readonly Workload[],
  afterNames: ReadonlyMap<WorkloadKey, readonly string[]>,
  holdable: ReadonlySet<WorkloadKey>,
  notes: Note[],
): { readonly held: readonly Workload[]; readonly order: Order } {
  const order = orderOf(new Set(wanted.map(({ key }) => key)), workloads, afterNames, holdable);
  const cycle = findCycle(order)?.flatMap((key) => wanted.find((workload) => workload.key === key) ?? []);
  if (cycle === undefined) return { held: wanted, order };
  const why = `${cycle.map(({ name }) => name).join(' depends on ')}: a cycle; break it`;
  if (!cycle.every(({ foreign }) => foreign)) throw new OperationalError('configuration', `order of holds: ${why}`);
  notes.push(`order of holds: passed over: ${why}`);
  return inOrder(
    wanted.filter((workload) => !cycle.includes(workload)),
    workloads,
    afterNames,
    holdable,
    notes,
  );
}

/** Misspelt, gone, or out of scope: whichever it is, it orders nothing. */
function namedInVain(workloads: readonly Workload[], afterNames: ReadonlyMap<WorkloadKey, readonly string[]>): Note[] {
  return workloads.flatMap((workload) =>
    (afterNames.get(workload.key) ?? [])
      .filter((name) => namedBy(name, workload, workloads).length === 0)
      .map(
        (name) =>
          `${workload.kind} ${workload.name}, ${wordOf(workload, 'sidehook.hold.after')}: nothing here is called ${name}, so it orders nothing`,
      ),
  );
}

/** Running workloads that will lose what they talk to. */
function bereft(
  held: ReadonlySet<WorkloadKey>,
  workloads: readonly Workload[],
  afterNames: ReadonlyMap<WorkloadKey, readonly string[]>,
): Note[] {
  const dependencies = dependenciesOf(workloads, afterNames);
  return workloads
    .filter(({ key, state, oneOff }) => state === 'running' && !oneOff && !held.has(key))
    .flatMap((workload) => {
      const lost = (dependencies.get(workload.key) ?? []).filter((key) => held.has(key));
      const names = lost.map((key) => workloads.find((one) => one.key === key)?.name ?? key);
      return names.length === 0
        ? []
        : [`${workload.name} depends on ${names.join(', ')} and is not held: it loses what it talks to`];
    });
}

/** Adds what is not said yet. */
export function addNotes(notes: Note[], more: readonly Note[]): void {
  for (const note of more) if (!notes.includes(note)) notes.push(note);
}
