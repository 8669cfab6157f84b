import { exitCodeOfError, OperationalError } from '../core/errors.ts';
import type { HookCall } from '../core/hook.ts';
import type { Step } from '../core/plan.ts';
import type { Log, Output, Sink } from '../core/ports.ts';
import type { RunRecord } from '../core/record.ts';
import { describeOutcome, EXIT_SKIP, exitCodeOf, type Outcome, outcomeOfAbort } from '../core/result.ts';
import { remember } from './ledger.ts';
import type { Tools } from './tools.ts';

/** How one step ended. */
export type StepResult = { readonly step: Step; readonly outcome: Outcome };

/** Where the hooks' output goes, beside the log, and what ends them early. */
export type HookEdges = { readonly output: Sink; readonly signal: AbortSignal };

/**
 * Runs the steps of `pre` or `inspect`, one after the other, each journalled before and after. Ends at the first that
 * did not succeed, unless its hook may fail; that one is the last of the results.
 */
export async function runUntilFailure(
  steps: readonly Step[],
  run: RunRecord,
  tools: Tools,
  edges: HookEdges,
): Promise<readonly StepResult[]> {
  const results: StepResult[] = [];
  for (const step of steps) {
    tools.journal.stepStarted(run.id, step.id);
    const outcome = (await whyNotRemembered(step, run, tools)) ?? (await runCall(step, run, tools, edges));
    tools.journal.stepEnded(run.id, step.id, outcome);
    results.push({ step, outcome });
    if (isFailure({ step, outcome })) break;
  }
  return results;
}

/** Before a hook may change anything, whoever may have to undo it must know; the journal does, where it is not lost. */
async function whyNotRemembered({ call }: Step, run: RunRecord, tools: Tools): Promise<Outcome | undefined> {
  if (call.place.kind === 'host' || call.state !== 'pre') return undefined;
  try {
    await remember(run.id, tools);
    return undefined;
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error;
    return { status: 'broken', exitCode: exitCodeOfError(error), why: error.message };
  }
}

/** Whether a result ends `pre`. A hook that may fail cannot; but nobody goes on with what was cut short. */
export function isFailure({ step, outcome }: StepResult): boolean {
  if (outcome.status === 'succeeded') return false;
  return outcome.status === 'canceled' || step.call.settings.onError === 'abort';
}

/** `hook 20-dump (service:db) exited 3`. */
export function describeResult({ step, outcome }: StepResult): string {
  return `hook ${step.call.name} (${targetOf(step.call)}) ${describeOutcome(outcome)}`;
}

/** One hook in its place, with its retries. Never rejects, but for a bug. */
export async function runCall(step: Step, run: RunRecord, tools: Tools, edges: HookEdges): Promise<Outcome> {
  const { call } = step;
  const { timeoutMs, retries, retryDelayMs } = call.settings;
  const log = tools.log.child({ run: run.id, hook: call.name, target: targetOf(call) });
  const began = tools.clock.monotonicMs();
  let outcome = await runOnce(step, run, tools, edges);
  for (let tried = 0; tried < retries && isWorthRetrying(outcome); tried += 1) {
    log.warn('hook failed, trying again', { outcome: describeOutcome(outcome), left: retries - tried });
    await tools.clock.sleep(retryDelayMs, edges.signal).catch(() => undefined);
    if (edges.signal.aborted) break;
    outcome = await runOnce(step, run, tools, edges);
  }
  const ms = Math.round(tools.clock.monotonicMs() - began);
  const level = outcome.status === 'succeeded' ? 'info' : 'warn';
  log[level](`hook ${describeOutcome(outcome)}`, {
    state: call.state,
    ms,
    ...(outcome.status === 'timed-out' ? { timeoutMs } : {}),
  });
  return outcome;
}

async function runOnce(step: Step, run: RunRecord, tools: Tools, edges: HookEdges): Promise<Outcome> {
  const { call } = step;
  const { host, driver, clock } = tools;
  if (edges.signal.aborted) return outcomeOfAbort(edges.signal);
  // Not Clock.deadline: its timer would stay for an hour after each hook that has long ended.
  const tooLate = new AbortController();
  const ended = new AbortController();
  const onTime = (): void => tooLate.abort(new DOMException('out of time', 'TimeoutError'));
  clock.sleep(call.settings.timeoutMs, ended.signal).then(onTime, () => undefined);
  const signal = AbortSignal.any([edges.signal, tooLate.signal]);
  const lines = makeLineLog(call.name, tools.log.child({ run: run.id, target: targetOf(call) }));
  const sink: Sink = async (output) => {
    lines.take(output);
    await edges.output(output);
  };
  const programCall = { call, env: environmentOf(call, run), mark: markOf(run.id, step.id) };
  try {
    if (call.place.kind === 'host') return await host.run(programCall, sink, signal);
    return await driver.exec(programCall, sink, signal);
  } finally {
    ended.abort();
    lines.end();
  }
}

/** Finds every process of a step again. */
export function markOf(runId: string, stepId: string): string {
  return `${runId}/${stepId}`;
}

/** A hook that asks to skip has been understood; what never ran for want of an engine is retried elsewhere. */
function isWorthRetrying(outcome: Outcome): boolean {
  if (outcome.status === 'succeeded' || outcome.status === 'canceled') return false;
  return !(outcome.status === 'failed' && exitCodeOf(outcome) === EXIT_SKIP);
}

function environmentOf(call: HookCall, run: RunRecord): Record<string, string> {
  const params = Object.entries(run.params).map(([name, value]) => [`SIDEHOOK_PARAM_${name}`, value]);
  return {
    SIDEHOOK_OPERATION: call.operation,
    SIDEHOOK_STATE: call.state,
    SIDEHOOK_JOB: run.job,
    SIDEHOOK_RUN_ID: run.id,
    SIDEHOOK_HOOK: call.name,
    SIDEHOOK_TARGET: call.place.kind === 'host' ? 'host' : call.place.name,
    ...(call.state === 'post' && run.outcome !== undefined ? { SIDEHOOK_OUTCOME: run.outcome } : {}),
    ...(call.state === 'post' && run.status !== undefined ? { SIDEHOOK_STATUS: String(run.status) } : {}),
    ...Object.fromEntries(params),
  };
}

function targetOf({ place }: HookCall): string {
  return place.kind === 'host' ? 'host' : place.target;
}

const LONGEST_LINE = 8192;

/** Cuts the output into lines for the log; a line without end is logged in pieces. */
function makeLineLog(hook: string, log: Log) {
  const rests = { out: '', err: '' };
  const decoders = { out: new TextDecoder(), err: new TextDecoder() };
  const write = (stream: Output['stream'], line: string): void => log.hookOutput(hook, stream, line, {});
  return {
    take({ stream, bytes }: Output): void {
      const lines = (rests[stream] + decoders[stream].decode(bytes, { stream: true })).split('\n');
      rests[stream] = lines.pop() ?? '';
      for (const line of lines) write(stream, line);
      if (rests[stream].length < LONGEST_LINE) return;
      write(stream, rests[stream]);
      rests[stream] = '';
    },
    end(): void {
      for (const stream of ['out', 'err'] as const) if (rests[stream] !== '') write(stream, rests[stream]);
    },
  };
}
