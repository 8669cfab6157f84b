/** How a hook in a container ended, and why, where its exit code alone would mislead. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ProgramCall } from '../core/ports.ts';
import type { Outcome } from '../core/result.ts';
import type { WorkloadRef } from '../core/workload.ts';
import type { Api } from './docker-api.ts';
import { endMarked } from './docker-end.ts';
import { inspectContainer } from './docker-find.ts';
import { awaitExec, type ExecState, OFTEN, startExec } from './docker-run.ts';
import type { Inspected } from './docker-workload.ts';
import { type Command, NOT_FOUND } from './program.ts';

/** A hook that was started. `container`: as it was before. */
export type Errand = {
  readonly api: Api;
  readonly programCall: ProgramCall;
  readonly container: Inspected;
  readonly place: WorkloadRef;
};

const MOST_SIGNAL = 31;
const KILLED = 137;
const QUESTION_MS = 10_000;

/**
 * The engine says that it has ended, or knows nothing of it any more.
 * @throws OperationalError `engine-unavailable`, `refused`
 */
export async function outcomeOfEnd(errand: Errand, command: Command, end: ExecState): Promise<Outcome> {
  const { api, programCall, container, place } = errand;
  if (end.status === 'ended' && end.exitCode === 0) return { status: 'succeeded' };
  const why = await whatBefell(errand, end);
  if (end.status !== 'ended') {
    if (why !== undefined) return { status: 'killed', signal: 9, why };
    const left = await endMarked(api, container.Id, { mark: programCall.mark, match: 'exact' });
    const rest = left === undefined ? 'what was left of it was ended' : `it may run on: ${left}`;
    return { status: 'broken', exitCode: 69, why: `the engine lost track of it in container ${place.name}; ${rest}` };
  }
  if (
    end.exitCode === NOT_FOUND &&
    command.interpreter !== undefined &&
    (await isMissing(errand, command.interpreter))
  ) {
    return { status: 'broken', exitCode: NOT_FOUND, why: `container ${place.name} has no ${command.interpreter}` };
  }
  const because = why === undefined ? {} : { why };
  const number = end.exitCode - 128;
  if (number > 0 && number <= MOST_SIGNAL) return { status: 'killed', signal: number, ...because };
  return { status: 'failed', exitCode: end.exitCode, ...because };
}

/** What became of its container meanwhile. What dies with it is known to the engine a little sooner than the container. */
async function whatBefell({ api, container }: Errand, { status, exitCode }: ExecState): Promise<string | undefined> {
  const isSuspect = status !== 'ended' || exitCode === KILLED;
  for (const pauseMs of isSuspect ? [50, 100, 200, 400, 0] : [0]) {
    const now = await inspectContainer(api, container.Id, AbortSignal.timeout(QUESTION_MS));
    if (now === undefined) return 'its container was removed while it ran';
    if (now.State.Running !== true) return 'its container stopped while it ran';
    if (now.State.StartedAt !== container.State.StartedAt) return 'its container was started anew while it ran';
    await sleep(pauseMs);
  }
  return undefined;
}

/** A shell that does not find a program exits 127; so may a program. */
async function isMissing({ api, container }: Errand, interpreter: string): Promise<boolean> {
  const signal = AbortSignal.timeout(QUESTION_MS);
  const argv = ['sh', '-c', 'command -v "$1"', 'sidehook', interpreter];
  const task = { doing: `look for ${interpreter}`, container: container.Id, argv };
  const { id, stream } = await startExec(api, task, signal, signal);
  stream.on('error', () => undefined).resume();
  const { status, exitCode } = await awaitExec(api, id, OFTEN, signal);
  return status === 'ended' && exitCode !== 0;
}
