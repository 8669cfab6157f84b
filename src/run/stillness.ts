import { OperationalError } from '../core/errors.ts';
import type { Left } from '../core/plan.ts';
import type { HoldRecord, RunRecord } from '../core/record.ts';
import type { Workload } from '../core/workload.ts';
import { distrustOf, distrustRun } from './distrust.ts';
import { type EngineEdges, inspectPatiently, whileEngineAway } from './engine.ts';
import type { Lock } from './lock.ts';
import type { Tools } from './tools.ts';

/**
 * The last look before a run whose client says that all went well lets go: what it holds, and what it found still, is so
 * to this moment, or the client is told (65). Waits for an engine that is away; what cannot be looked at is not trusted.
 */
export async function confirmStill(
  run: RunRecord,
  tools: Tools,
  edges: EngineEdges & { readonly lock: Lock },
): Promise<void> {
  const { journal } = tools;
  const look = async (name: string, work: () => Promise<void>): Promise<void> => {
    try {
      await whileEngineAway(work, tools, edges);
    } catch (error) {
      if (!(error instanceof OperationalError)) throw error;
      tellRun(run, name, `whether ${name} was still to the end cannot be told: ${error.message}`, tools);
    }
  };
  const find = (id: string): HoldRecord | undefined => journal.holdsOf(run.id).find(({ key }) => key === id);
  const looks = journal.holdsOf(run.id).map(({ key, name }) =>
    look(name, () =>
      edges.lock(key, async () => {
        const hold = find(key);
        if (hold?.status !== 'held') return; // one that is on its way up was looked at before that
        const found = await inspectPatiently(hold, tools, edges.signal);
        if (found !== undefined && isLost(hold, found)) tellRun(run, name, describeLost(hold, found), tools);
      }),
    ),
  );
  for (const left of run.left ?? []) looks.push(look(left.name, () => checkLeft(left, run, tools, edges.signal)));
  await Promise.all(looks);
}

/** What was found still and left so is held by nobody: who starts it makes the data that are read inconsistent as well. */
export async function checkLeft(left: Left, run: RunRecord, tools: Tools, signal: AbortSignal): Promise<void> {
  const found = await inspectPatiently(left, tools, signal);
  if (found === undefined || !hasRun(left, found)) return;
  const deed = isRunning(found) ? 'runs' : 'has run';
  tellRun(run, left.name, `${left.name} was found ${left.state} and ${deed} since (started ${found.startedAt})`, tools);
}

/** Has the runs that count on a hold know that it was lost; resolves to them. */
export function tellLost(hold: HoldRecord, found: Workload, tools: Tools): readonly RunRecord[] {
  const runs = hold.runs
    .flatMap((id) => tools.journal.run(id) ?? [])
    .filter(({ phase }) => phase === 'pre' || phase === 'open' || phase === 'kept');
  for (const run of runs) tellRun(run, hold.name, describeLost(hold, found), tools);
  return runs;
}

/** It runs, or has run since it was made still: nobody knows what it wrote. */
export function isLost(hold: HoldRecord, found: Workload): boolean {
  return hasRun(hold, found) || (found.instance === hold.instance && found.state === 'paused' && hold.kind === 'stop');
}

function describeLost({ name }: HoldRecord, found: Workload): string {
  return `${name} was held and ${isRunning(found) ? 'runs again' : 'has run again'} (started ${found.startedAt})`;
}

function tellRun(run: RunRecord, workload: string, why: string, tools: Tools): void {
  if (distrustOf(run, tools).includes(why)) return;
  tools.log.error('hold lost', { run: run.id, workload, why });
  distrustRun(run, why, tools);
}

function hasRun(before: Pick<Workload, 'instance' | 'startedAt'>, now: Workload): boolean {
  if (isRunning(now)) return true;
  return now.instance === before.instance ? now.startedAt !== before.startedAt : now.state !== 'created';
}

function isRunning({ state }: Workload): boolean {
  return state === 'running' || state === 'restarting';
}
