import { ERRORS } from '../core/errors.ts';
import type { Delivery } from '../core/ports.ts';
import type { RunRecord } from '../core/record.ts';
import type { Request } from '../core/request.ts';
import { type Answer, exitCodeOf } from '../core/result.ts';
import { distrustOf } from './distrust.ts';
import { writeOrLog } from './engine.ts';
import { answerEnded, finish } from './finish.ts';
import { guard, unguard } from './guard.ts';
import { describeResult, isFailure, runUntilFailure } from './hooks.ts';
import { remember } from './ledger.ts';
import type { Shared } from './shared.ts';
import { heedSiblings } from './siblings.ts';
import type { EndedRun } from './unwind.ts';

/** Answers a `post`: never refused; one whose run is over already is told so (65). */
export async function answerPost({ request, output }: Delivery, shared: Shared): Promise<Answer> {
  return withRun(request, shared, async (run) => {
    unguard(run.id, shared);
    if (run.phase === 'post' && run.outcome !== undefined) return finish(run as EndedRun, shared, output); // cut off before
    if (request.outcome === 'failure') await heedSiblings(shared); // its client was perhaps told to end, as we shall be
    shared.ending.signal.throwIfAborted();
    const ended: EndedRun = { ...run, phase: 'post', outcome: request.outcome, ...statusOf(request) };
    const { outcome, status } = ended;
    const change = {
      phase: 'post',
      outcome,
      endedBy: request.id,
      ...(status === undefined ? {} : { status }),
    } as const;
    writeOrLog(shared.tools, () => shared.tools.journal.changeRun(run.id, change));
    return finish(ended, shared, output);
  });
}

/** Answers `inspect`: the run's hooks for it, in order; the first failure is the answer. */
export async function answerInspect(delivery: Delivery, shared: Shared): Promise<Answer> {
  const { tools, stopping } = shared;
  const { request, output, sender } = delivery;
  return withRun(request, shared, async (run) => {
    if (run.phase !== 'open') return answerOver(run, request, shared);
    const watching = new AbortController();
    const gone = new AbortController();
    sender.lost(watching.signal).then(
      () => gone.abort(new Error('its client is gone')),
      () => undefined,
    );
    const signal = AbortSignal.any([gone.signal, stopping.signal]);
    const steps = tools.journal.steps(run.id).filter(({ call }) => call.state === 'inspect');
    const results = await runUntilFailure(steps, run, tools, { output, signal }).finally(() => watching.abort());
    if (run.lease !== 'held') guard(run, undefined, shared); // a word from its client
    const failing = results.find(isFailure);
    if (failing === undefined) return { exitCode: 0, runId: run.id, notes: [] };
    const message = `${run.operation} inspect: ${describeResult(failing)}`;
    return { exitCode: exitCodeOf(failing.outcome), runId: run.id, message, notes: [] };
  });
}

/**
 * Answers the report that the client's command is about to start: from here on a restore may have written (5.3). Refused
 * where that could not be trusted any more: what it held may run.
 */
export async function answerStarted({ request }: Delivery, shared: Shared): Promise<Answer> {
  return withRun(request, shared, async (run) => {
    if (run.phase !== 'open') return answerOver(run, request, shared);
    const [why] = distrustOf(run, shared.tools);
    if (why !== undefined) return answerLost(run, request, why);
    shared.tools.journal.changeRun(run.id, { commandStarted: true });
    await remember(run.id, shared.tools); // 5.3 must hold for whoever finishes it
    return { exitCode: 0, runId: run.id, notes: [] };
  });
}

/** Finds the run that a request is about, waits for what is being done with it, and hands it over as it is then. */
async function withRun(request: Request, shared: Shared, work: (run: RunRecord) => Promise<Answer>): Promise<Answer> {
  const { journal } = shared.tools;
  const found = findRun(request, journal.runs('live'), journal.run(request.runId ?? ''));
  if (found === undefined) {
    const over = journal.runs('all').find(({ endedBy }) => endedBy === request.id); // its answer alone is missing
    return over === undefined ? answerNone(request) : answerEnded(over, shared);
  }
  return shared.runLock(found.id, async () => {
    const run = journal.run(found.id) ?? found;
    if (run.operation !== request.operation) return answerNone(request);
    if (run.phase === 'open' || run.phase === 'post') return work(run);
    return run.endedBy === request.id ? answerEnded(run, shared) : answerOver(run, request, shared);
  });
}

/** By its id where the request names one, which no other client's can be; else the job's open run. */
function findRun(request: Request, live: readonly RunRecord[], named: RunRecord | undefined): RunRecord | undefined {
  if (request.runId !== undefined) return named?.client === request.client ? named : undefined;
  return live.find(({ client, job, phase }) => client === request.client && job === request.job && phase !== 'kept');
}

function answerNone({ operation, state, job, runId }: Request): Answer {
  const which = runId === undefined ? `job ${job} has no run open` : `run ${runId} is not known here`;
  const message = `${operation} ${state}: ${which}: without a pre that succeeded, nothing was held and no hook ran`;
  return { exitCode: ERRORS['not-trusted'].exit, message, notes: [] };
}

function answerOver(run: RunRecord, { operation, state }: Request, { tools }: Shared): Answer {
  const distrust = distrustOf(run, tools);
  const why = distrust.length > 0 ? distrust.join('; ') : `it ended as ${run.outcome}`;
  const message = `${operation} ${state}: run ${run.id} is over: ${why}`;
  return { exitCode: ERRORS['not-trusted'].exit, runId: run.id, message, notes: [] };
}

function answerLost({ id }: RunRecord, { operation, state }: Request, why: string): Answer {
  const message = `${operation} ${state}: do not begin: ${why}`;
  return { exitCode: ERRORS['not-trusted'].exit, runId: id, message, notes: [] };
}

function statusOf({ status }: Request): { readonly status?: number } {
  return status === undefined ? {} : { status };
}
