import { setTimeout as sleep } from 'node:timers/promises';
import metadata from '../../package.json' with { type: 'json' };
import { exitCodeOfError, OperationalError } from '../core/errors.ts';
import { openShared } from '../daemon.ts';
import { openLog } from '../log.ts';
import { tend } from '../run/adopt.ts';
import { releaseNow } from '../run/control.ts';
import { recover } from '../run/recover.ts';
import type { Shared } from '../run/shared.ts';
import { type Edge, EXIT_CODE_OF_SIGNAL, makeVoice, untilTold } from './edge.ts';
import { configOf, OPERATOR_HELP, OPERATOR_OPTIONS } from './operator.ts';
import { type Given, textOf, type Verb, wordsOf, wrongUsage } from './verb.ts';

const { json: _, ...options } = OPERATOR_OPTIONS;

/** `recover`: what a recovery job does. */
export const verb: Verb = {
  usage: 'recover [--release JOB] [options]',
  help: `Finishes, once, what sidecars left that were lost with their journals: waits until they have given no sign of life
for a minute, starts again what they held, in order, and runs the hooks that are owed. For Kubernetes, where the cluster
remembers it. Exits with 0 when nothing is left, with 74 when something could not be started or stays held, with 69 when
the engine does not answer.

  --release JOB        releases what failed restores of this job keep, too: their sidecars may be gone
${OPERATOR_HELP.replace(/^ +--json.*\n/, '')}`,
  options: { ...options, release: { type: 'string' } },
  start,
};

async function start(given: Given, edge: Edge): Promise<number> {
  wordsOf(given);
  const job = textOf(given, 'release');
  if (given.rest !== undefined) throw wrongUsage('-- : not expected');
  const { config } = configOf(given, edge, 'strict');
  const log = openLog({ ...config.log, env: edge.env });
  using stopping = untilTold(edge.posix);
  await using stack = new AsyncDisposableStack();
  stack.defer(() => log.flush());
  const { parts, bugs } = await openShared(config, { env: edge.env, log, version: metadata.version }, stack);
  if (parts.tools.driver.ledger === undefined) {
    const why = `engine ${parts.tools.driver.engine} remembers nothing itself; a sidecar that starts again recovers`;
    throw new OperationalError('configuration', `recover: ${why}`);
  }
  try {
    await recover([], parts);
    const say = (note: string) => makeVoice(edge, 'out').say(note);
    const signal = AbortSignal.any([stopping.signal, bugs.signal]);
    const why = await finishAll(parts, { patienceMs: config.hold.healthTimeoutMs, job, say }, signal);
    if (why === undefined) return 0;
    await say(`recover: ${why.message}`);
    return exitCodeOfError(why);
  } catch (error) {
    if (bugs.signal.aborted) throw bugs.signal.reason;
    const told = stopping.told();
    if (told === undefined || error !== stopping.signal.reason) throw error;
    return EXIT_CODE_OF_SIGNAL[told];
  }
}

const PASS_MS = 1_000;

type Wishes = {
  readonly patienceMs: number;
  /** Whose failed restores are to keep nothing any more. */
  readonly job: string | undefined;
  readonly say: (note: string) => Promise<unknown>;
};

/** Until nothing is left to do; or what is left cannot be done, for `patienceMs` with nothing else to wait for. */
async function finishAll(
  parts: Shared,
  { patienceMs, job, say }: Wishes,
  signal: AbortSignal,
): Promise<OperationalError | undefined> {
  const { journal, driver } = parts.tools;
  const tendMs = driver.ledger?.paceMs ?? 0;
  let tendedAt = Number.NEGATIVE_INFINITY;
  const released = new Set<string>();
  let undecided = 1;
  let away: OperationalError | undefined;
  let quietSince = performance.now();
  for (;;) {
    if (performance.now() - tendedAt >= tendMs) {
      tendedAt = performance.now();
      const looked = await tend(parts).catch((error: unknown) => {
        if (!(error instanceof OperationalError)) throw error;
        return error;
      });
      away = typeof looked === 'number' ? undefined : looked;
      if (typeof looked === 'number') undecided = looked;
    }
    for (const run of journal.runs('live').filter((one) => one.phase === 'kept' && one.job === job)) {
      if (released.has(run.id)) continue;
      released.add(run.id);
      for (const note of (await releaseNow({ runId: run.id }, parts)).notes) await say(note);
    }
    const live = journal.runs('live').filter(({ phase }) => phase !== 'kept');
    const held = journal.holds();
    if (away === undefined && undecided > 0) quietSince = performance.now();
    else if (away === undefined && live.length === 0 && held.every(isKept(parts))) {
      const names = held.map(({ name }) => name).join(', ');
      if (held.length === 0) return undefined;
      return failed(`a restore failed: ${names} stay held until sidehook recover --release JOB`);
    } else if (performance.now() - quietSince > patienceMs) {
      if (away !== undefined) return away;
      const troubles = held.map(({ name, trouble = 'not released yet' }) => `${name}: ${trouble}`);
      if (troubles.some((trouble) => !trouble.endsWith('not released yet'))) return failed(troubles.join('; '));
    }
    await sleep(PASS_MS, undefined, { signal }).catch(() => signal.throwIfAborted());
  }
}

function isKept({ tools }: Shared) {
  return ({ runs }: { readonly runs: readonly string[] }): boolean =>
    runs.some((id) => tools.journal.run(id)?.phase === 'kept');
}

function failed(why: string): OperationalError {
  return new OperationalError('workload-failed', why);
}
