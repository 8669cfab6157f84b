import { OperationalError } from '../core/errors.ts';
import type { Left } from '../core/plan.ts';
import type { HoldRecord, RunRecord } from '../core/record.ts';
import type { Workload } from '../core/workload.ts';
import { distrustOf, distrustRun } from './distrust.ts';
import { inspectPatiently, isEngineAway, writeRest } from './engine.ts';
import { nextWithin } from './pulse.ts';
import type { Shared } from './shared.ts';
import type { Tools } from './tools.ts';
import { pendingOf } from './unwind.ts';

/** Wakes all that wait for the engine whenever it says that something changed, and looks after what is held. */
export async function watchEngine(shared: Shared): Promise<void> {
  const { signal } = shared.ending;
  const { clock } = shared.tools;
  let isDue = false;
  let isLooking = false;
  /** One look at a time, and many events are one: fifty containers that stop are no reason for fifty looks at each. */
  const lookAfterHolds = async (): Promise<void> => {
    isLooking = true;
    while (isDue) {
      isDue = false;
      const isSure = await findLostHolds(shared, 'hold-again');
      if (isDue) await clock.sleep(LOOK_PAUSE_MS, signal);
      else if (!isSure) await nextWithin(shared.engine, LOOK_AGAIN_MS, clock, signal);
      isDue ||= !isSure;
    }
    isLooking = false;
  };
  try {
    for await (const _ of shared.tools.driver.changes(signal)) {
      shared.engine.beat();
      isDue = true;
      if (!isLooking) shared.inBackground(lookAfterHolds());
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

const LOOK_PAUSE_MS = 200;
const LOOK_AGAIN_MS = 15_000;

/**
 * A held workload that runs again is a lost hold: told at once, and to the client as 65. In a restore it is stopped
 * again, unless it is about to be released anyway (`tell`). Resolves to whether all of them could be looked at.
 */
export async function findLostHolds(shared: Shared, then: 'hold-again' | 'tell'): Promise<boolean> {
  const { tools, unwindings, cuts, workloadLock } = shared;
  // By the journal one may be open that is being unwound: on a full disk. A `pre` that nobody carries out is to be undone.
  const isOpen = (id: string): boolean =>
    !unwindings.has(id) && [...(cuts.has(id) ? ['pre'] : []), 'open', 'kept'].includes(phaseOf(id));
  const phaseOf = (id: string): string => tools.journal.run(id)?.phase ?? 'closed';
  const open = tools.journal.holds().filter(({ status, runs }) => status === 'held' && runs.some(isOpen));
  let isSure = true;
  const mustBeOperational = (error: unknown, workload: string): void => {
    if (!(error instanceof OperationalError)) throw error;
    const level = isEngineAway(error) ? 'debug' : 'error'; // an absent engine is said elsewhere
    tools.log[level]('hold not checked', { workload, why: error.message });
    isSure = false;
  };
  const looks = open.map(({ key }) =>
    workloadLock(key, async () => {
      const hold = tools.journal.holds().find((one) => one.key === key);
      if (hold?.status !== 'held' || !hold.runs.some(isOpen)) return;
      await checkHold(hold, shared, then).catch((error) => mustBeOperational(error, hold.name));
    }),
  );
  const unwatched = tools.journal.runs('live').filter(({ id, phase }) => isOpen(id) && phase !== 'kept');
  for (const run of unwatched)
    for (const left of run.left ?? [])
      looks.push(checkLeft(left, run, shared).catch((error) => mustBeOperational(error, left.name)));
  await Promise.all(looks);
  return isSure;
}

async function checkHold(hold: HoldRecord, { tools, ending }: Shared, then: 'hold-again' | 'tell'): Promise<void> {
  const { driver, journal, log } = tools;
  const found = await inspectPatiently(hold, tools, ending.signal);
  if (found === undefined || !isLost(hold, found)) return;
  const runs = tellLost(hold, found, tools);
  if (then === 'tell' || !runs.some(({ operation }) => operation === 'restore')) return;
  // By what is written late it may have been released.
  if (!writeRest(tools)) throw new OperationalError('internal', 'not held again: the journal lacks what came before');
  if (!journal.holds().some(({ key, status }) => key === hold.key && status === 'held')) return;
  const { instance, name, startedAt } = found;
  journal.changeHold(hold.key, { status: 'asked', instance, name, startedAt, finishedAt: undefined });
  const still = await driver.hold(found, hold.kind, hold.stopTimeoutMs, ending.signal);
  journal.changeHold(hold.key, { status: 'held', finishedAt: still.finishedAt });
  log.warn('held again, for a restore', { workload: name });
}

/** What was found still and left so is held by nobody: who starts it, makes the data that are read inconsistent as well. */
async function checkLeft(left: Left, run: RunRecord, { tools, ending }: Shared): Promise<void> {
  const found = await inspectPatiently(left, tools, ending.signal);
  if (found === undefined || !hasRun(left, found)) return;
  const deed = isRunning(found) ? 'runs' : 'has run';
  tellRun(run, left.name, `${left.name} was found ${left.state} and ${deed} since (started ${found.startedAt})`, tools);
}

/** Has the runs that count on a hold know that it was lost; resolves to them. */
export function tellLost(hold: HoldRecord, found: Workload, tools: Tools): readonly RunRecord[] {
  const { journal } = tools;
  const deed = isRunning(found) ? 'runs again' : 'has run again';
  const why = `${hold.name} was held and ${deed} (started ${found.startedAt})`;
  const runs = hold.runs
    .flatMap((id) => journal.run(id) ?? [])
    .filter(({ phase }) => phase === 'pre' || phase === 'open' || phase === 'kept');
  for (const run of runs) tellRun(run, hold.name, why, tools);
  return runs;
}

function tellRun(run: RunRecord, workload: string, why: string, tools: Tools): void {
  if (distrustOf(run, tools).includes(why)) return;
  tools.log.error('hold lost', { run: run.id, workload, why });
  distrustRun(run, why, tools);
}

/** It runs, or has run since it was made still: nobody knows what it wrote. */
export function isLost(hold: HoldRecord, found: Workload): boolean {
  return hasRun(hold, found) || (found.instance === hold.instance && found.state === 'paused' && hold.kind === 'stop');
}

function hasRun(before: Pick<Workload, 'instance' | 'startedAt'>, now: Workload): boolean {
  if (isRunning(now)) return true;
  return now.instance === before.instance ? now.startedAt !== before.startedAt : now.state !== 'created';
}

function isRunning({ state }: Workload): boolean {
  return state === 'running' || state === 'restarting';
}

const REMINDER_MS = 60_000;

/** Says each minute that a failed restore still holds something, for as long as it does. */
export function remindOfKept(run: RunRecord, shared: Shared): void {
  const { tools, stopping } = shared;
  const remind = async (): Promise<void> => {
    while (tools.journal.run(run.id)?.phase === 'kept') {
      const held = pendingOf(run.id, tools).map(({ name }) => name);
      tools.log.error('a restore failed: still held, until sidehook release', { run: run.id, held });
      await tools.clock.sleep(REMINDER_MS, stopping.signal);
    }
  };
  shared.inBackground(
    remind().catch((error) => {
      if (!stopping.signal.aborted) throw error;
    }),
  );
}
