/** Runs a hook in a pod. */
import { setTimeout as sleep } from 'node:timers/promises';
import { exitCodeOfError, OperationalError } from '../core/errors.ts';
import type { Log, ProgramCall, Sink } from '../core/ports.ts';
import { type Outcome, outcomeOfAbort, outcomeUnbegun } from '../core/result.ts';
import type { Quarry } from './end-marked.ts';
import type { Api } from './kubernetes-api.ts';
import { endMarked } from './kubernetes-end.ts';
import { openEndMark } from './kubernetes-end-mark.ts';
import type { Pod } from './kubernetes-objects.ts';
import { containerOf, findPod, isRunning, runningIn } from './kubernetes-pods.ts';
import { type ExecEnd, runInPod } from './kubernetes-socket.ts';
import { type Command, commandOf, NOT_FOUND, outcomeOfRefusal } from './program.ts';

/** What hooks are run with. */
export type Executor = { readonly api: Api; readonly log: Log | undefined };

/** A hook with the pod and the container that it runs in. */
type Errand = Executor & {
  readonly programCall: ProgramCall;
  readonly pod: Pod;
  readonly container: string;
  readonly name: string;
};

const MOST_SIGNAL = 31;
const QUESTION_MS = 10_000;
const LAST_WORDS_MS = 3_000;

/** `Driver.exec`. Never rejects, but for a bug. */
export async function exec(executor: Executor, call: ProgramCall, sink: Sink, signal: AbortSignal): Promise<Outcome> {
  if (signal.aborted) return outcomeOfAbort(signal);
  const { place, name: hook, settings } = call.call;
  if (place.kind !== 'workload') throw new Error(`exec hook ${hook}: its place is the host`);
  try {
    if (settings.user !== undefined) {
      throw new OperationalError(
        'configuration',
        `run hook ${hook}: user=${settings.user}: Kubernetes has no such thing`,
      );
    }
    const command = commandOf(call.call, 'input');
    const pod = await findPod(executor.api, place, signal);
    if (pod === undefined) return broken(126, `pod ${place.name} no longer exists`);
    const container = containerOf(pod, place.container);
    const name = place.name === pod.metadata.name ? place.name : `${place.name} (pod ${pod.metadata.name})`;
    if (container === undefined) return broken(126, `pod ${name} has no container ${place.container}`);
    if (!isRunning(pod)) return broken(126, `pod ${name} is not running: it is ${stateWord(pod)}`);
    const errand = { ...executor, programCall: call, pod, container, name };
    const { outcome, wasRefused } = await runOnce(errand, command, 'sh', sink, signal);
    // Whatever a program that was begun says of itself, it is not begun a second time.
    const isShellMissing = wasRefused && outcome.status === 'broken' && outcome.exitCode === NOT_FOUND;
    const otherwise = command.otherwise ?? (command.needs === 'sh' ? undefined : command);
    if (!isShellMissing || otherwise === undefined || signal.aborted) return outcome;
    return (await runOnce(errand, otherwise, 'none', sink, signal)).outcome;
  } catch (error) {
    if (signal.aborted && error === signal.reason) return outcomeUnbegun(signal);
    if (signal.aborted) return outcomeOfAbort(signal);
    if (!(error instanceof OperationalError)) throw error;
    return broken(exitCodeOfError(error), error.message);
  }
}

function broken(exitCode: number, why: string): Outcome {
  return { status: 'broken', exitCode, why };
}

function stateWord({ metadata, status }: Pod): string {
  return metadata.deletionTimestamp === undefined ? (status?.phase ?? 'unknown').toLowerCase() : 'being deleted';
}

/** The API has no word for an environment or a directory: programs that every container with a shell has say it. */
function withSurroundings({ argv }: Command, { call, env, mark }: ProgramCall): string[] {
  const { workdir } = call.settings;
  const variables = Object.entries({ ...env, SIDEHOOK_STEP: mark }).map(([name, value]) => `${name}=${value}`);
  const inside =
    workdir === undefined ? argv : ['sh', '-c', 'cd -- "$1" || exit 126; shift; exec "$@"', 'sh', workdir, ...argv];
  return ['env', ...variables, ...inside];
}

/** `wasRefused`: nothing of it was begun, by the runtime's own word. */
type Tried = { readonly outcome: Outcome; readonly wasRefused: boolean };

/** `teller`: `sh` runs the program, and tells its end; `none`: for a container that has no shell. */
async function runOnce(
  errand: Errand,
  command: Command,
  teller: 'sh' | 'none',
  sink: Sink,
  signal: AbortSignal,
): Promise<Tried> {
  const { api, log, programCall, pod, container, name } = errand;
  const begun = (outcome: Outcome): Tried => ({ outcome, wasRefused: false });
  const quarry = { mark: programCall.mark, match: 'exact' } as const;
  const task = {
    doing: `run hook ${programCall.call.name} in pod ${name}`,
    ...{ pod: pod.metadata.name, container, input: command.input },
  };
  const argv = withSurroundings(command, programCall);
  const life = new AbortController();
  const { held, take, flush } = makeSieve(sink);
  const mark = openEndMark(take);
  try {
    const running = runInPod(
      api,
      { ...task, argv: teller === 'sh' ? mark.wrapped(argv) : argv },
      teller === 'sh' ? mark.take : take,
      life.signal,
    );
    const end = await Promise.race([running, mark.told(life.signal), untilAborted(signal, life.signal)]);
    if (end === 'aborted') {
      const why = await endSurely(errand, quarry, running);
      if (why !== undefined)
        log?.error('a hook could not be ended and may run on', { hook: programCall.call.name, pod: name, why });
      const outcome = outcomeOfAbort(signal);
      if (why === undefined) return begun(outcome);
      const runsOn = `it could not be ended and may run on: ${why}`;
      if (outcome.status === 'canceled') return begun({ ...outcome, reason: `${outcome.reason}; ${runsOn}` });
      return begun(outcome.status === 'timed-out' ? { ...outcome, why: runsOn } : outcome);
    }
    const complaint = held();
    if (end.status === 'ended' && (end.exitCode === NOT_FOUND || end.exitCode === 126) && complaint !== '') {
      return begun(outcomeOfRefusal(complaint, command, { name: `${container} of ${name}` }));
    }
    await flush();
    return { outcome: await outcomeOfEnd(errand, command, end), wasRefused: end.status === 'refused' };
  } finally {
    life.abort();
  }
}

