import { exitCodeOfError, OperationalError } from '../core/errors.ts';
import { makePlan, type Plan } from '../core/plan.ts';
import type { Delivery, Note } from '../core/ports.ts';
import type { RunRecord } from '../core/record.ts';
import type { Request } from '../core/request.ts';
import { type Answer, EXIT_SKIP, exitCodeOf, type RunOutcome } from '../core/result.ts';
import { adoptKept } from './adopt.ts';
import { distrustOf } from './distrust.ts';
import { writeOrLog } from './engine.ts';
import { finish } from './finish.ts';
import { guard } from './guard.ts';
import { holdAll } from './hold.ts';
import { describeResult, isFailure, runUntilFailure, type StepResult } from './hooks.ts';
import type { Shared } from './shared.ts';
import { survey } from './survey.ts';
import type { Tools } from './tools.ts';

/**
 * Answers a `pre`: everything is looked up, decided and claimed; then hooks, holds, hooks. The first failure undoes all
 * that was started, before the answer is given (P5). A sender that dies meanwhile counts as a failure, too.
 * Rejects only when the sidecar is told to end while this one still waits for its turn: then nothing was done.
 */
export async function answerPre(delivery: Delivery, shared: Shared): Promise<Answer> {
  const gone = new AbortController();
  const watching = new AbortController();
  delivery.sender.lost(watching.signal).then(
    () => gone.abort(new Error('its client is gone')),
    () => undefined,
  );
  const signal = AbortSignal.any([gone.signal, shared.stopping.signal]);
  try {
    const { run, plan } = await openWhenFree(delivery, shared, signal);
    const cut = new AbortController();
    shared.cuts.set(run.id, (why) => cut.abort(why));
    const carried = shared.runLock(run.id, () =>
      carryOut(run, plan, delivery, shared, AbortSignal.any([signal, cut.signal])),
    );
    return await carried.finally(() => shared.cuts.delete(run.id));
  } catch (error) {
    if (error !== gone.signal.reason || !gone.signal.aborted) throw error;
    return {
      exitCode: EXIT_SKIP,
      message: `${delivery.request.operation} pre: not begun: its client is gone`,
      notes: [],
    };
  } finally {
    watching.abort();
  }
}

/** How long is waited for the news that a sender is gone, which may just be on its way. */
const SENDER_MS = 100;

/** Waits for its turn, looking everything up anew each time. */
async function openWhenFree(
  { request, sender }: Delivery,
  shared: Shared,
  signal: AbortSignal,
): Promise<{ run: RunRecord; plan: Plan }> {
  const { tools, turn } = shared;
  const until = tools.clock.monotonicMs() + request.waitMs;
  for (;;) {
    const woken = new AbortController();
    const freed = turn.next(AbortSignal.any([woken.signal, signal]));
    freed.catch(() => undefined);
    try {
      const situation = await survey(tools, signal);
      const plan = makePlan(request, situation);
      // It may have given up while the sidecar was down, or we waited; where the kernel cannot tell, that takes a moment.
      if (!(await sender.isHeld())) await tools.clock.sleep(SENDER_MS, signal);
      signal.throwIfAborted();
      const run = makeRun(request, sender.ref, situation.view.clients, plan, shared);
      const inherited = (await tools.driver.ledger?.open(run, plan, signal)) ?? [];
      try {
        await adoptKept(inherited, shared);
        tools.journal.openRun(run, plan.steps, plan.claims);
      } catch (error) {
        await tools.driver.ledger?.close(run.id, shared.ending.signal);
        throw error;
      }
      return { run, plan };
    } catch (error) {
      const leftMs = until - tools.clock.monotonicMs();
      if (!(error instanceof OperationalError && error.code === 'busy') || leftMs <= 0) throw error;
      tools.log.info('waits for its turn', { request: request.id, job: request.job, why: error.message });
      const tick = tools.clock.sleep(Math.min(leftMs, 5000), AbortSignal.any([woken.signal, signal]));
      await Promise.race([freed, tick.catch(() => undefined)]).catch(() => undefined);
      signal.throwIfAborted();
    } finally {
      woken.abort();
    }
  }
}

function makeRun(
  request: Request,
  leaseRef: string,
  clients: RunRecord['clients'] = [],
  { left }: Plan,
  { tools }: Shared,
): RunRecord {
  const { id: requestId, job, client, operation, params, lease } = request;
  return {
    id: tools.makeRunId(),
    ...{ job, client, operation, params, lease, leaseRef, requestId, clients, left },
    phase: 'pre',
    openedAt: tools.clock.now(),
    commandStarted: false,
    distrust: [],
  };
}

type Failure = { readonly exitCode: number; readonly why: string; readonly outcome: RunOutcome };

