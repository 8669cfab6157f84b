import { formatDuration } from '../core/duration.ts';
import type { Clock, Lease } from '../core/ports.ts';
import type { HoldRecord, RunRecord } from '../core/record.ts';
import { clientsGone } from './clients.ts';
import { distrustRun } from './distrust.ts';
import { writeOrLog } from './engine.ts';
import { finish } from './finish.ts';
import { type Shared, toNobody } from './shared.ts';
import { heedSiblings } from './siblings.ts';
import { pendingOf } from './unwind.ts';

/**
 * Watches over an open run: its lease, and how long it may hold anything. When it is lost, the run is abandoned and
 * unwound. Called again (a bare signal renews its lease), the lease begins anew, and `hold.max` does not; nor does it
 * after a restart.
 */
export function guard(
  run: RunRecord,
  lease: Lease | undefined,
  shared: Shared,
  { isAgain = false }: { readonly isAgain?: boolean } = {},
): void {
  const { clock, settings } = shared.tools;
  const terms = pendingOf(run.id, shared.tools).map((hold): [number, number] => {
    const termMs = hold.maxMs ?? settings.holdMaxMs;
    return [termMs, isAgain ? Math.max(0, termMs - spentMs(run, hold, clock)) : termMs];
  });
  const [maxMs, leftMs] = terms.toSorted(([, one], [, other]) => one - other)[0] ?? [Infinity, Infinity];
  const nowMs = clock.monotonicMs();
  const { releaseMs = nowMs + leftMs } = shared.guards.get(run.id) ?? {};
  unguard(run.id, shared);
  const stop = new AbortController();
  shared.guards.set(run.id, { stop, lease, releaseMs });
  const signal = AbortSignal.any([stop.signal, shared.stopping.signal]);

  const ends = [leaseEnd(run, lease, shared, signal)];
  if (run.clients?.length) ends.push(clientsGone(run, lease, shared, signal));
  if (Number.isFinite(maxMs)) {
    const why = `it held for longer than ${formatDuration(maxMs)} (hold.max)`;
    ends.push(clock.sleep(Math.max(0, releaseMs - nowMs), signal).then(() => why));
  }
  for (const end of ends) end.catch(() => undefined);
  shared.inBackground(
    Promise.race(ends).then(
      (why) => abandon(run.id, why, shared),
      (error) => {
        if (!signal.aborted) throw error;
      },
    ),
  );
}

/** How long it has held so far, by the clock on the wall: no other outlives a restart. One that went back is no reason. */
function spentMs({ openedAt }: RunRecord, { heldAt }: HoldRecord, clock: Clock): number {
  return Math.max(0, Date.parse(clock.now()) - Math.max(Date.parse(openedAt), Date.parse(heldAt)));
}

/** Ends the watch: somebody ends the run. */
export function unguard(runId: string, { guards }: Shared): void {
  guards.get(runId)?.stop.abort();
  guards.delete(runId);
}

async function leaseEnd(
  run: RunRecord,
  lease: Lease | undefined,
  shared: Shared,
  signal: AbortSignal,
): Promise<string> {
  if (run.lease === 'held') {
    await lease?.lost(signal);
    return 'its client is gone';
  }
  await shared.tools.clock.sleep(run.lease, signal);
  return `no word from its client for ${formatDuration(run.lease)}`;
}

/** The client is dead, or hangs: its run is over, and its backup, if it made one, not to be trusted. */
export function abandon(runId: string, why: string, shared: Shared): Promise<void> {
  const { journal, log } = shared.tools;
  return shared.runLock(runId, async () => {
    const run = journal.run(runId);
    if (run?.phase !== 'open') return;
    shared.guards.get(runId)?.lease?.abandon?.(why); // one that only hangs, or restores, can still end its command
    unguard(runId, shared);
    await heedSiblings(shared);
    if (shared.ending.signal.aborted) return; // the next start finds it out once more
    log.error('run abandoned', { run: runId, job: run.job, why });
    const ended = { phase: 'post', outcome: 'abandoned' } as const;
    distrustRun(run, `run ${runId} was abandoned: ${why}`, shared.tools);
    writeOrLog(shared.tools, () => journal.changeRun(runId, ended));
    await finish({ ...run, ...ended }, shared, toNobody);
  });
}
