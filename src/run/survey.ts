import { OperationalError } from '../core/errors.ts';
import { parseHookFile } from '../core/header.ts';
import type { Hook } from '../core/hook.ts';
import { type LabelWishes, parseLabels, wordOf } from '../core/labels.ts';
import type { Held, Situation } from '../core/plan.ts';
import type { Note } from '../core/ports.ts';
import type { Workload, WorkloadKey } from '../core/workload.ts';
import type { Tools } from './tools.ts';

/** Of the journal, what is held is all that a look needs. */
export type SurveyTools = Pick<Tools, 'host' | 'driver'> & {
  readonly journal: { holds(): readonly Held[] };
  readonly settings: Pick<Tools['settings'], 'operations' | 'hooksTimeoutMs'>;
};

/**
 * Looks everything up that a plan is made from: hooks.d, the engine, the journal. Afresh for every `pre`.
 * @throws OperationalError `configuration`, `refused`, `engine-unavailable`
 */
export async function survey(tools: SurveyTools, signal: AbortSignal): Promise<Situation> {
  const { host, driver, journal, settings } = tools;
  const limits = { timeoutMs: settings.hooksTimeoutMs, operations: settings.operations };
  const { files, passedOver } = await host.list();
  const fileHooks = files.map((file) => parseHookFile(file, limits));
  const heldBefore = journal.holds(); // what is released while we look is seen still, and is no less ours to hold
  const view = await driver.look(
    fileHooks.map(({ target }) => target),
    signal,
  );

  const notes: Note[] = [...passedOver];
  const wishes = new Map<WorkloadKey, LabelWishes>();
  const labelHooks: Hook[] = [];
  for (const workload of view.workloads.filter(({ inScope, oneOff }) => inScope && !oneOff).toSorted(byIdentity)) {
    for (const label of workload.imageLabels) {
      const whose =
        workload.kind === 'container' ? "it is the image's own" : "its owner's pod template has no such thing";
      notes.push(
        `${workload.kind} ${workload.name}, ${wordOf(workload, label)}: passed over: ${whose}, not its operator's`,
      );
    }
    const wish = readLabels(workload, limits, notes);
    if (wish === undefined) continue;
    wishes.set(workload.key, wish);
    if (wish.hook !== undefined) labelHooks.push(wish.hook);
  }
  const elsewhere = (view.heldElsewhere ?? []).map((key): Held => ({ key }));
  const held = [...heldBefore, ...journal.holds(), ...elsewhere];
  return { hooks: [...fileHooks, ...labelHooks], view, wishes, held, notes };
}

/** An error in a container outside one's own project passes that container over; it stops nobody's backup. */
function readLabels(
  workload: Workload,
  limits: Parameters<typeof parseLabels>[1],
  notes: Note[],
): LabelWishes | undefined {
  try {
    return parseLabels(workload, limits);
  } catch (error) {
    if (!(workload.foreign && error instanceof OperationalError)) throw error;
    notes.push(`${workload.kind} ${workload.name}: passed over: ${error.message}`);
    return undefined;
  }
}

function byIdentity(a: Workload, b: Workload): number {
  const inBytes = (left: string, right: string): number => (left === right ? 0 : left < right ? -1 : 1);
  return (
    inBytes(a.project ?? '', b.project ?? '') ||
    inBytes(a.service ?? '', b.service ?? '') ||
    (a.number ?? 0) - (b.number ?? 0) ||
    inBytes(a.name, b.name)
  );
}
