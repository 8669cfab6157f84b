import type { ChildProcess } from 'node:child_process';
import { closeSync } from 'node:fs';
import { constants } from 'node:os';
import { execa, type Options } from 'execa';
import { OperationalError } from '../core/errors.ts';
import type { HookCall } from '../core/hook.ts';
import type { Host, Log, ProgramCall, Sink } from '../core/ports.ts';
import { type Outcome, outcomeOfAbort } from '../core/result.ts';
import { looksSecret } from '../core/secret.ts';
import { type Beginning, brokenByBeginning, brokenBySpawn, readBeginning, whyFailed } from './host-diagnosis.ts';
import { listHookFiles } from './host-files.ts';
import { drain, type Forwarding, forward } from './host-output.ts';
import { openPipes, type PipeMaker } from './host-pipes.ts';
import { endProcesses } from './host-processes.ts';
import { type Identity, identityOf } from './host-user.ts';

type Environment = Readonly<Record<string, string | undefined>>;

export type HostOptions = {
  readonly hooksDir: string;
  /** The sidecar's own environment, which hooks inherit without its secrets. */
  readonly env: Environment;
  /** What clients may write (`run.dir`): a hook that leads there is refused. */
  readonly sharedDir?: string;
  /** How long what was told to end may take, before it is killed. */
  readonly timeoutGraceMs?: number;
  readonly log?: Log;
};

/** A hook is called with exactly these two. */
type Command = { readonly file: string; readonly args: readonly string[] };

/** What we need of execa's subprocess. */
type Child = { readonly nodeChildProcess: ChildProcess } & PromiseLike<{
  readonly exitCode?: number | undefined;
  readonly signal?: string | undefined;
  readonly cause?: unknown;
}>;

type Ended = { readonly exitCode: number | null; readonly signal: string | null } | { readonly error: Error };

/** Nothing of a hook's own is meant by the directory that the sidecar happens to run in. */
const DEFAULT_WORKDIR = '/';

/** Settings of our own engine, which would change or break a hook that is a Node program itself. */
const OUR_ENGINE =
  /^NODE_(?:OPTIONS|COMPILE_CACHE|V8_COVERAGE|CHANNEL_FD|CHANNEL_SERIALIZATION_MODE|UNIQUE_ID|TEST_CONTEXT)$/;

/** What only a call may set: left in our own environment, it would look as if the client had sent it. */
const OF_A_CALL = /^SIDEHOOK_(?:OPERATION|STATE|JOB|RUN_ID|HOOK|TARGET|OUTCOME|STATUS|STEP|RETURN(?:_.*)?|PARAM_.*)$/;

/** Opens hooks.d and this machine (or container): lists what is there, runs it, ends it. */
export function openHost({ hooksDir, env, sharedDir, timeoutGraceMs = 10_000, log }: HostOptions): Host {
  const inherited = environmentForHooks(env);
  const makePipes = openPipes(async (paths) => {
    await execa('mkfifo', ['-m', '666', ...paths], { stdin: 'ignore', env: inherited, extendEnv: false });
  });
  return {
    list: () => listHookFiles(hooksDir, sharedDir),

    async run(call, sink, signal) {
      try {
        return await runProgram(call, { inherited, makePipes, timeoutGraceMs, log, sink, signal });
      } catch (error) {
        if (error instanceof OperationalError) return { status: 'broken', exitCode: 78, why: error.message };
        return { status: 'broken', exitCode: 70, why: error instanceof Error ? error.message : String(error) };
      }
    },

    async endLeftovers(markPrefix, signal) {
      if (markPrefix === '') throw new Error('end leftovers: an empty mark would mean every hook of this machine');
      const left = await endProcesses({ isMarked: (mark) => mark.startsWith(markPrefix) }, timeoutGraceMs, signal);
      if (left.length > 0) log?.error('cannot end what a hook left running', { pids: left.map(({ pid }) => pid) });
    },
  };
}

/** The sidecar's environment as hooks may see it. */
export function environmentForHooks(env: Environment): Record<string, string> {
  const entries = Object.entries(env).filter((entry): entry is [string, string] => entry[1] !== undefined);
  return Object.fromEntries(
    entries.filter(([name]) => {
      if (OUR_ENGINE.test(name) || OF_A_CALL.test(name)) return false;
      return !(name.startsWith('SIDEHOOK_') && (looksSecret(name) || name.endsWith('_FILE')));
    }),
  );
}

type Means = {
  readonly inherited: Readonly<Record<string, string>>;
  readonly makePipes: PipeMaker;
  readonly timeoutGraceMs: number;
  readonly log: Log | undefined;
  readonly sink: Sink;
  readonly signal: AbortSignal;
};

