/** Runs a hook in a container. */
import { setTimeout as sleep } from 'node:timers/promises';
import { exitCodeOfError, OperationalError } from '../core/errors.ts';
import type { Log, Output, ProgramCall, Sink } from '../core/ports.ts';
import { type Outcome, outcomeOfAbort, outcomeUnbegun } from '../core/result.ts';
import type { WorkloadRef } from '../core/workload.ts';
import type { Api } from './docker-api.ts';
import { endMarked } from './docker-end.ts';
import { findContainer } from './docker-find.ts';
import { type Errand, outcomeOfEnd } from './docker-outcome.ts';
import { awaitExec, type ExecState, inspectExec, OFTEN, SELDOM, type Started, startExec } from './docker-run.ts';
import { readFrames } from './docker-stream.ts';
import type { Inspected } from './docker-workload.ts';
import { type Command, commandOf, outcomeOfRefusal } from './program.ts';

/** What hooks are run with. */
export type Executor = { readonly api: Api; readonly log: Log | undefined };

/** `Driver.exec`. Never rejects, but for a bug. */
export async function exec(
  { api, log }: Executor,
  programCall: ProgramCall,
  sink: Sink,
  signal: AbortSignal,
): Promise<Outcome> {
  if (signal.aborted) return outcomeOfAbort(signal);
  const { place } = programCall.call;
  if (place.kind !== 'workload') throw new Error(`exec hook ${programCall.call.name}: its place is the host`);
  try {
    const command = commandOf(programCall.call);
    const container = await findContainer(api, place, signal);
    const why = whyNothingRunsIn(container, place);
    if (container === undefined || why !== undefined) return { status: 'broken', exitCode: 126, why: why ?? '' };
    const errand = { api, log, programCall, container, place };
    const outcome = await runOnce(errand, command, sink, signal);
    const isShellMissing = outcome.status === 'broken' && outcome.exitCode === 127;
    if (!isShellMissing || command.otherwise === undefined || signal.aborted) return outcome;
    return await runOnce(errand, command.otherwise, sink, signal);
  } catch (error) {
    if (signal.aborted && error === signal.reason) return outcomeUnbegun(signal);
    if (signal.aborted) return outcomeOfAbort(signal);
    if (!(error instanceof OperationalError)) throw error;
    return { status: 'broken', exitCode: exitCodeOfError(error), why: error.message };
  }
}

function whyNothingRunsIn(container: Inspected | undefined, { name }: WorkloadRef): string | undefined {
  if (container === undefined) return `container ${name} no longer exists`;
  const { Paused, Running, Status } = container.State;
  if (Paused === true) return `container ${name} is paused: nothing can run in it`;
  if (Running !== true) return `container ${name} is not running: it is ${Status}`;
  return undefined;
}

/** What came so far. */
type Pace = {
  bytes: number;
  /** Whether we wait for the sink, rather than for the hook. */
  isBlocked: boolean;
  /** What the engine's runtime printed, in place of a hook that it could not start. */
  refusal: string;
  /** When the connection ended (monotonic), and how, if not well. */
  endedAt?: number;
  breakage?: unknown;
};

const MOST_REFUSAL = 4096;

async function runOnce(errand: Errand & Executor, command: Command, sink: Sink, signal: AbortSignal): Promise<Outcome> {
  const { api, programCall, container, place } = errand;
  const { call, env, mark } = programCall;
  const { user, workdir } = call.settings;
  const doing = `run hook ${call.name} in container ${place.name}`;
  const task = {
    doing,
    container: container.Id,
    argv: command.argv,
    env: { ...env, SIDEHOOK_STEP: mark },
    user,
    workdir,
  };
  const life = new AbortController();
  try {
    const started = await startExec(api, task, signal, life.signal).catch((error: unknown) => {
      if (error instanceof OperationalError && error.code === 'workload-failed') return error;
      throw error;
    });
    if (started instanceof OperationalError) return outcomeOfRefusal(started.message, command, place);
    return await follow(errand, command, started, sink, signal, life.signal);
  } catch (error) {
    if (!(error instanceof OperationalError) || error.code !== 'engine-unavailable' || signal.aborted) throw error;
    // It may have been started, and nobody would wait for it.
    const left = await endMarked(api, container.Id, { mark, match: 'exact' });
    const rest = left === undefined ? '' : ': it may run on';
    return { status: 'broken', exitCode: exitCodeOfError(error), why: `${error.message}${rest}` };
  } finally {
    life.abort();
  }
}

