import { ERRORS } from '../core/errors.ts';
import type { Note } from '../core/ports.ts';
import type { RunRecord } from '../core/record.ts';
import type { Answer } from '../core/result.ts';
import { isHalfRestored } from '../core/unwinding.ts';
import { writeOrLog } from './engine.ts';
import { orphansOf, releaseOrphans, retryPending } from './pending.ts';
import { type ReleaseResult, releaseAll } from './release.ts';
import { edgesOf, type Shared, toNobody } from './shared.ts';
import { pendingOf } from './unwind.ts';

/** Releases, at once, what a run holds, or all do; also what a failed restore keeps (5.3). A backup under way is told (65). */
export async function releaseNow(
  which: { readonly runId: string } | { readonly all: true },
  shared: Shared,
): Promise<Answer> {
  const { tools } = shared;
  const live = tools.journal.runs('live').toReversed();
  const runs = 'all' in which ? live : live.filter(({ id }) => id === which.runId);
  const results: ReleaseResult[] = [];
  for (const run of runs) results.push(...(await letGoOf(run, 'it was released by sidehook release', shared)));
  const orphans = orphansOf(shared).filter(({ runs: ids }) => 'all' in which || ids.includes(which.runId));
  if (orphans.length > 0) await releaseOrphans(shared);
  retryPending(shared);

  const names = orphans.map(({ name }) => name);
  const notes: Note[] = results.map(
    ({ hold, status, why }) => `${hold.name}: ${status}${why === undefined ? '' : `: ${why}`}`,
  );
  const left = tools.journal.holds().filter(({ runs: ids }) => 'all' in which || ids.includes(which.runId));
  notes.push(...names.filter((name) => !left.some((hold) => hold.name === name)).map((name) => `${name}: running`));
  if (left.length === 0 && notes.length === 0) notes.push('nothing is held');
  if (left.length === 0) return { exitCode: 0, notes };
  const message = `release: not released yet: ${left.map(({ name, trouble }) => (trouble === undefined ? name : `${name} (${trouble})`)).join(', ')}`;
  return { exitCode: ERRORS['workload-failed'].exit, message, notes };
}

/** The sidecar was told to end: no new work, and at once, without waiting for health, nothing stays down for our sake. */
export async function shutDown(shared: Shared): Promise<void> {
  const { tools, stopping, ending, underWay, background } = shared;
  stopping.abort(new Error('the sidecar is stopping'));
  await Promise.allSettled(underWay.values());
  if (tools.settings.shutdownHolds === 'release') {
    const open = tools.journal.runs('live').filter((run) => run.phase === 'open' && !isHalfRestored(run));
    await Promise.all(
      open.map((run) => letGoOf(run, 'its holds were released, since the sidecar was stopped', shared)),
    );
  }
  ending.abort(new Error('the sidecar has ended'));
  await Promise.allSettled([...background]);
}

async function letGoOf({ id }: RunRecord, why: string, shared: Shared): Promise<readonly ReleaseResult[]> {
  const { tools, runLock, turn, guards } = shared;
  return runLock(id, async () => {
    const run = tools.journal.run(id);
    const held = pendingOf(id, tools);
    if (run === undefined || held.length === 0) return [];
    const told = `${why}: ${held.map(({ name }) => name).join(', ')}`;
    if (run.phase === 'open') {
      writeOrLog(tools, () => tools.journal.changeRun(id, { distrust: [...run.distrust, told] }));
      if (run.operation === 'restore') guards.get(id)?.lease?.abandon?.(told); // it must not write on under what now runs
    }
    const results = await releaseAll(held, id, tools, edgesOf(shared, toNobody));
    if (run.phase === 'kept') writeOrLog(tools, () => tools.journal.changeRun(id, { phase: 'closed' }));
    turn.beat();
    return results;
  });
}