/** `env`'s own complaint of a program that is not there; kept back until it is known to be no hook's word. */
const COMPLAINT = /^env: [^\n]*(?:No such file|not found|Permission denied|can't execute)[^\n]*\n?$/i;
const MOST_COMPLAINT = 1024;

function makeSieve(sink: Sink) {
  let kept: Buffer | undefined;
  let isOpen = false;
  const flush = async (): Promise<void> => {
    isOpen = true;
    if (kept !== undefined) await sink({ stream: 'err', bytes: kept });
    kept = undefined;
  };
  const take: Sink = async (output) => {
    if (!isOpen && output.stream === 'err') {
      const all = Buffer.concat([kept ?? Buffer.alloc(0), output.bytes]);
      const text = all.toString();
      if (all.length <= MOST_COMPLAINT && (COMPLAINT.test(text) || 'env: '.startsWith(text))) {
        kept = all;
        return;
      }
      kept = undefined;
      isOpen = true;
      return sink({ stream: 'err', bytes: all });
    }
    await flush();
    await sink(output);
  };
  return { take, flush, held: () => kept?.toString() ?? '' };
}

function untilAborted(signal: AbortSignal, life: AbortSignal): Promise<'aborted'> {
  const { promise, resolve } = Promise.withResolvers<'aborted'>();
  if (signal.aborted) resolve('aborted');
  signal.addEventListener('abort', () => resolve('aborted'), { once: true, signal: life });
  return promise;
}

/** What is only about to start would not be found, and would run on: so it is looked for until its end is told. */
async function endSurely(errand: Errand, quarry: Quarry, running: Promise<ExecEnd>): Promise<string | undefined> {
  const over = running.then(
    () => 'over' as const,
    () => 'over' as const,
  );
  let why: string | undefined;
  for (let tries = 0; tries < 3; tries += 1) {
    why = await endMarked(errand, quarry);
    const told = await Promise.race([over, sleep(LAST_WORDS_MS, 'silence' as const)]);
    if (told === 'over') return why;
  }
  return why;
}

async function outcomeOfEnd(errand: Errand, command: Command, end: ExecEnd): Promise<Outcome> {
  const { programCall, name } = errand;
  if (end.status === 'ended' && end.exitCode === 0) return { status: 'succeeded' };
  if (end.status === 'refused') return outcomeOfRefusal(end.why, command, { name: `${errand.container} of ${name}` });
  const why = await whatBefell(errand, end);
  if (end.status === 'cut') {
    if (why !== undefined) return { status: 'killed', signal: 9, why };
    const left = await endMarked(errand, { mark: programCall.mark, match: 'exact' });
    const rest = left === undefined ? 'what was left of it was ended' : `it may run on: ${left}`;
    return broken(69, `the connection to pod ${name} was cut before its end was told (${end.why}); ${rest}`);
  }
  if (
    end.exitCode === NOT_FOUND &&
    command.interpreter !== undefined &&
    (await isMissing(errand, command.interpreter))
  ) {
    return broken(NOT_FOUND, `container ${errand.container} of pod ${name} has no ${command.interpreter}`);
  }
  const because = why === undefined ? {} : { why };
  const number = end.exitCode - 128;
  if (number > 0 && number <= MOST_SIGNAL) return { status: 'killed', signal: number, ...because };
  return { status: 'failed', exitCode: end.exitCode, ...because };
}

/** What became of its pod meanwhile. What dies with it is told a little sooner than the pod's end. */
async function whatBefell({ api, pod, container }: Errand, end: ExecEnd): Promise<string | undefined> {
  const isSuspect = end.status !== 'ended' || end.exitCode >= 128;
  const { name, uid = '' } = pod.metadata;
  for (const pauseMs of isSuspect ? [100, 200, 400, 800, 0] : [0]) {
    const now = await findPod(api, { key: `pod/${name}`, instance: uid, name }, AbortSignal.timeout(QUESTION_MS));
    if (now === undefined || now.metadata.uid !== pod.metadata.uid || now.metadata.deletionTimestamp !== undefined) {
      return 'its pod was stopped or removed while it ran';
    }
    const [before, after] = [runningIn(pod, container), runningIn(now, container)];
    if (after === undefined) return 'its container stopped while it ran';
    if (before !== after) return 'its container was started anew while it ran';
    await sleep(pauseMs);
  }
  return undefined;
}

/** A shell that does not find a program exits 127; so may a program. */
async function isMissing({ api, pod, container }: Errand, interpreter: string): Promise<boolean> {
  const argv = ['sh', '-c', 'command -v "$1"', 'sidehook', interpreter];
  const task = { doing: `look for ${interpreter}`, pod: pod.metadata.name, container, argv };
  const end = await runInPod(api, task, async () => undefined, AbortSignal.timeout(QUESTION_MS));
  return end.status === 'ended' && end.exitCode !== 0;
}
