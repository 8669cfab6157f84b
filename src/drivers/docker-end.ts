/** Ends a hook and all its children in a container: the engine has no call for that. */
import { setTimeout as sleep } from 'node:timers/promises';
import { OperationalError } from '../core/errors.ts';
import type { Api } from './docker-api.ts';
import { endSeenFromHere } from './docker-end-here.ts';
import { inspectContainer } from './docker-find.ts';
import { awaitExec, OFTEN, startExec } from './docker-run.ts';
import { readFrames } from './docker-stream.ts';

/** Whose processes: those that carry this mark, or any that begins with it. */
export type Quarry = { readonly mark: string; readonly match: 'exact' | 'prefix' };

/**
 * What runs in the container. It needs a shell there and its built-in commands alone, and prints a line for each process
 * that it found alive: `PID:START`; `s:ID` for each of their sessions; `u:UID` for users whose environments are closed
 * to it, which is so for all others even to root; and `end`.
 *
 * The mark in the environment finds roots; the rest are their children, and whoever is in a session that one of them
 * leads, or led. Start times keep a process number that was given out again apart. NULs fall out when a shell reads an
 * environment: after a mark comes a letter then, or `;` from here, but never a digit of a longer mark. Whoever has no
 * parent among them comes first: a hook whose child is ended before it would take that for an answer, and go on.
 */
const FIND_AND_SIGNAL = `
sig=$1 mark=$2 tail=$3; shift 3
known=" $* " list= ours=' ' leads=' ' alive=' 0 1 ' closed=' '
for one in $known; do case $one in s:*) leads="$leads\${one#s:} " ;; esac; done
cd /proc || exit 1
for pid in [0-9]*; do
  case $pid in 1 | $$) continue ;; esac
  stat=
  { while IFS= read -r line; do stat=$stat$line; done; } 2>/dev/null <$pid/stat
  set -- \${stat##*")"}
  case \${20-} in '') continue ;; esac
  case $1 in Z | X) continue ;; esac
  list="$list $pid:$2:$4:\${20}" alive="$alive$pid "
  found= open=
  {
    open=1
    while IFS= read -r line || case $line in '') false ;; esac; do
      case "$line;" in *"SIDEHOOK_STEP=$mark"$tail) found=1; break ;; esac
    done
  } 2>/dev/null <$pid/environ
  case $open in '')
    { while read -r field uid rest; do
      case $field in Uid:) case $closed in *" $uid "*) ;; *) closed="$closed$uid " ;; esac; break ;; esac
    done; } 2>/dev/null <$pid/status ;;
  esac
  case "$found$known" in 1* | *" $pid:\${20} "*) ours="$ours$pid " ;; esac
done
more=1
while case $more in '') false ;; esac; do
  more=
  for one in $list; do
    pid=\${one%%:*} rest=\${one#*:}
    parent=\${rest%%:*} rest=\${rest#*:}
    session=\${rest%%:*} mine=
    case $ours in *" $pid "*) mine=1 ;; *" $parent "*) mine=2 ;; esac
    case "$mine$leads" in [12]*) ;; *" $session "*) mine=2 ;; esac
    case $mine in '') continue ;; 2) ours="$ours$pid " more=1 ;; esac
    case $leads in *" $session "*) continue ;; esac
    case $alive in *" $session "*) case $ours in *" $session "*) ;; *) continue ;; esac ;; esac
    leads="$leads$session " more=1
  done
done
for depth in 0 1; do
  for one in $list; do
    pid=\${one%%:*} start=\${one##*:} parent=\${one#*:} child=0
    case $ours in *" $pid "*) ;; *) continue ;; esac
    case $ours in *" \${parent%%:*} "*) child=1 ;; esac
    case $child in $depth) ;; *) continue ;; esac
    echo "$pid:$start"
    case "$sig$known" in TERM*" $pid:$start "*) ;; *) kill -s "$sig" "$pid" 2>/dev/null ;; esac
  done
done
for one in $leads; do echo "s:$one"; done
for one in $closed; do echo "u:$one"; done
echo end
`;

const TERM_MS = 10_000;
const KILL_MS = 10_000;
const PASS_MS = 20_000;
const MOST_USERS = 16;
const MOST_BYTES = 1024 * 1024;

/**
 * Ends them: TERM once, KILL after 10 s. Resolves to why that could not be done, undefined when nothing of them is left.
 * Has deadlines of its own, so that it outlives the abort it mostly comes from. A container that does not run is done.
 */
export async function endMarked(api: Api, container: string, quarry: Quarry): Promise<string | undefined> {
  const began = performance.now();
  const known = new Set<string>();
  try {
    for (let pauseMs = 50; ; pauseMs = Math.min(pauseMs * 2, 1_000)) {
      const spentMs = performance.now() - began;
      const left = await findAndSignal(api, container, quarry, spentMs < TERM_MS ? 'TERM' : 'KILL', known);
      if (left.length === 0) return undefined;
      if (spentMs > TERM_MS + KILL_MS) return `${left.length} of its processes survive even KILL`;
      await sleep(pauseMs);
    }
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error;
    return whyUnreachable(api, container, quarry, error);
  }
}

/** One pass, as root and as every user whose processes root may not look into. Returns who was alive, and notes them. */
async function findAndSignal(
  api: Api,
  container: string,
  { mark, match }: Quarry,
  name: 'TERM' | 'KILL',
  known: Set<string>,
): Promise<readonly string[]> {
  const alive = new Set<string>();
  const users = new Set(['0']);
  for (const user of users) {
    const tail = match === 'exact' ? '[!0-9]*' : '*';
    const argv = ['sh', '-c', FIND_AND_SIGNAL, 'sidehook', name, mark, tail, ...known];
    for (const word of await runForWords(api, { container, argv, user })) {
      if (/^u:\d+$/.test(word) && users.size < MOST_USERS) users.add(word.slice('u:'.length));
      else if (/^\d+:\d+$/.test(word)) alive.add(word);
      if (/^(s|\d+):\d+$/.test(word)) known.add(word);
    }
  }
  return [...alive];
}

type Errand = { readonly container: string; readonly argv: readonly string[]; readonly user: string };

async function runForWords(api: Api, { container, argv, user }: Errand): Promise<readonly string[]> {
  const doing = 'look for what a hook left running';
  const life = new AbortController();
  const signal = AbortSignal.any([life.signal, AbortSignal.timeout(PASS_MS)]);
  let text = '';
  try {
    const { id, stream } = await startExec(api, { doing, container, argv, user }, signal, signal);
    const reading = readFrames(stream, async ({ stream: name, bytes }) => {
      if (name === 'out' && text.length < MOST_BYTES) text += Buffer.from(bytes).toString();
      // The engine itself is late to say so where what a hook left keeps its output open.
      if (text.endsWith('end\n')) life.abort();
    });
    await reading.catch((error: unknown) => {
      if (!life.signal.aborted) throw error;
    });
    if (text.endsWith('end\n')) return text.split('\n').slice(0, -2);
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