async function carryOut(
  run: RunRecord,
  plan: Plan,
  delivery: Delivery,
  shared: Shared,
  signal: AbortSignal,
): Promise<Answer> {
  const { tools } = shared;
  const notes: Note[] = [...plan.notes];
  const log = tools.log.child({ run: run.id });
  log.info('run opened', {
    operation: run.operation,
    job: run.job,
    hooks: plan.steps.length,
    holds: plan.holds.length,
  });
  for (const note of plan.notes) log.warn('note', { note });

  const failure = await tryPre(run, plan, notes, delivery, shared, signal);
  if (failure === undefined) {
    const answer: Answer = { exitCode: 0, runId: run.id, notes };
    // A bare signal cannot report that its command starts: from here on it may have.
    const commandStarted = run.lease !== 'held';
    try {
      // From its answer on the client may write: whoever has to finish this run must know.
      const open = { ...run, phase: 'open', commandStarted } as const;
      await tools.driver.ledger?.record(open, tools.journal.steps(run.id), shared.ending.signal);
      tools.journal.atomically(() => {
        tools.journal.changeRun(run.id, { phase: 'open', commandStarted });
        tools.journal.answered(delivery.request, delivery.sender.ref, answer);
      });
      guard({ ...run, phase: 'open', commandStarted }, delivery.sender, shared);
      return answer;
    } catch (error) {
      return undo(run, failureOfError(error, signal), notes, delivery, shared);
    }
  }
  return undo(run, failure, notes, delivery, shared);
}

/** The three parts of `pre`. What fails is told; nothing is undone here. */
async function tryPre(
  run: RunRecord,
  plan: Plan,
  notes: Note[],
  delivery: Delivery,
  shared: Shared,
  signal: AbortSignal,
): Promise<Failure | undefined> {
  const { tools, workloadLock } = shared;
  const edges = { output: delivery.output, signal };
  const stepsWhile = (when: 'running' | 'held') =>
    plan.steps.filter(({ call }) => call.state === 'pre' && call.settings.while === when);
  try {
    for (const when of ['running', 'held'] as const) {
      if (when === 'held') notes.push(...(await holdAll(plan.holds, run, tools, workloadLock, signal)));
      throwIfLost(run, tools);
      const results = await runUntilFailure(stepsWhile(when), run, tools, edges);
      const failing = results.find(isFailure);
      if (failing !== undefined) return failureOfStep(failing, signal);
      notes.push(...results.filter(({ outcome }) => outcome.status !== 'succeeded').map(describeForgiven));
    }
    signal.throwIfAborted();
    throwIfLost(run, tools);
    return undefined;
  } catch (error) {
    return failureOfError(error, signal);
  }
}

/** What was held may have been started again while others were still being stopped. */
function throwIfLost(run: RunRecord, tools: Tools): void {
  const [why] = distrustOf(run, tools);
  if (why !== undefined) throw new OperationalError('workload-failed', why);
}

function describeForgiven(result: StepResult): Note {
  return `${describeResult(result)}: on-error=continue, going on`;
}

function failureOfStep(result: StepResult, signal: AbortSignal): Failure {
  if (signal.aborted) return failureOfError(signal.reason, signal);
  const exitCode = exitCodeOf(result.outcome);
  const asksToSkip = result.outcome.status === 'failed' && exitCode === EXIT_SKIP;
  return { exitCode, why: describeResult(result), outcome: asksToSkip ? 'skipped' : 'aborted' };
}

function failureOfError(error: unknown, signal: AbortSignal): Failure {
  if (signal.aborted) {
    const why = signal.reason instanceof Error ? signal.reason.message : String(signal.reason);
    return { exitCode: EXIT_SKIP, why: `cut short: ${why}`, outcome: 'aborted' };
  }
  if (!(error instanceof OperationalError)) throw error;
  return { exitCode: exitCodeOfError(error), why: error.message, outcome: 'aborted' };
}

/** Puts everything back before the answer is given. */
async function undo(
  run: RunRecord,
  failure: Failure,
  notes: Note[],
  delivery: Delivery,
  shared: Shared,
): Promise<Answer> {
  const { journal, log } = shared.tools;
  log.warn(`pre failed: ${failure.outcome}`, { run: run.id, why: failure.why });
  writeOrLog(shared.tools, () => journal.changeRun(run.id, { phase: 'post', outcome: failure.outcome }));
  const ended = { ...run, phase: 'post', outcome: failure.outcome } as const;
  const undone = await finish(ended, shared, delivery.output);
  const trouble = undone.message === undefined ? [] : [`while undoing: ${undone.message}`];
  return {
    exitCode: failure.exitCode,
    runId: run.id,
    message: `${run.operation} pre: ${failure.why}`,
    notes: [...notes, ...undone.notes, ...trouble],
  };
}
