import { randomUUID } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { ERRORS } from '../core/errors.ts';
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
  const runFile = state === 'pre' ? textOf(given, 'run-file') : undefined;
  if (runFile !== undefined) await clear(runFile);
  const body = await bodyOf(given, operation, state, edge);
  const patienceMs = termOf(given, 'connect-timeout') ?? DEFAULT_CONNECT_MS;
  const { socketPath } = await socketOf(given, edge);

  const voice = makeVoice(edge, 'out');
  using stopping = untilTold(edge.posix);
  const send = (what: Body): Promise<Answer> =>
    sendSignal({
      ...{ socketPath, body: what, patienceMs },
      onOutput: ({ stream, bytes }) => voice.pass(stream, bytes),
      onWord: (word) => voice.say(`${operation} ${state}: ${word}`),
      signal: stopping.signal,
    });
  let answer: Answer;
  try {
    answer = await send(body);
    const { exitCode, runId } = answer;
    if (runFile !== undefined && exitCode === 0 && runId !== undefined) {
      const why = await write(runFile, `${runId}\n`);
      // Nobody could close it: what it holds would stay so for hours.
      if (why !== undefined) answer = endAgain(await send(endOf(body, runId)), `${operation} pre: ${why}`);
    }
  } catch (error) {
    const told = stopping.told();
    if (told === undefined || error !== stopping.signal.reason) throw error;
    await voice.say(`${operation} ${state}: ended by ${told} before there was an answer`);
    return EXIT_CODE_OF_SIGNAL[told];
  }
  for (const note of answer.notes) await voice.say(note);
  if (answer.exitCode !== 0) await voice.say(answer.message ?? `${operation} ${state}: exit code ${answer.exitCode}`);
  return answer.exitCode;
}

type Body = { readonly id: string } & Readonly<Record<string, unknown>>;

async function bodyOf(given: Given, operation: string, state: string, { env }: Edge): Promise<Body> {
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
  return { version: 1, id: randomUUID(), operation, state, job, params: paramsOf(given), ...optional };
}

async function runOf(given: Given, env: Edge['env']): Promise<string | undefined> {
  const file = textOf(given, 'run-file');
  const named = textOf(given, 'run');
  if (named !== undefined || file === undefined) return named ?? (env.SIDEHOOK_RUN_ID || undefined);
  const text = await readFile(file, 'utf8').catch((error: Error) => {
    throw wrongUsage(`--run-file: cannot read ${file}: ${error.message}`);
  });
  if (text.trim() === '') throw wrongUsage(`--run-file: expected a run in ${file}, got nothing`);
  return text.trim();
}

/** The run that is kept there is of the past; and where nothing can be written, that is found out before it is too late. */
async function clear(file: string): Promise<void> {
  const why = await write(file, '');
  if (why !== undefined) throw wrongUsage(`--run-file: ${why}`);
}

/** Undefined, or why not. */
async function write(file: string, text: string): Promise<string | undefined> {
  return writeFile(file, text, { mode: 0o600 }).then(
    () => undefined,
    (error: Error) => `cannot write to ${file}: ${error.message}`,
  );
}

function endOf(body: Body, run: string): Body {
  const { lease: _, ...rest } = body;
  return { ...rest, id: randomUUID(), state: 'post', run, outcome: 'failure' };
}

function endAgain(ended: Answer, why: string): Answer {
  const notes = ended.message === undefined ? ended.notes : [...ended.notes, ended.message];
  return { exitCode: ERRORS.internal.exit, message: `${why}; so the run was ended again`, notes };
}
