import { OperationalError } from '../core/errors.ts';
import type { Intake } from '../core/ports.ts';
import type { RunRecord, StepRecord } from '../core/record.ts';
import { type Answer, EXIT_SKIP, type RunOutcome } from '../core/result.ts';
import { resumeRuns } from './adopt.ts';
import { conduct, keepAnswer } from './conduct.ts';
import { writeOrLog } from './engine.ts';
import { finish } from './finish.ts';
import { abandon, guard } from './guard.ts';
import { markOf } from './hooks.ts';
import { releaseOrphans, retryPending } from './pending.ts';
import { type Shared, toNobody } from './shared.ts';
import type { EndedRun } from './unwind.ts';
import { remindOfKept } from './watch.ts';

/** How long one attempt at ending what a dead sidecar left running may take. */
const LEFTOVERS_MS = 30_000;

/**
 * Goes on from what the journal says, before the first new request is taken: surviving hooks are ended, an interrupted
 * `pre` is unwound, an interrupted `post` goes on, an open run is watched again, holds whose run is closed are released.
 * Resolves after one attempt each; what an absent engine delays goes on behind it.
 */
export async function recover(intakes: readonly Intake[], shared: Shared): Promise<void> {
  const { journal, log } = shared.tools;
  await resumeRuns(shared);
  const runs = journal.runs('live').toReversed();
  const unanswered = journal.unanswered();
  if (runs.length > 0) log.warn('recovering', { runs: runs.map(({ id, phase }) => `${id} (${phase})`) });
  await Promise.all(runs.map((run) => endLeftovers(run, shared)));

  const work: Promise<unknown>[] = [];
  for (const run of runs) {
    const itsPre = unanswered.find(({ request }) => request.id === run.requestId);
    if (run.phase === 'open') work.push(watchAgain(run, intakes, shared));
    else if (run.phase === 'kept') remindOfKept(run, shared);
    else if (run.phase === 'pre' || itsPre !== undefined) work.push(unwindPre(run, itsPre, intakes, shared));
    else if (!unanswered.some((one) => isItsPost(one.request, run) && isKnown(intakes, one)))
      work.push(goOn(run, shared));
  }
  work.push(releaseOrphans(shared).then(() => retryPending(shared)));
  for (const one of work) shared.inBackground(one);
  await Promise.race([Promise.all(work), shared.tools.clock.sleep(LEFTOVERS_MS, shared.ending.signal)]);

  for (const { request, leaseRef } of unanswered.filter(({ request: { id } }) => !shared.underWay.has(id))) {
    if (journal.answerOf(request.id) !== undefined) continue;
    // Its run is over, and the word of it was not: it is not begun a second time (P6).
    const over =
      request.state === 'pre' ? journal.runs('all').find(({ requestId }) => requestId === request.id) : undefined;
    if (over !== undefined) keepAnswer(request, leaseRef, answerCut(over), shared);
    const delivery = reopen(intakes, request, leaseRef);
    if (delivery !== undefined) shared.inBackground(conduct(delivery, shared));
  }
}

type Unanswered = ReturnType<Shared['tools']['journal']['unanswered']>[number];

function isItsPost(request: { state: string; runId?: string; job: string }, run: RunRecord): boolean {
  if (request.state !== 'post') return false;
  return request.runId === undefined ? request.job === run.job : request.runId === run.id;
}

/** Whether its way back is there: a request whose transport is gone is not taken up again. */
function isKnown(intakes: readonly Intake[], { leaseRef }: Unanswered): boolean {
  return intakes.some((intake) => intake.lease(leaseRef) !== undefined);
}

/** Unwinds what was cut off in its `pre`; whoever asks for that again meanwhile, gets the same answer. */
async function unwindPre(
  run: RunRecord,
  itsPre: Unanswered | undefined,
  intakes: readonly Intake[],
  shared: Shared,
): Promise<void> {
  const ended = run.outcome === undefined ? endAs(run, 'aborted', shared) : (run as EndedRun);
  const answering = shared
    .runLock(run.id, () => finish(ended, shared, toNobody))
    .then((undone) => answerCut(run, undone));
  if (itsPre === undefined) return void (await answering);
  shared.underWay.set(run.requestId, answering);
  const answer = await answering;
  keepAnswer(itsPre.request, itsPre.leaseRef, answer, shared);
  await reopen(intakes, itsPre.request, itsPre.leaseRef)?.answer(answer);
}

function answerCut(run: RunRecord, undone?: Answer): Answer {
  const message = `${run.operation} pre: cut short by the sidecar's end, and undone; try again`;
  const trouble = undone?.message === undefined ? [] : [`while undoing: ${undone.message}`];
  return { exitCode: EXIT_SKIP, runId: run.id, message, notes: [...(undone?.notes ?? []), ...trouble] };
}

async function goOn(run: RunRecord, shared: Shared): Promise<void> {
  const ended = run.outcome === undefined ? endAs(run, 'abandoned', shared) : (run as EndedRun);
  await shared.runLock(run.id, () => finish(ended, shared, toNobody));
}

async function watchAgain(run: RunRecord, intakes: readonly Intake[], shared: Shared): Promise<void> {
  const lease = intakes.map((intake) => intake.lease(run.leaseRef)).find((one) => one !== undefined);
  if (run.lease === 'held' && lease === undefined) return abandon(run.id, 'its lease could not be found again', shared);
  guard(run, lease, shared, { isAgain: true });
}

function endAs(run: RunRecord, outcome: RunOutcome, { tools }: Shared): EndedRun {
  writeOrLog(tools, () => tools.journal.changeRun(run.id, { phase: 'post', outcome }));
  return { ...run, phase: 'post', outcome };
}

function reopen(intakes: readonly Intake[], ...[request, leaseRef]: Parameters<Intake['reopen']>) {
  return intakes.map((intake) => intake.reopen(request, leaseRef)).find((delivery) => delivery !== undefined);
}

/** Nothing that a dead sidecar started goes on beside what is done now. */
async function endLeftovers(run: RunRecord, shared: Shared): Promise<void> {
  const { host, driver, journal, clock, log } = shared.tools;
  const signal = AbortSignal.any([shared.ending.signal, clock.deadline(LEFTOVERS_MS)]);
  // Of steps that had not ended alone: a daemon that a finished hook has started still carries that one's mark. On a full
  // disk nobody wrote down that one of `post` was started.
  const isInHand = ({ status, call: { state } }: StepRecord): boolean =>
    status === 'started' || (status === 'planned' && state === 'post');
  const inHand = journal.steps(run.id).filter(isInHand);
  const tries = inHand.map(({ id, call: { place } }) => {
    const mark = markOf(run.id, id);
    return place.kind === 'host' ? host.endLeftovers(mark, signal) : driver.endLeftovers(place, mark, signal);
  });
  for (const result of await Promise.allSettled(tries)) {
    if (result.status === 'fulfilled') continue;
    if (!(signal.aborted || result.reason instanceof OperationalError)) throw result.reason;
    log.error('leftovers of a dead sidecar not ended', { run: run.id, why: String(result.reason) });
  }
}
