/** The engine's exec, step by step: make, start, watch. */
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { OperationalError } from '../core/errors.ts';
import type { Api } from './docker-api.ts';

/** What is to be run in which container. */
export type Task = {
  readonly doing: string;
  readonly container: string;
  readonly argv: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly user?: string | undefined;
  readonly workdir?: string | undefined;
};

/** A started exec. */
export type Started = { readonly id: string; readonly stream: Readable };

/** How an exec stands. */
export type ExecState = {
  readonly status: 'starting' | 'running' | 'ended' | 'refused' | 'forgotten';
  /** Set when ended or refused. */
  readonly exitCode: number;
  /** As the engine's machine counts; 0 when nothing was started, and with Podman when it has ended. */
  readonly pid: number;
};

/** The start is answered before anything is started. */
const START_MS = 10_000;

/**
 * Starts it; standard input is empty. An abort before the engine was asked to start it rejects; after that, only
 * `life` ends the connection, and nothing ends what was started.
 * @throws OperationalError `workload-failed` with the engine's words when it refuses, `engine-unavailable`, `refused`
 */
export async function startExec(api: Api, task: Task, signal: AbortSignal, life: AbortSignal): Promise<Started> {
  const { doing, container, argv, env = {}, user, workdir } = task;
  const body = {
    AttachStdout: true,
    AttachStderr: true,
    Tty: false, // whatever the container has: output and errors stay apart
    Cmd: argv,
    Env: Object.entries(env).map(([name, value]) => `${name}=${value}`),
    ...(user === undefined ? {} : { User: user }),
    ...(workdir === undefined ? {} : { WorkingDir: workdir }),
  };
  const made = await api.ask({ doing, method: 'POST', path: `/containers/${container}/exec`, body, signal });
  const { Id: id } = made.body as { readonly Id: string };
  signal.throwIfAborted();
  const path = `/exec/${id}/start`;
  const start = {
    doing,
    method: 'POST',
    path,
    body: { Detach: false, Tty: false },
    signal: life,
    limitMs: START_MS,
  } as const;
  return { id, stream: await api.open(start) };
}

/**
 * Asks the engine how an exec stands. Only its word counts: an exit code that is missing is no success.
 * @throws OperationalError `engine-unavailable`, `refused`
 */
export async function inspectExec(api: Api, id: string, signal: AbortSignal): Promise<ExecState> {
  const question = { doing: 'ask for an exit code', path: `/exec/${id}/json`, accept: [404], signal };
  const { status, body } = await api.ask(question).catch((error: unknown) => {
    // Podman's way to say that the container is gone
    if (error instanceof OperationalError && error.code === 'workload-failed') return { status: 404, body: undefined };
    throw error;
  });
  if (status === 404) return { status: 'forgotten', exitCode: 0, pid: 0 };
  const { Running, ExitCode, Pid: pid = 0, CanRemove } = body as RawExec;
  if (Running !== false) return { status: pid > 0 ? 'running' : 'starting', exitCode: 0, pid };
  // Before the start there is no code, or with Podman 0; but that one forgets the process, and tells the end thus.
  const hasEnded = typeof ExitCode === 'number' && (pid > 0 || CanRemove === true);
  if (hasEnded) return { status: 'ended', exitCode: ExitCode, pid };
  // A code without a process: Docker could not start it.
  if (typeof ExitCode === 'number' && ExitCode !== 0) return { status: 'refused', exitCode: ExitCode, pid };
  return { status: 'starting', exitCode: 0, pid };
}

type RawExec = {
  readonly Running?: boolean;
  readonly ExitCode?: number | null;
  readonly Pid?: number;
  readonly CanRemove?: boolean;
};

/** How often to ask, and for how long to go on when there is no answer. */
export type Patience = { readonly firstMs: number; readonly mostMs: number; readonly deafMs: number };

/** Beside an open stream, whose end says more. */
export const SELDOM: Patience = { firstMs: 100, mostMs: 1_000, deafMs: 60_000 };
/** After the stream's end, which mostly is the end of the hook. */
export const OFTEN: Patience = { firstMs: 5, mostMs: 1_000, deafMs: 10_000 };

/**
 * Waits until the engine says that an exec has ended, could not be started, or is not known to it any more.
 * @throws OperationalError `engine-unavailable` when it has not answered for `deafMs`
 */
export async function awaitExec(api: Api, id: string, patience: Patience, signal: AbortSignal): Promise<ExecState> {
  const { firstMs, mostMs, deafMs } = patience;
  let heardAt = performance.now();
  let saidRunningAt = heardAt;
  for (let pauseMs = firstMs; ; pauseMs = Math.min(pauseMs * 2, mostMs)) {
    try {
      const state = await inspectExec(api, id, signal);
      heardAt = performance.now();
      if (state.status === 'running') saidRunningAt = heardAt;
      else if (state.status !== 'starting') return state;
      // Neither running nor ended: nobody knows how it ended, and it must not hold anyone up for ever.
      else if (heardAt - saidRunningAt > deafMs) return { ...state, status: 'forgotten' };
    } catch (error) {
      const isDeaf = error instanceof OperationalError && error.code === 'engine-unavailable';
      if (!isDeaf || performance.now() - heardAt > deafMs) throw error;
    }
    await sleep(pauseMs, undefined, { signal });
  }
}
