import { OperationalError } from '../core/errors.ts';
import type { HoldRecord, RunRecord } from '../core/record.ts';
import { inspectPatiently, isEngineAway, writeRest } from './engine.ts';
import type { Shared } from './shared.ts';
import { checkLeft, isLost, tellLost } from './stillness.ts';
import { pendingOf } from './unwind.ts';

/** Wakes all that wait for the engine whenever it says that something changed, and then looks after what is held. */
export async function watchEngine(shared: Shared): Promise<void> {
  const { signal } = shared.ending;
  const { clock } = shared.tools;
  /** Many events are one: fifty containers that stop are no reason for fifty looks at each. */
  const lookAfterHolds = async (): Promise<void> => {
    await shared.engine.next(signal);
    for (;;) {
      const changed = shared.engine.next(signal);
      changed.catch(() => undefined);
      const isSure = await findLostHolds(shared);
      await clock.sleep(LOOK_PAUSE_MS, signal);
      await (isSure ? changed : Promise.race([changed, clock.sleep(LOOK_AGAIN_MS, signal)]));
    }
  };
  shared.inBackground(lookAfterHolds());
  try {
    for await (const _ of shared.tools.driver.changes(signal)) shared.engine.beat();
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

const LOOK_PAUSE_MS = 200;
const LOOK_AGAIN_MS = 15_000;

/**
 * A held workload that runs again is a lost hold: told at once, and to the client as 65. In a restore it is stopped
 * again. Resolves to whether all of them could be looked at.
 */
async function findLostHolds(shared: Shared): Promise<boolean> {
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
      await checkHold(hold, shared).catch((error) => mustBeOperational(error, hold.name));
    }),
  );
  const unwatched = tools.journal.runs('live').filter(({ id, phase }) => isOpen(id) && phase !== 'kept');
  for (const run of unwatched)
    for (const left of run.left ?? [])
      looks.push(
        checkLeft(left, run, tools, shared.ending.signal).catch((error) => mustBeOperational(error, left.name)),
      );
  await Promise.all(looks);
  return isSure;
}

async function checkHold(hold: HoldRecord, { tools, ending }: Shared): Promise<void> {
  const { driver, journal, log } = tools;
  const found = await inspectPatiently(hold, tools, ending.signal);
  if (found === undefined || !isLost(hold, found)) return;
  const runs = tellLost(hold, found, tools);
  if (!runs.some(({ operation }) => operation === 'restore')) return;
  // By what is written late it may have been released.
  if (!writeRest(tools)) throw new OperationalError('internal', 'not held again: the journal lacks what came before');
  if (!journal.holds().some(({ key, status }) => key === hold.key && status === 'held')) return;
  const { instance, name, startedAt } = found;
  journal.changeHold(hold.key, { status: 'asked', instance, name, startedAt, finishedAt: undefined });
  const still = await driver.hold(found, hold.kind, hold.stopTimeoutMs, ending.signal);
  journal.changeHold(hold.key, { status: 'held', finishedAt: still.finishedAt });
  log.warn('held again, for a restore', { workload: name });
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
