import { OperationalError } from '../core/errors.ts';
import type { Lost, LostRun } from '../core/ledger.ts';
import type { RunRecord } from '../core/record.ts';
import { finish } from './finish.ts';
import { makeHold } from './hold.ts';
import { releaseOrphans, retryPending } from './pending.ts';
import { type Shared, toNobody } from './shared.ts';
import type { Tools } from './tools.ts';
import type { EndedRun } from './unwind.ts';
import { remindOfKept } from './watch.ts';

/** How long the engine may take to remember something, beside what a run does itself. */
const REMEMBER_MS = 30_000;

/** Tends the engine's ledger, where there is one, for as long as the sidecar lives. */
export async function tendLedger(shared: Shared): Promise<void> {
  const { ledger } = shared.tools.driver;
  const { signal } = shared.ending;
  if (ledger === undefined) return;
  try {
    for (;;) {
      await tend(shared).catch((error) => {
        if (!(error instanceof OperationalError)) throw error;
        shared.tools.log.warn('the ledger was not tended', { why: error.message });
      });
      await shared.tools.clock.sleep(ledger.paceMs, signal);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

/** Once: shows that we live, and finishes what was taken over. Resolves to how many are undecided. */
export async function tend(shared: Shared): Promise<number> {
  const { driver, journal } = shared.tools;
  if (driver.ledger === undefined) return 0;
  const lost = await driver.ledger.tend((id) => journal.run(id)?.phase, shared.ending.signal);
  await adopt(lost, shared);
  for (const run of journal.runs('live').filter(({ phase }) => phase === 'kept')) await closeIfTaken(run, shared);
  return lost.undecided;
}

/** What failed restores keep elsewhere, and a new one of their job has taken over: it lets go of that if it succeeds. */
export async function adoptKept(runs: readonly LostRun[], shared: Shared): Promise<void> {
  for (const one of runs.filter(({ run }) => shared.tools.journal.run(run.id) === undefined))
    remindOfKept(await importRun(one, shared.tools, shared.ending.signal), shared);
}

/** Writes what was lost into our own journal, from which it is ended as any run of ours. */
async function adopt(lost: Lost, shared: Shared): Promise<void> {
  const { journal, driver, log, clock } = shared.tools;
  for (const one of lost.runs) {
    log.warn('a run was lost with its sidecar: finishing it', { run: one.run.id, job: one.run.job });
    const run = await importRun(one, shared.tools, shared.ending.signal);
    if (run.phase === 'kept') remindOfKept(run, shared);
    else shared.inBackground(shared.runLock(run.id, () => finish(run as EndedRun, shared, toNobody)));
  }
  for (const { ref, runs } of lost.holds) {
    const found = await driver.inspect(ref, shared.ending.signal);
    if (found === undefined || journal.holds().some(({ key }) => key === ref.key)) continue;
    if (found.heldFor === undefined && found.state !== 'exited') continue; // it was released while we looked
    log.warn('a hold was lost with its sidecar: releasing it', { workload: ref.name, runs });
    const spec = { ...ref, kind: 'scale', after: [], awaitHealth: false, healthTermMs: found.healthTermMs } as const;
    journal.addHold(makeHold(spec, found, clock.now()), runs[0] ?? 'unknown');
  }
  if (lost.holds.length > 0) shared.inBackground(releaseOrphans(shared).then(() => retryPending(shared)));
}

async function importRun(
  { run, steps, holds, claims }: LostRun,
  tools: Tools,
  signal: AbortSignal,
): Promise<RunRecord> {
  const { journal, driver, clock } = tools;
  const outcome = run.outcome ?? (run.phase === 'pre' ? 'aborted' : 'abandoned');
  const ours: RunRecord = run.phase === 'kept' ? run : { ...run, phase: 'post', outcome };
  const found = await Promise.all(holds.map((spec) => driver.inspect(spec, signal)));
  journal.atomically(() => {
    journal.openRun(ours, steps, claims);
    for (const { id, status, outcome: ended } of steps) {
      if (status !== 'planned') journal.stepStarted(run.id, id);
      if (status === 'ended' && ended !== undefined) journal.stepEnded(run.id, id, ended);
    }
    for (const [index, spec] of holds.entries()) {
      const workload = found[index];
      if (workload?.heldFor?.includes(run.id) !== true) continue; // never asked for, or released already
      if (journal.holds().some(({ key }) => key === spec.key)) journal.joinHold(spec.key, run.id);
      else journal.addHold({ ...makeHold(spec, workload, clock.now()), awaitHealth: spec.awaitHealth }, run.id);
    }
  });
  return ours;
}

/** Takes up the runs of our journal after a restart; those that another has taken over meanwhile are over for us. */
export async function resumeRuns(shared: Shared): Promise<void> {
  for (const run of shared.tools.journal.runs('live')) await closeIfTaken(run, shared);
}

async function closeIfTaken(run: RunRecord, { tools }: Shared): Promise<void> {
  const { driver, journal, log, clock } = tools;
  if (driver.ledger === undefined) return;
  const isOurs = await driver.ledger.resume(run.id, clock.deadline(REMEMBER_MS)).catch((error) => {
    log.error('whether a run is still ours cannot be told: going on', { run: run.id, why: String(error) });
    return true;
  });
  if (isOurs) return;
  const why = `run ${run.id} was taken over by another sidehook`;
  log.error('run taken over', { run: run.id, job: run.job });
  journal.atomically(() => {
    for (const { key, runs } of journal.holds().filter(({ runs: all }) => all.includes(run.id))) {
      if (runs.length > 1) journal.leaveHold(key, run.id);
      else journal.changeHold(key, { status: 'released', releasedAt: clock.now() });
    }
    const distrust = [...run.distrust, why];
    const outcome = run.outcome ?? 'abandoned';
    journal.changeRun(run.id, { phase: 'closed', outcome, distrust, closedAt: clock.now() });
  });
}
