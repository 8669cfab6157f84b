import { randomUUID } from 'node:crypto';
import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import { OperationalError } from '../core/errors.ts';
import type { Answer } from '../core/result.ts';
import { socketOf } from './client-dir.ts';
import { type Edge, EXIT_CODE_OF_SIGNAL, makeVoice, untilTold } from './edge.ts';
import { sendSignal } from './send.ts';
import { type Given, paramsOf, termOf, textOf, type Verb, wordsOf, wrongUsage } from './verb.ts';

/** `signal`: one state of a run, for scripts that cannot be wrapped in `run`. */
export const verb: Verb = {
  usage: 'signal OPERATION pre|inspect|captured|post [options]',
  help: `Sends one signal, prints what the hooks print, and exits with the first code that is not 0.
Within a command of \`sidehook run\`, the run and the job are those of that run.

  --run ID             which run, as its pre named it
  --run-file FILE      where pre leaves the run's id, and the others find it
  --outcome success|failure, --status N
                       at post: how the backup ended
  --inspect DIR        at inspect: the directory to look at
  --lease D            how long the run may go without a word
  --job J, --param K=V, --wait D, --connect-timeout D, --dir DIR
                       as for run; --wait is 0s`,
  options: {
    job: { type: 'string' },
    param: { type: 'string', multiple: true },
    wait: { type: 'string' },
    run: { type: 'string' },
    'run-file': { type: 'string' },
    outcome: { type: 'string' },
    status: { type: 'string' },
    inspect: { type: 'string' },
    lease: { type: 'string' },
    'connect-timeout': { type: 'string' },
    dir: { type: 'string' },
  },
  start,
};

const STATES = ['pre', 'inspect', 'captured', 'post'];
const DEFAULT_CONNECT_MS = 60_000;

async function start(given: Given, edge: Edge): Promise<number> {
  const [operation = '', state = ''] = wordsOf(given, 'OPERATION', 'STATE');
  if (!STATES.includes(state)) throw wrongUsage(`STATE: expected ${STATES.join(', ')}, got ${state}`);
  if (given.rest !== undefined) throw wrongUsage('-- : not expected; it is run that takes a command');
  const body = await bodyOf(given, operation, state, edge);
  const patienceMs = termOf(given, 'connect-timeout') ?? DEFAULT_CONNECT_MS;
  const { socketPath } = await socketOf(given, edge);

  const voice = makeVoice(edge, 'out');
  using stopping = untilTold(edge.posix);
  let answer: Answer;
  try {
    answer = await sendSignal({
      ...{ socketPath, body, patienceMs },
      onOutput: ({ stream, bytes }) => voice.pass(stream, bytes),
      onWord: (word) => voice.say(`${operation} ${state}: ${word}`),
      signal: stopping.signal,
    });
  } catch (error) {
    const told = stopping.told();
    if (told === undefined || error !== stopping.signal.reason) throw error;
    await voice.say(`${operation} ${state}: ended by ${told} before there was an answer`);
    return EXIT_CODE_OF_SIGNAL[told];
  }
  await keepRunId(textOf(given, 'run-file'), state, answer);
  for (const note of answer.notes) await voice.say(note);
  if (answer.exitCode !== 0) await voice.say(answer.message ?? `${operation} ${state}: exit code ${answer.exitCode}`);
  return answer.exitCode;
}

async function bodyOf(given: Given, operation: string, state: string, { env }: Edge): Promise<{ readonly id: string }> {
  const status = textOf(given, 'status');
  if (status !== undefined && !/^\d{1,3}$/.test(status)) throw wrongUsage(`--status: expected 0 to 255, got ${status}`);
  const run = state === 'pre' ? textOf(given, 'run') : await runOf(given, env);
  const optional = {
    run,
    wait: textOf(given, 'wait') ?? '0s',
    lease: textOf(given, 'lease'),
    outcome: textOf(given, 'outcome'),
    status: status === undefined ? undefined : Number(status),
    inspect: textOf(given, 'inspect'),
  };
  const job = textOf(given, 'job') ?? (env.SIDEHOOK_JOB || 'default');
  // What is undefined is left out of the JSON.
  return { version: 1, id: randomUUID(), operation, state, job, params: paramsOf(given), ...optional } as {
    readonly id: string;
  };
}

async function runOf(given: Given, env: Edge['env']): Promise<string | undefined> {
  const file = textOf(given, 'run-file');
  const named = textOf(given, 'run');
  if (named !== undefined || file === undefined) return named ?? (env.SIDEHOOK_RUN_ID || undefined);
  try {
    return (await readFile(file, 'utf8')).trim();
  } catch (cause) {
    throw new OperationalError('configuration', `read --run-file ${file}: ${(cause as Error).message}`, { cause });
  }
}

/** Written whole or not at all; gone once its run is. */
async function keepRunId(file: string | undefined, state: string, { exitCode, runId }: Answer): Promise<void> {
  if (file === undefined) return;
  try {
    if (state === 'post') await rm(file, { force: true });
    if (state !== 'pre' || exitCode !== 0 || runId === undefined) return;
    const draft = `${file}.${randomUUID()}`;
    await writeFile(draft, `${runId}\n`, { flag: 'wx', mode: 0o600 });
    await rename(draft, file);
  } catch (cause) {
    throw new OperationalError('configuration', `write --run-file ${file}: ${(cause as Error).message}`, { cause });
  }
}
