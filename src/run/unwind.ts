import { OperationalError } from '../core/errors.ts';
import type { Note, Sink } from '../core/ports.ts';
import type { HoldRecord, RunRecord, StepRecord } from '../core/record.ts';
import type { Outcome, RunOutcome } from '../core/result.ts';
import { makeUnwinding } from '../core/unwinding.ts';
import type { WorkloadRef } from '../core/workload.ts';
import { whileEngineAway, writeOrLog } from './engine.ts';
import { markOf, runCall, type StepResult } from './hooks.ts';
import { rememberIfCan } from './ledger.ts';
import { type ReleaseEdges, releaseAll } from './release.ts';
import type { ReleaseResult } from './rise.ts';
import { confirmStill } from './stillness.ts';
import type { Tools } from './tools.ts';

/** What came of unwinding a run. */
export type Unwound = {
  /** In the order in which they ran, those of an earlier, interrupted attempt first. */
  readonly hooks: readonly StepResult[];
  readonly releases: readonly ReleaseResult[];
  /** 5.3: it stays held. */
  readonly kept: readonly HoldRecord[];
  readonly notes: readonly Note[];
};

export type UnwindEdges = ReleaseEdges & { readonly output: Sink };

/** A run whose outcome is in the journal: nothing but the journal is needed to end it. */
export type EndedRun = RunRecord & { readonly outcome: RunOutcome };

/**
 * The one way a run ends: `post`, a failed `pre`, a lost lease, shutdown and crash recovery alike. Never stops early:
 * every hook gets its turn, every hold its release. Rejects only with the signal's reason; then the next start goes on.
 */
export async function unwind(run: EndedRun, tools: Tools, edges: UnwindEdges): Promise<Unwound> {
  const { journal, clock, settings } = tools;
  const plan = makeUnwinding(run, journal.steps(run.id), settings.failedRestore);
  const earlier = journal.steps(run.id).filter(({ call, status }) => call.state === 'post' && status === 'ended');
  await rememberIfCan(run.id, tools);
  const hooks: StepResult[] = earlier.flatMap((step) => (step.outcome ? [{ step, outcome: step.outcome }] : []));

  // Only a crash leaves one started: nothing of it goes on beside what is done now, also when the engine was away since.
  for (const step of journal.steps(run.id).filter(({ status }) => status === 'started'))
    await endLeftovers(step, run, tools, edges);
  for (const step of plan.held) hooks.push(await runOwed(step, run, tools, edges));
  if (run.outcome === 'success') await confirmStill(run, tools, edges);
  const { holds, superseded } = plan.keep ? { holds: [], superseded: [] } : holdsToRelease(run, tools);
  const releases = await releaseAll(holds, run.id, tools, edges);
  for (const id of superseded) await rememberIfCan(id, tools);
  for (const step of plan.running) hooks.push(await runOwed(step, run, tools, edges));

  const kept = plan.keep ? pendingOf(run.id, tools) : [];
  if (kept.length > 0)
    tools.log.error('a restore failed: what it held stays held, until sidehook release', {
      run: run.id,
      held: kept.map(({ name }) => name),
    });
  // Written late, it comes after what `sidehook release` let go of meanwhile.
  const closedAt = clock.now();
  const isKept = (): boolean => plan.keep && pendingOf(run.id, tools).length > 0;
  writeOrLog(tools, () => journal.changeRun(run.id, { phase: isKept() ? 'kept' : 'closed', closedAt }));
  await rememberIfCan(run.id, tools);
  return { hooks, releases, kept, notes: plan.notes };
}

/** Its own; and after a restore that succeeded, what failed ones of the same job kept. */
function holdsToRelease(run: EndedRun, tools: Tools): { holds: HoldRecord[]; superseded: string[] } {
  const holds = new Map(pendingOf(run.id, tools).map((hold) => [hold.key, hold]));
  const superseded: string[] = [];
  if (run.operation !== 'restore' || run.outcome !== 'success') return { holds: [...holds.values()], superseded };
  for (const kept of tools.journal.runs('live').filter(({ phase, job }) => phase === 'kept' && job === run.job)) {
    for (const hold of pendingOf(kept.id, tools)) holds.set(hold.key, hold);
    writeOrLog(tools, () => tools.journal.changeRun(kept.id, { phase: 'closed' })); // the ledger is told afterwards
    superseded.push(kept.id);
  }
  return { holds: [...holds.values()], superseded };
}

/** What a run still holds. */
export function pendingOf(runId: string, { journal }: Tools): readonly HoldRecord[] {
  return journal.holdsOf(runId).filter(({ status }) => status !== 'released');
}

async function runOwed(step: StepRecord, run: EndedRun, tools: Tools, edges: UnwindEdges): Promise<StepResult> {
  writeOrLog(tools, () => tools.journal.stepStarted(run.id, step.id));
  let outcome = await runInPlace(step, run, tools, edges);
  for (let tries = 0; isAway(outcome); tries += 1) {
    edges.onAway(outcome.why);
    await tools.clock.sleep(Math.min(250 * 2 ** tries, 15_000), edges.signal);
    outcome = await runInPlace(step, run, tools, edges);
  }
  edges.signal.throwIfAborted(); // cut short, not ended: the next start repeats it
  writeOrLog(tools, () => tools.journal.stepEnded(run.id, step.id, outcome));
  if (step.call.place.kind !== 'host') await rememberIfCan(run.id, tools);
  return { step, outcome };
}

async function endLeftovers({ id, call: { place } }: StepRecord, run: EndedRun, tools: Tools, edges: UnwindEdges) {
  if (place.kind === 'host') return; // seen to before anything else (recover.ts)
  try {
    await whileEngineAway(() => tools.driver.endLeftovers(place, markOf(run.id, id), edges.signal), tools, edges);
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error;
    tools.log.error('leftovers of a dead sidecar not ended', { run: run.id, why: error.message });
  }
}

async function runInPlace(step: StepRecord, run: EndedRun, tools: Tools, edges: UnwindEdges): Promise<Outcome> {
  const { place } = step.call;
  if (place.kind === 'host') {
    const outcome = await runCall(step, run, tools, edges);
    if (outcome.status !== 'broken' || ![126, 127].includes(outcome.exitCode)) return outcome;
    const before = tools.journal.steps(run.id).find(({ owner, call }) => owner === step.owner && call.state === 'pre');
    if (before?.outcome === undefined || before.outcome.status === 'broken') return outcome; // it never could be run
    return { status: 'broken', exitCode: 78, why: `${outcome.why}; it has changed since it was planned` };
  }
  let now: WorkloadRef | undefined;
  try {
    now = await whileEngineAway(() => tools.driver.inspect({ ...place }, edges.signal), tools, edges);
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error;
    now = place; // it is tried where it was: every hook gets its turn
  }
  if (now === undefined) return { status: 'broken', exitCode: 126, why: `container ${place.name} no longer exists` };
  const here = { ...place, instance: now.instance, name: now.name };
  return runCall({ ...step, call: { ...step.call, place: here } }, run, tools, edges);
}

function isAway(outcome: Outcome): outcome is Outcome & { status: 'broken' } {
  return outcome.status === 'broken' && outcome.exitCode === 69;
}
