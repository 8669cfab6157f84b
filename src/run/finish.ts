import { ERRORS } from '../core/errors.ts';
import type { Note, Sink } from '../core/ports.ts';
import type { HoldRecord, RunRecord } from '../core/record.ts';
import { type Answer, exitCodeOf } from '../core/result.ts';
import { distrustOf } from './distrust.ts';
import { describeResult, isFailure } from './hooks.ts';
import { retryPending } from './pending.ts';
import { edgesOf, type Shared } from './shared.ts';
import type { Tools } from './tools.ts';
import { type EndedRun, pendingOf, type Unwound, unwind } from './unwind.ts';

/**
 * Unwinds a run and says what came of it; one that is being unwound is joined. Call it with the run's lock. The answer does not wait for an engine that stays
 * away longer than a health check may take: the unwinding does, and ends in the background.
 */
export async function finish(run: EndedRun, shared: Shared, output: Sink): Promise<Answer> {
  const { tools, ending, unwindings } = shared;
  const away = Promise.withResolvers<Answer>();
  let isAway = false;
  const onAway = (why: string): void => {
    if (isAway) return;
    isAway = true;
    const term = tools.clock.sleep(tools.settings.healthTimeoutMs, ending.signal);
    term.then(
      () => away.resolve(answerAway(run, why)),
      () => undefined,
    );
  };
  const unwound = unwindings.get(run.id) ?? begin(run, shared, output, onAway);
  return Promise.race([unwound, away.promise]);
}

function begin(run: EndedRun, shared: Shared, output: Sink, onAway: (why: string) => void): Promise<Answer> {
  const { tools, turn, unwindings } = shared;
  const unwound = unwind(run, tools, edgesOf(shared, output, onAway))
    .then((result) => {
      tools.log.info('run closed', { run: run.id, outcome: run.outcome });
      turn.beat();
      retryPending(shared);
      const written = tools.journal.run(run.id) ?? run;
      const answer = answerOf(written, result, tools, unsaid(run, written));
      return { ...answer, notes: [...answer.notes, ...heldTimes(tools.journal.holdsOf(run.id))] };
    })
    .finally(() => unwindings.delete(run.id));
  unwindings.set(run.id, unwound);
  // While it was unwound, nobody looked after what it keeps.
  shared.inBackground(unwound.then(() => shared.engine.beat()));
  return unwound;
}

/** A restore whose end is in memory alone would be taken for a failed one by the next start, and hold again (5.3). */
function unsaid(ended: EndedRun, written: RunRecord): readonly string[] {
  if (ended.operation !== 'restore' || ended.outcome !== 'success' || written.outcome === 'success') return [];
  const risk = 'a sidecar that starts anew before there is room holds again what this restore held';
  return [`the restore went well, and that could not be written to the journal: ${risk}; then: sidehook release`];
}

function answerAway({ id, operation }: RunRecord, why: string): Answer {
  const exitCode = ERRORS['engine-unavailable'].exit;
  const message = `${operation} post: ${why}; what is left to do is done when the engine is back`;
  return { exitCode, runId: id, message, notes: [] };
}

/** The answer of a `post` that a crash came in between: its run is over, and the journal has what came of it. */
export function answerEnded(run: RunRecord, { tools }: Shared): Answer {
  const ended = tools.journal.steps(run.id).filter(({ call, status }) => call.state === 'post' && status === 'ended');
  const hooks = ended.flatMap((step) => (step.outcome === undefined ? [] : [{ step, outcome: step.outcome }]));
  const left = pendingOf(run.id, tools);
  const isKept = run.phase === 'kept';
  const why = 'not released yet';
  const releases = left.map((hold) => ({ hold, status: 'pending', why: hold.trouble ?? why }) as const);
  const unwound = { hooks, releases: isKept ? [] : releases, kept: isKept ? left : [], notes: [] };
  const answer = answerOf(run, unwound, tools);
  return { ...answer, notes: [...answer.notes, ...heldTimes(tools.journal.holdsOf(run.id))] };
}

/** Of several: the first reason for distrust, then the first hook's code, then what could not be released. */
function answerOf(
  run: RunRecord,
  { hooks, releases, kept, notes }: Unwound,
  tools: Tools,
  unwritten: readonly string[] = [],
): Answer {
  const failing = hooks.filter(isFailure);
  const stuck = releases.filter(({ status }) => status === 'unwell' || status === 'pending');
  const problems: { readonly exitCode: number; readonly why: string }[] = [
    ...distrustOf(run, tools).map((why) => ({ exitCode: ERRORS['not-trusted'].exit, why })),
    ...unwritten.map((why) => ({ exitCode: ERRORS.internal.exit, why })),
    ...failing.map((result) => ({ exitCode: exitCodeOf(result.outcome), why: describeResult(result) })),
    ...stuck.map(({ hold, why }) => ({
      exitCode: ERRORS['workload-failed'].exit,
      why: `release of ${hold.name}: ${why}`,
    })),
  ];
  if (kept.length > 0) {
    const why = `the restore failed: ${kept.map(({ name }) => name).join(', ')} stay held until sidehook release`;
    problems.push({ exitCode: ERRORS['workload-failed'].exit, why });
  }
  const [first, ...others] = problems;
  const told: Note[] = [
    ...notes,
    ...hooks.filter((result) => !isFailure(result) && result.outcome.status !== 'succeeded').map(describeResult),
    ...releases.flatMap(describeRelease),
    ...others.map(({ why }) => why),
  ];
  if (first === undefined) return { exitCode: 0, runId: run.id, notes: told };
  return { exitCode: first.exitCode, runId: run.id, message: `${run.operation} post: ${first.why}`, notes: told };
}

/** What the backup cost those who use the workloads, by the clock on the wall: `held: db 12.3s, api 8.1s`. */
function heldTimes(holds: readonly HoldRecord[]): Note[] {
  const times = holds.flatMap(({ name, heldAt, releasedAt }) => {
    if (releasedAt === undefined) return [];
    return [`${name} ${((Date.parse(releasedAt) - Date.parse(heldAt)) / 1000).toFixed(1)}s`];
  });
  return times.length === 0 ? [] : [`held: ${times.join(', ')}`];
}

function describeRelease({ hold, status, why }: Unwound['releases'][number]): Note[] {
  if (status === 'unwell' || status === 'pending') return []; // a problem, told as one
  const note = `release of ${hold.name}: ${status}`;
  return status === 'running' && why === undefined ? [] : [why === undefined ? note : `${note}: ${why}`];
}
