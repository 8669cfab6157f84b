/** Ends what runs in a container that has no shell, where we can see its processes: on the host, or with `pid: host`. */
import { readdir, readFile, readlink } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';

type Process = { readonly pid: number; readonly parent: number; readonly session: number; readonly start: string };

const TERM_MS = 10_000;
const KILL_MS = 10_000;

/**
 * Ends every process of other process namespaces whose environment has an entry that `isMarked` accepts, with its
 * children and sessions: TERM once, KILL after 10 s. Resolves to how many it found, and how many are left.
 */
export async function endSeenFromHere(
  isMarked: (entry: string) => boolean,
): Promise<{ readonly found: number; readonly left: number }> {
  const began = performance.now();
  const signalled = new Map<string, Process>();
  const killed = new Set<string>();
  for (let pauseMs = 50; ; pauseMs = Math.min(pauseMs * 2, 1_000)) {
    const spentMs = performance.now() - began;
    const alive = await findMarked(isMarked, signalled);
    if (alive.length === 0 || spentMs > TERM_MS + KILL_MS) return { found: signalled.size, left: alive.length };
    for (const one of alive) {
      const identity = identityOf(one);
      if (spentMs > TERM_MS && !killed.has(identity)) send(one, 'SIGKILL');
      else if (!signalled.has(identity)) send(one, 'SIGTERM');
      if (spentMs > TERM_MS) killed.add(identity);
      signalled.set(identity, one);
    }
    await sleep(pauseMs);
  }
}

function identityOf({ pid, start }: Process): string {
  return `${pid}:${start}`;
}

function send({ pid }: Process, name: 'SIGTERM' | 'SIGKILL'): void {
  try {
    process.kill(pid, name);
  } catch {
    // gone already, or not ours to end: the next pass tells
  }
}

/** Roots first: a hook whose child is ended before it would take that for an answer, and go on. */
async function findMarked(
  isMarked: (entry: string) => boolean,
  known: ReadonlyMap<string, Process>,
): Promise<readonly Process[]> {
  const ownNamespace = await readlink('/proc/self/ns/pid');
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const all = (await Promise.all(pids.map(readProcess))).filter((one) => one !== undefined);
  const ours = new Map<number, Process>();
  for (const one of all) {
    const isElsewhere = (await readlink(`/proc/${one.pid}/ns/pid`).catch(() => ownNamespace)) !== ownNamespace;
    if (!isElsewhere) continue;
    const environment = await readFile(`/proc/${one.pid}/environ`, 'latin1').catch(() => '');
    if (known.has(identityOf(one)) || environment.split('\0').some(isMarked)) ours.set(one.pid, one);
  }
  const sessions = new Set([...known.values()].filter(({ pid, session }) => pid === session).map(({ pid }) => pid));
  for (let size = -1; size < ours.size; ) {
    size = ours.size;
    for (const { pid, session } of ours.values()) if (pid === session) sessions.add(session);
    for (const one of all) if (ours.has(one.parent) || sessions.has(one.session)) ours.set(one.pid, one);
  }
  return [...ours.values()].toSorted((a, b) => Number(ours.has(a.parent)) - Number(ours.has(b.parent)));
}

/** Undefined for one that has ended. Its name, in parentheses, may hold anything. */
async function readProcess(pid: number): Promise<Process | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'latin1').catch(() => '');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [state, parent, , session] = fields;
  const start = fields[19];
  if (start === undefined || state === 'Z' || state === 'X') return undefined;
  return { pid, parent: Number(parent), session: Number(session), start };
}