/** `life` ends the connection, once nobody reads from it any more. */
async function follow(
  errand: Errand & Executor,
  command: Command,
  { id, stream }: Started,
  sink: Sink,
  signal: AbortSignal,
  life: AbortSignal,
): Promise<Outcome> {
  const { api, log, programCall, container, place } = errand;
  const fields = { hook: programCall.call.name, container: place.name };
  const pace: Pace = { bytes: 0, isBlocked: false, refusal: '' };
  let standing: Promise<ExecState | undefined> | undefined;
  const take = async (output: Output): Promise<void> => {
    standing ??= untilStarted(api, id, life);
    const state = await standing;
    if (life.aborted) return; // nobody listens any more
    if (pace.refusal !== '' || (pace.bytes === 0 && isComplaint(state, output))) {
      pace.refusal = (pace.refusal + Buffer.from(output.bytes).toString()).slice(0, MOST_REFUSAL);
      return;
    }
    pace.isBlocked = true;
    await sink(output);
    pace.isBlocked = false;
    pace.bytes += output.bytes.length;
  };
  const reading = readFrames(stream, take).then(
    () => noteEnd(pace),
    (error: unknown) => noteEnd(pace, error),
  );

  const end = await Promise.race([
    untilAborted(signal, life),
    awaitExec(api, id, SELDOM, life), // a child in the background may keep the stream open for ever
    reading.then(() => awaitExec(api, id, OFTEN, life)),
  ]);
  if (end === 'aborted') {
    await untilStarted(api, id, life); // what is only about to start would not be found, and would run on
    const why = await endMarked(api, container.Id, { mark: programCall.mark, match: 'exact' });
    if (why !== undefined) log?.error('a hook could not be ended and may run on', { ...fields, why });
    await Promise.race([reading, lull(pace, AbortSignal.timeout(LAST_WORDS_MS))]);
    const outcome = outcomeOfAbort(signal);
    if (why === undefined) return outcome;
    const runsOn = `it could not be ended and may run on: ${why}`;
    if (outcome.status === 'canceled') return { ...outcome, reason: `${outcome.reason}; ${runsOn}` };
    return outcome.status === 'timed-out' ? { ...outcome, why: runsOn } : outcome;
  }
  const isCutShort = pace.breakage !== undefined || performance.now() - (pace.endedAt ?? Infinity) > CLOSED_EARLY_MS;
  if (isCutShort)
    log?.warn('the output of a hook broke off before its end', { ...fields, error: String(pace.breakage) });
  await Promise.race([reading, lull(pace, signal)]);
  if (end.status === 'refused' || pace.refusal !== '') return outcomeOfRefusal(pace.refusal, command, place);
  return outcomeOfEnd(errand, command, end);
}

function noteEnd(pace: Pace, breakage?: unknown): void {
  pace.endedAt = performance.now();
  pace.breakage = breakage;
}

const LAST_WORDS_MS = 2_000;
const CLOSED_EARLY_MS = 2_000;
const STARTING_MS = 10_000;

/** Waits until it was started, or could not be; undefined: nobody can tell. */
async function untilStarted(api: Api, id: string, signal: AbortSignal): Promise<ExecState | undefined> {
  const giveUpAt = performance.now() + STARTING_MS;
  for (;;) {
    const state = await inspectExec(api, id, signal).catch(() => undefined);
    if (state?.status !== 'starting' || performance.now() > giveUpAt) return state;
    await sleep(10, undefined, { signal }).catch(() => undefined);
  }
}

/** The runtime's complaint comes down the same way, in place of a hook that it cannot start. */
function isComplaint(state: ExecState | undefined, { bytes }: Output): boolean {
  if (state?.status === 'refused') return true;
  const isPodmans = state?.status === 'ended' && state.pid === 0 && [125, 126, 127].includes(state.exitCode);
  return isPodmans && PODMANS_COMPLAINT.test(Buffer.from(bytes).toString());
}

const PODMANS_COMPLAINT = /^Error: .*(?:exec failed|OCI|conmon)/;

function untilAborted(signal: AbortSignal, life: AbortSignal): Promise<'aborted'> {
  const { promise, resolve } = Promise.withResolvers<'aborted'>();
  if (signal.aborted) resolve('aborted');
  signal.addEventListener('abort', () => resolve('aborted'), { once: true, signal: life });
  return promise;
}

const LULL_MS = 300;
const MOST_LEFT_BYTES = 16 * 1024 * 1024;

/** Until nothing more comes of what an ended hook left in the pipes: a child of it may keep them open, and talk on. */
async function lull(pace: Pace, signal: AbortSignal): Promise<void> {
  const limit = pace.bytes + MOST_LEFT_BYTES;
  for (let seen = -1, quietMs = 0; quietMs < LULL_MS && pace.bytes < limit && !signal.aborted; ) {
    quietMs = pace.bytes === seen && !pace.isBlocked ? quietMs + LULL_MS / 6 : 0;
    seen = pace.bytes;
    await sleep(LULL_MS / 6);
  }
}
