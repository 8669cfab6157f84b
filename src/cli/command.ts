import { type StdioOptions, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { constants } from 'node:os';
import { formatDuration } from '../core/duration.ts';
import type { PosixSignal } from './edge.ts';

/** From TERM to KILL. */
const GRACE_MS = 10_000;

/** Where the child finds the lease: as high as the sh client's, out of the way of what scripts open. */
const LEASE_FD = 8;

/** The client's command, and what may end it. */
export type Command = {
  readonly argv: readonly [string, ...string[]];
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly timeoutMs: number | undefined;
  /** Inherited, so that the lease lasts as long as whoever reads the data. */
  readonly lease: Socket | undefined;
  /** Its abort ends the command, TERM and after 10 s KILL. */
  readonly signal: AbortSignal;
  /** Hands over what passes a signal on to the command. */
  readonly onStarted: (pass: (name: PosixSignal) => void) => void;
};

/** How it ended. */
export type CommandEnd = {
  readonly exitCode: number;
  /** What became of it, after its name: `exited 3`. Undefined when all went well. */
  readonly what?: string;
  /** It was we who ended it, because the signal aborted. */
  readonly isCut?: true;
};

/**
 * Runs the client's command on our own standard streams and waits for it. Never rejects.
 * `timeoutMs` is for the command itself, as with timeout(1) in the foreground: what it left running is not sought.
 */
export function runCommand({ argv, env, timeoutMs, lease, signal, onStarted }: Command): Promise<CommandEnd> {
  return new Promise((resolve) => {
    const [program, ...args] = argv;
    const stdio: StdioOptions = ['inherit', 'inherit', 'inherit'];
    if (lease !== undefined) {
      while (stdio.length < LEASE_FD) stdio.push('ignore');
      stdio.push(lease);
    }
    const child = spawn(program, args, { stdio, env: { ...env } });
    const timers: NodeJS.Timeout[] = [];
    let isTimedOut = false;
    let isCut = false;

    const end = (): void => {
      child.kill('SIGTERM');
      timers.push(setTimeout(() => child.kill('SIGKILL'), GRACE_MS));
    };
    if (timeoutMs !== undefined) {
      const onTime = (): void => {
        isTimedOut = true;
        end();
      };
      timers.push(setTimeout(onTime, timeoutMs));
    }
    const cut = (): void => {
      isCut = true;
      end();
    };
    signal.addEventListener('abort', cut);
    if (signal.aborted) cut();
    onStarted((name) => {
      if (!comesFromTerminal(name)) child.kill(name);
    });

    child.once('error', (error: NodeJS.ErrnoException) => settle(endOfError(error)));
    child.once('exit', (code, name) => {
      if (isTimedOut) settle({ exitCode: 124, what: `ran out of time (${formatDuration(timeoutMs ?? 0)})` });
      else if (name !== null) settle({ exitCode: 128 + constants.signals[name], what: `was ended by ${name}` });
      else if (code === null || code === 0) settle({ exitCode: 0 });
      else settle({ exitCode: code, what: `exited ${code}` });
    });

    function settle(ended: CommandEnd): void {
      for (const timer of timers) clearTimeout(timer);
      signal.removeEventListener('abort', cut);
      resolve(isCut ? { ...ended, isCut } : ended);
    }
  });
}

function endOfError({ code, message }: NodeJS.ErrnoException): CommandEnd {
  if (code === 'ENOENT') return { exitCode: 127, what: 'was not found' };
  return { exitCode: 126, what: `could not be executed: ${code === 'EACCES' ? 'permission denied' : message}` };
}

/** A terminal sends these to its whole foreground group: the command has it already, and would get it twice. */
function comesFromTerminal(name: PosixSignal): boolean {
  if (name === 'SIGTERM') return false;
  try {
    const stat = readFileSync('/proc/self/stat', 'utf8');
    const [, , group, , , foreground] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return group === foreground;
  } catch {
    return false;
  }
}
