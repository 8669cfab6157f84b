import { randomUUID } from 'node:crypto';
import { exitCodeOfError, OperationalError } from '../core/errors.ts';
import type { Answer } from '../core/result.ts';
import { socketOf } from './client-dir.ts';
import { type CommandEnd, runCommand } from './command.ts';
import { type Edge, EXIT_CODE_OF_SIGNAL, makeVoice, type Voice } from './edge.ts';
import { type HeldLease, holdLease } from './hold-lease.ts';
import { type PosixRelay, relayPosix, waitOut } from './posix-relay.ts';
import { type Errand, sendSignal } from './send.ts';
import { type Given, paramsOf, termOf, textOf, type Verb, wordsOf, wrongUsage } from './verb.ts';

/** `run`: `pre`, and if it succeeded the command, and always `post`. */
export const verb: Verb = {
  usage:
    'run OPERATION [--job J] [--param K=V]... [--wait D] [--timeout D] [--connect-timeout D] [--dir DIR] -- COMMAND [ARG...]',
  help: `Runs COMMAND between the hooks before and after it, and exits with its code, or that of the first hook that failed.
The command goes on while the sidecar is away (an upgrade), and what comes after it waits for the sidecar, for --wait.

  --job J              which backup this is; default: default
  --param K=V          for the hooks: SIDEHOOK_PARAM_K
  --wait D             how long to wait for our turn; default 1h
  --timeout D          how long COMMAND may take: then TERM, after 10s KILL, and 124
  --connect-timeout D  how long to wait for a sidecar; default 60s
  --dir DIR            the shared directory; default SIDEHOOK_DIR, else /run/sidehook`,
  options: {
    job: { type: 'string' },
    param: { type: 'string', multiple: true },
    wait: { type: 'string' },
    timeout: { type: 'string' },
    'connect-timeout': { type: 'string' },
    dir: { type: 'string' },
  },
  start,
};

const DEFAULT_WAIT = '1h';
const DEFAULT_WAIT_MS = 3_600_000;
const DEFAULT_CONNECT_MS = 60_000;

/** The code of a backup that nobody may trust. */
const EXIT_NOT_TRUSTED = 65;

type Plan = {
  readonly operation: string;
  readonly job: string;
  readonly fields: Readonly<Record<string, unknown>>;
  readonly argv: readonly [string, ...string[]];
  readonly timeoutMs: number | undefined;
  readonly waitMs: number;
  readonly connectMs: number;
};

/** What there is while a run is under way. */
type Scene = {
  readonly plan: Plan;
  readonly edge: Edge;
  readonly voice: Voice;
  readonly lease: HeldLease;
  readonly abandoned: AbortController;
  readonly posix: PosixRelay;
  readonly dir: string;
  send(
    state: string,
    fields: Record<string, unknown>,
    patience: Pick<Errand, 'patienceMs' | 'signal'>,
  ): Promise<Answer>;
};

async function start(given: Given, edge: Edge): Promise<number> {
  const plan = planOf(given);
  const { dir, socketPath } = await socketOf(given, edge);
  const voice = makeVoice(edge, 'err');
  using posix = relayPosix(edge);
  const abandoned = new AbortController();
  const leaseId = randomUUID();
  const say = (text: string) => void voice.say(`${plan.operation}: ${text}`);
  try {
    await using lease = await holdLease({
      socketPath,
      leaseId,
      patienceMs: plan.connectMs,
      signal: posix.early,
      onAway: () => say('the sidecar is away; the command goes on'),
      onBack: () => say('the sidecar is back'),
      onAbandoned(why) {
        if (!abandoned.signal.aborted) say(`the run was given up: ${why}`);
        abandoned.abort(new Error(why));
      },
    });
    const send: Scene['send'] = (state, fields, patience) =>
      sendSignal({
        ...{ socketPath, ...patience },
        body: { version: 1, id: randomUUID(), leaseId, lease: 'held', state, ...plan.fields, ...fields },
        onOutput: ({ stream, bytes }) => voice.pass(stream, bytes),
        onWord: (word) => voice.say(`${plan.operation} ${state}: ${word}`),
      });
    return await conduct({ plan, edge, voice, lease, abandoned, posix, dir, send });
  } catch (error) {
    const told = posix.told();
    if (told === undefined || error !== posix.early.reason) throw error;
    await voice.say(`${plan.operation}: ended by ${told} before the command was started`);
    return EXIT_CODE_OF_SIGNAL[told];
  }
}

function planOf(given: Given): Plan {
  const [operation = ''] = wordsOf(given, 'OPERATION');
  const [program, ...args] = given.rest ?? [];
  if (program === undefined || program === '') throw wrongUsage('-- COMMAND: missing');
  const job = textOf(given, 'job') ?? 'default';
  return {
    operation,
    job,
    fields: { operation, job, params: paramsOf(given), wait: textOf(given, 'wait') ?? DEFAULT_WAIT },
    argv: [program, ...args],
    timeoutMs: termOf(given, 'timeout'),
    waitMs: termOf(given, 'wait') ?? DEFAULT_WAIT_MS,
    connectMs: termOf(given, 'connect-timeout') ?? DEFAULT_CONNECT_MS,
  };
}