async function runProgram({ call, env, mark }: ProgramCall, means: Means): Promise<Outcome> {
  const { inherited, makePipes, sink, signal } = means;
  if (signal.aborted) return outcomeOfAbort(signal);

  const { user, workdir: cwd = DEFAULT_WORKDIR } = call.settings;
  const identity: Identity | undefined = user === undefined ? undefined : await identityOf(user);
  const { file, args } = commandOf(call);
  const beginning = readBeginning(file);
  const broken = beginning && call.program.kind === 'executable' ? brokenByBeginning(beginning) : undefined;
  if (broken !== undefined) return broken;

  const pipes = await makePipes(2);
  const child = execa(file, args, {
    env: { ...inherited, ...identity?.env, ...env, SIDEHOOK_STEP: mark },
    extendEnv: false,
    cwd,
    ...(identity && { uid: identity.uid, gid: identity.gid }),
    stdin: 'ignore',
    stdout: (pipes?.[0]?.writeEnd ?? 'pipe') as 'pipe', // execa takes any descriptor, its types end at 9
    stderr: (pipes?.[1]?.writeEnd ?? 'pipe') as 'pipe',
    detached: true, // a session and a process group of its own
    buffer: false, // execa kills what outgrows its buffer, and keeps it all
    cleanup: false,
    reject: false,
  } satisfies Options);
  for (const { writeEnd } of pipes ?? []) closeSync(writeEnd);
  const exited = exitOf(child);

  const [out, err] = [pipes?.[0]?.reader ?? child.stdout, pipes?.[1]?.reader ?? child.stderr];
  const forwardings = [out && forward(out, 'out', sink), err && forward(err, 'err', sink)].filter((one) => !!one);
  const isCut = await endOrExit(exited, child.pid, mark, means);
  await drain(forwardings as Forwarding[], signal);
  if (isCut) return outcomeOfAbort(signal);
  return outcomeOf(await exited, { file, beginning, cwd });
}

/** Waits for the exit; on abort, ends the hook and all that came of it. Resolves to whether that was so. */
async function endOrExit(
  exited: Promise<Ended>,
  pid: number | undefined,
  mark: string,
  { signal, timeoutGraceMs, log }: Means,
): Promise<boolean> {
  if (pid === undefined) return false; // it never was
  const { promise: aborted, resolve: abort } = Promise.withResolvers<'aborted'>();
  const listener = () => abort('aborted');
  signal.addEventListener('abort', listener);
  if (signal.aborted) listener();
  const first = await Promise.race([exited, aborted]);
  signal.removeEventListener('abort', listener);
  if (first !== 'aborted') return false;

  const left = await endProcesses({ leader: pid, isMarked: (it) => it === mark }, timeoutGraceMs);
  if (left.length > 0) log?.error('cannot end a hook', { mark, pids: left.map((one) => one.pid) });
  return true;
}

function exitOf(child: Child): Promise<Ended> {
  return new Promise((resolve) => {
    // execa itself waits for the streams, which a background child may keep open.
    child.nodeChildProcess.once('exit', (exitCode, signal) => resolve({ exitCode, signal }));
    void child.then(({ exitCode, signal, cause }) => {
      if (exitCode === undefined && signal === undefined)
        resolve({ error: cause instanceof Error ? cause : new Error(String(cause)) });
    });
  });
}

async function outcomeOf(
  ended: Ended,
  place: { readonly file: string; readonly beginning: Beginning | undefined; readonly cwd: string },
): Promise<Outcome> {
  if ('error' in ended) return brokenBySpawn(ended.error, place);
  const { exitCode, signal } = ended;
  if (signal !== null) return { status: 'killed', signal: constants.signals[signal as NodeJS.Signals] ?? 0 };
  if (exitCode === null) return { status: 'broken', exitCode: 70, why: 'nobody can tell how it ended' };
  if (exitCode === 0) return { status: 'succeeded' };
  const why = whyFailed(exitCode, place.beginning);
  return { status: 'failed', exitCode, ...(why !== undefined && { why }) };
}

function commandOf({ program, operation, state }: HookCall): Command {
  switch (program.kind) {
    case 'executable':
      return { file: program.path, args: [operation, state] };
    case 'shell':
      return { file: '/bin/sh', args: ['-c', program.line] };
    case 'argv': {
      const [file = '', ...args] = program.argv;
      return { file, args };
    }
    case 'script':
      throw new OperationalError('configuration', `${program.name}: its text is for containers, and this is the host`);
  }
}
