/** Ends a hook and all its children in a container: engines have no call for that, so a shell there does it. */
import { setTimeout as sleep } from 'node:timers/promises';

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

/** What is known of them so far: `PID:START` of each one seen, `s:ID` of their sessions. */
export type Known = Set<string>;

/** The command line of one search. */
export function searchFor({ mark, match }: Quarry, name: 'TERM' | 'KILL', known: Known): readonly string[] {
  return ['sh', '-c', FIND_AND_SIGNAL, 'sidehook', name, mark, match === 'exact' ? '[!0-9]*' : '*', ...known];
}

/** Whether a search said all that it had to say. */
export function isWholeFinding(text: string): boolean {
  return text.endsWith('end\n');
}

/** What a search printed: who was alive, and the users whose processes it could not look into. Adds to what is known. */
export function readFinding(text: string, known: Known): { readonly alive: string[]; readonly users: string[] } {
  const words = text.split('\n').slice(0, -2);
  for (const word of words) if (/^(s|\d+):\d+$/.test(word)) known.add(word);
  return {
    alive: words.filter((word) => /^\d+:\d+$/.test(word)),
    users: words.filter((word) => /^u:\d+$/.test(word)).map((word) => word.slice('u:'.length)),
  };
}

/**
 * Searches until nothing of them is left: TERM once, KILL after 10 s. Resolves to why they could not be ended, undefined
 * when all have ended. Rejects as `search` does.
 */
export async function endAll(
  search: (name: 'TERM' | 'KILL', known: Known) => Promise<readonly string[]>,
): Promise<string | undefined> {
  const began = performance.now();
  const known: Known = new Set();
  for (let pauseMs = 50; ; pauseMs = Math.min(pauseMs * 2, 1_000)) {
    const spentMs = performance.now() - began;
    const left = await search(spentMs < TERM_MS ? 'TERM' : 'KILL', known);
    if (left.length === 0) return undefined;
    if (spentMs > TERM_MS + KILL_MS) return `${left.length} of its processes survive even KILL`;
    await sleep(pauseMs);
  }
}
