import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';

/** One process as the kernel tells it; pid and start together name it for good. */
export type Process = {
  readonly pid: number;
  readonly parent: number;
  readonly group: number;
  readonly session: number;
  readonly start: string;
};

/** Whose processes are meant: a group and session by its leader, and whatever carries a mark in its environment. */
export type Kin = {
  readonly leader?: number;
  /** Whether an environment's SIDEHOOK_STEP is one of these. */
  readonly isMarked: (mark: string) => boolean;
};

const FIRST_PAUSE_MS = 10;
const LONGEST_PAUSE_MS = 200;
/** What a KILL has not ended by then is stuck in the kernel, and no waiting helps. */
const LAST_WAIT_MS = 5_000;

/**
 * Ends processes with all their descendants. TERM goes to what is there now, and not to what is born after it, which may
 * be clean-up at work; when only such is left, it is told, too. After the grace KILL, again and again until none is left.
 * What was seen once stays meant, whatever it does to its environment, parent or session.
 * Resolves to what could not be ended. Never touches this process or its ancestors.
 * @throws the signal's reason, when it aborts the waiting
 */
export async function endProcesses(kin: Kin, graceMs: number, signal?: AbortSignal): Promise<readonly Process[]> {
  const seen = new Map<number, string>();
  const told = new Map<number, string>();
  const began = performance.now();
  for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS)) {
    signal?.throwIfAborted();
    const isOver = performance.now() - began >= graceMs;
    const alive = await listKin(kin, seen);
    if (alive.length === 0) return [];
    if (performance.now() - began >= graceMs + LAST_WAIT_MS) return alive;

    const isNobodyTold = alive.every(({ pid, start }) => told.get(pid) !== start);
    for (const { pid, start } of alive) {
      seen.set(pid, start);
      if (isOver) sendSignal(pid, 'SIGKILL');
      else if (isNobodyTold) {
        sendSignal(pid, 'SIGTERM');
        told.set(pid, start);
      }
    }
    const untilKillMs = isOver ? pauseMs : Math.max(1, began + graceMs - performance.now());
    await pause(Math.min(pauseMs, untilKillMs), undefined, signal && { signal }).catch((error: unknown) => {
      throw signal?.reason ?? error;
    });
  }
}

function sendSignal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // gone already; or of another user, and then it is among what could not be ended
  }
}

async function listKin({ leader, isMarked }: Kin, seen: ReadonlyMap<number, string>): Promise<readonly Process[]> {
  const processes = await listProcesses();
  const byPid = new Map(processes.map((one) => [one.pid, one]));
  const untouchable = new Set([process.pid]);
  for (let at = byPid.get(process.pid); at !== undefined && at.parent > 0; at = byPid.get(at.parent)) {
    if (untouchable.has(at.parent)) break;
    untouchable.add(at.parent);
  }

  const kin = new Set<Process>();
  for (const one of processes) {
    if (untouchable.has(one.pid)) continue;
    const isKnown = seen.get(one.pid) === one.start || (leader !== undefined && isOf(leader, one));
    const mark = isKnown ? undefined : await markOf(one.pid);
    if (isKnown || (mark !== undefined && isMarked(mark))) kin.add(one);
  }
  for (let grown = -1; grown !== kin.size; ) {
    grown = kin.size;
    for (const one of processes) {
      const parent = byPid.get(one.parent);
      if (parent !== undefined && kin.has(parent) && !untouchable.has(one.pid)) kin.add(one);
    }
  }
  return [...kin];
}

function isOf(leader: number, { pid, group, session }: Process): boolean {
  return pid === leader || group === leader || session === leader;
}

/** All processes that are not dead yet; none where there is no /proc. */
async function listProcesses(): Promise<readonly Process[]> {
  const names = await readdir('/proc').catch(() => []);
  const processes = await Promise.all(names.filter((name) => /^\d+$/.test(name)).map(readProcess));
  return processes.filter((one) => one !== undefined);
}

async function readProcess(name: string): Promise<Process | undefined> {
  const text = await readFile(`/proc/${name}/stat`, 'latin1').catch(() => '');
  // The program's name stands in parentheses, and may itself hold spaces and parentheses.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const [state, parent, group, session] = fields;
  const start = fields[19];
  if (start === undefined || state === 'Z' || state === 'X') return undefined;
  return { pid: Number(name), parent: Number(parent), group: Number(group), session: Number(session), start };
}

async function markOf(pid: number): Promise<string | undefined> {
  const environment = await readFile(`/proc/${pid}/environ`, 'latin1').catch(() => '');
  return /(?:^|\0)SIDEHOOK_STEP=([^\0]*)/.exec(environment)?.[1];
}