async function conduct(scene: Scene): Promise<number> {
  const { plan, voice, lease, posix } = scene;
  const pre = await scene.send('pre', {}, { patienceMs: plan.connectMs, signal: posix.early });
  posix.pass(undefined); // from here on there is a run, and it gets its post
  for (const note of pre.notes) await voice.say(note);
  if (pre.exitCode !== 0) return conclude(voice, pre, plan);
  if (pre.runId === undefined) throw new OperationalError('internal', `${plan.operation} pre: answered without a run`);
  lease.keeps(pre.runId);

  const ended = await runBetween(scene, pre.runId);
  return finish(scene, pre.runId, ended);
}

/** The command, and before a restore's the word that it is about to be started: from then on its data are at stake. */
async function runBetween(scene: Scene, runId: string): Promise<CommandEnd> {
  const { plan, edge, voice, lease, posix, abandoned, dir } = scene;
  if (plan.operation === 'restore') {
    const patience = { patienceMs: plan.connectMs, signal: abandoned.signal };
    const started = await scene.send('started', { run: runId }, patience).catch((error: unknown) => {
      if (abandoned.signal.aborted) return { exitCode: EXIT_NOT_TRUSTED, notes: [] };
      if (!(error instanceof OperationalError)) throw error;
      return { exitCode: exitCodeOfError(error), message: error.message, notes: [] };
    });
    if (started.exitCode !== 0) {
      await voice.say(started.message ?? 'restore started: refused');
      return { exitCode: started.exitCode, what: 'was not started' };
    }
  }
  const told = posix.told();
  if (told !== undefined) return { exitCode: EXIT_CODE_OF_SIGNAL[told], what: `was not started: ended by ${told}` };

  const never = new AbortController().signal;
  const connection = await lease.openForChild().catch(() => undefined);
  const ended = await runCommand({
    argv: plan.argv,
    env: {
      ...edge.env,
      SIDEHOOK_DIR: dir,
      SIDEHOOK_RUN_ID: runId,
      SIDEHOOK_JOB: plan.job,
      SIDEHOOK_OPERATION: plan.operation,
    },
    timeoutMs: plan.timeoutMs,
    lease: connection,
    // What a restore goes on writing after its run was given up would be written under a started workload.
    signal: plan.operation === 'restore' ? abandoned.signal : never,
    onStarted: (pass) => posix.pass(pass),
  });
  connection?.destroy();
  posix.pass(undefined);
  return ended;
}

/** `post`, and the last word: the command's own code, then 65, then whatever the sidecar answered. */
async function finish(
  { plan, edge, voice, lease, abandoned, send }: Scene,
  runId: string,
  ended: CommandEnd,
): Promise<number> {
  const outcome = ended.exitCode === 0 ? 'success' : 'failure';
  using listening = waitOut(edge, voice);
  lease.keeps(undefined);
  const post = await send(
    'post',
    { run: runId, status: ended.exitCode, outcome },
    { patienceMs: Math.max(plan.waitMs, plan.connectMs), signal: listening.signal },
  ).catch((error: unknown): Answer => {
    if (listening.signal.aborted)
      return { exitCode: EXIT_CODE_OF_SIGNAL[listening.told()], message: 'post: not waited for', notes: [] };
    if (!(error instanceof OperationalError)) throw error;
    return { exitCode: exitCodeOfError(error), message: `${plan.operation} post: ${error.message}`, notes: [] };
  });
  for (const note of post.notes) await voice.say(note);

  const why = abandoned.signal.aborted ? (abandoned.signal.reason as Error).message : undefined;
  if (why !== undefined && (ended.exitCode === 0 || ended.isCut)) {
    return conclude(
      voice,
      { exitCode: EXIT_NOT_TRUSTED, message: `${plan.operation}: do not trust it: ${post.message ?? why}` },
      plan,
    );
  }
  if (ended.exitCode === 0) return conclude(voice, post, plan);
  if (post.exitCode !== 0 && post.message !== undefined) await voice.say(post.message);
  return conclude(
    voice,
    { exitCode: ended.exitCode, message: `${plan.operation}: command ${plan.argv[0]} ${ended.what}` },
    plan,
  );
}

async function conclude(
  voice: Voice,
  { exitCode, message }: Pick<Answer, 'exitCode' | 'message'>,
  { operation }: Plan,
): Promise<number> {
  if (exitCode !== 0) await voice.say(message ?? `${operation}: exit code ${exitCode}`);
  return exitCode;
}
