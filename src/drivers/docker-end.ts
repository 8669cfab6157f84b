/** Ends a hook and all its children in a container: the engine has no call for that. */
import { OperationalError } from '../core/errors.ts';
import type { Api } from './docker-api.ts';
import { endSeenFromHere } from './docker-end-here.ts';
import { inspectContainer } from './docker-find.ts';
import { awaitExec, OFTEN, startExec } from './docker-run.ts';
import { readFrames } from './docker-stream.ts';
import { endAll, isWholeFinding, type Known, type Quarry, readFinding, searchFor } from './end-marked.ts';

const PASS_MS = 20_000;
const MOST_USERS = 16;
const MOST_BYTES = 1024 * 1024;

/**
 * Ends them. Resolves to why that could not be done, undefined when nothing of them is left. Has deadlines of its own, so
 * that it outlives the abort it mostly comes from. A container that does not run is done.
 */
export async function endMarked(api: Api, container: string, quarry: Quarry): Promise<string | undefined> {
  try {
    return await endAll((name, known) => findAndSignal(api, container, quarry, name, known));
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error;
    return whyUnreachable(api, container, quarry, error);
  }
}

/** One pass, as root and as every user whose processes root may not look into. Returns who was alive, and notes them. */
async function findAndSignal(
  api: Api,
  container: string,
  quarry: Quarry,
  name: 'TERM' | 'KILL',
  known: Known,
): Promise<readonly string[]> {
  const alive = new Set<string>();
  const users = new Set(['0']);
  for (const user of users) {
    const found = readFinding(await runForText(api, { container, argv: searchFor(quarry, name, known), user }), known);
    for (const other of found.users) if (users.size < MOST_USERS) users.add(other);
    for (const one of found.alive) alive.add(one);
  }
  return [...alive];
}

type Errand = { readonly container: string; readonly argv: readonly string[]; readonly user: string };

async function runForText(api: Api, { container, argv, user }: Errand): Promise<string> {
  const doing = 'look for what a hook left running';
  const life = new AbortController();
  const signal = AbortSignal.any([life.signal, AbortSignal.timeout(PASS_MS)]);
  let text = '';
  try {
    const { id, stream } = await startExec(api, { doing, container, argv, user }, signal, signal);
    const reading = readFrames(stream, async ({ stream: name, bytes }) => {
      if (name === 'out' && text.length < MOST_BYTES) text += Buffer.from(bytes).toString();
      // The engine itself is late to say so where what a hook left keeps its output open.
      if (isWholeFinding(text)) life.abort();
    });
    await reading.catch((error: unknown) => {
      if (!life.signal.aborted) throw error;
    });
    if (isWholeFinding(text)) return text;
    const { status, exitCode } = await awaitExec(api, id, OFTEN, signal);
    const why = status === 'refused' ? 'the container has no shell' : `the search ended with exit code ${exitCode}`;
    throw new OperationalError('workload-failed', `${doing}: ${why}`);
  } catch (cause) {
    if (cause instanceof OperationalError) throw cause;
    const why = signal.aborted ? `not done in ${PASS_MS / 1000} s` : String(cause);
    throw new OperationalError('workload-failed', `${doing}: ${why}`, { cause });
  }
}

/** What has stopped, or is gone, has no processes; in what is paused, none can be ended. */
async function whyUnreachable(
  api: Api,
  container: string,
  { mark, match }: Quarry,
  error: OperationalError,
): Promise<string | undefined> {
  if (error.code === 'engine-unavailable') return error.message;
  const found = await inspectContainer(api, container, AbortSignal.timeout(PASS_MS)).catch(() => null);
  if (found === undefined || found?.State.Running === false) return undefined;
  if (found?.State.Paused === true) return 'its container is paused';

  const wanted = `SIDEHOOK_STEP=${mark}`;
  const here = await endSeenFromHere((entry) => (match === 'exact' ? entry === wanted : entry.startsWith(wanted)));
  if (here.found > 0) return here.left === 0 ? undefined : `${here.left} of its processes survive even KILL`;
  if (found !== null && (found.ExecIDs ?? []).length === 0) return undefined; // the engine knows of no hook that runs
  return `${error.message}, and its processes cannot be seen from here (pid: host would show them)`;
}
