/** Stops and pauses containers, and undoes it. */
import { OperationalError } from '../core/errors.ts';
import type { HoldKind } from '../core/hold.ts';
import type { WorkloadRef } from '../core/workload.ts';
import type { Api } from './docker-api.ts';
import { inspectContainer } from './docker-find.ts';
import type { Inspected } from './docker-workload.ts';

const STOPPED = ['exited', 'dead', 'created', 'stopped', 'configured'];

/** `Driver.hold`. The engine goes on with a stop whose caller is gone. Resolves to the container as it is then. */
export async function hold(
  api: Api,
  ref: WorkloadRef,
  kind: HoldKind,
  timeoutMs: number | undefined,
  signal: AbortSignal,
): Promise<Inspected> {
  const doing = `${kind} container ${ref.name}`;
  const query = kind === 'stop' && timeoutMs !== undefined ? { t: String(Math.ceil(timeoutMs / 1000)) } : undefined;
  // No limit: a stop takes as long as its container has been given, and the engine says nothing until then.
  const ask = () => change(api, ref, kind, doing, { query, limitMs: Number.POSITIVE_INFINITY, signal });
  let answer = await ask();
  let container = await inspectExisting(api, ref, doing, signal);
  if (!answer.isDone && kind === 'stop' && container.State.Paused === true) {
    // Podman stops nothing that is paused
    await change(api, ref, 'unpause', `unpause container ${ref.name}`, { signal });
    answer = await ask();
    container = await inspectExisting(api, ref, doing, signal);
  }
  if (answer.isDone) return container;

  // Refused: as it should be already, or truly refused. Engines differ in their words, not in the container's state.
  const { State: state } = container;
  const isStill = kind === 'pause' ? state.Paused === true : STOPPED.includes(state.Status ?? '');
  if (!isStill) throw new OperationalError('workload-failed', `${doing}: ${answer.message}`);
  return container;
}

/** `Driver.release`: unpaused where it is paused by us, started where it does not run, whatever became of our hold. */
export async function release(api: Api, ref: WorkloadRef, kind: HoldKind, signal: AbortSignal): Promise<Inspected> {
  const doing = kind === 'pause' ? `unpause container ${ref.name}` : `start container ${ref.name}`;
  const answer = await change(api, ref, kind === 'pause' ? 'unpause' : 'start', doing, { signal });
  const container = await inspectExisting(api, ref, doing, signal);
  const { State: state } = container;
  const isPaused = state.Paused === true;
  if (isPaused && kind === 'pause')
    throw new OperationalError('workload-failed', `${doing}: ${answer.isDone ? 'it is paused still' : answer.message}`);
  if (isPaused || state.Running === true || state.Status === 'restarting') return container;

  if (kind === 'pause') return release(api, ref, 'stop', signal); // the engine, or the machine, went down meanwhile
  const why = answer.isDone ? `it ended at once, exit code ${state.ExitCode}` : answer.message;
  throw new OperationalError('workload-failed', `${doing}: ${why}`);
}

type Change = { readonly isDone: true } | { readonly isDone: false; readonly message: string };

/** A start also waits for volumes and networks. */
const START_MS = 5 * 60_000;

async function change(
  api: Api,
  ref: WorkloadRef,
  verb: string,
  doing: string,
  {
    query,
    limitMs = START_MS,
    signal,
  }: { query?: Record<string, string> | undefined; limitMs?: number; signal: AbortSignal },
): Promise<Change> {
  const path = `/containers/${ref.instance}/${verb}`;
  const accept = [409, 500]; // Podman says with 500 what Docker says with 409
  const question = { doing, method: 'POST', path, accept, limitMs, signal } as const;
  const { status, message } = await api.ask(query === undefined ? question : { ...question, query });
  return accept.includes(status) ? { isDone: false, message } : { isDone: true };
}

async function inspectExisting(api: Api, ref: WorkloadRef, doing: string, signal: AbortSignal): Promise<Inspected> {
  const container = await inspectContainer(api, ref.instance, signal);
  if (container === undefined) throw new OperationalError('workload-failed', `${doing}: no such container`);
  return container;
}
