/** The sidecar: the real run, core and journal, in incarnations that can be killed at every call they make. */
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { OperationalError } from '../../src/core/errors.ts';
import type { Clock, Driver, Host, Intake, Journal, Log } from '../../src/core/ports.ts';
import type { RunChange } from '../../src/core/record.ts';
import type { Views } from '../../src/core/views.ts';
import { openJournal } from '../../src/journal.ts';
import { conduct } from '../../src/run/conduct.ts';
import { shutDown } from '../../src/run/control.ts';
import { recover } from '../../src/run/recover.ts';
import { makeShared, type Shared } from '../../src/run/shared.ts';
import type { RunSettings } from '../../src/run/tools.ts';
import { makeViews } from '../../src/run/views.ts';
import { watchEngine } from '../../src/run/watch.ts';

/** Where the kernel keeps files in memory, if it does: a disk has nothing to add here. */
const SHELF = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
const JOURNAL = ['journal.db', 'journal.db-wal'];

/** Directories of one process, and a journal that is new, to be copied rather than made each time. */
export function openShelf(): { readonly make: () => string; readonly remove: (path: string) => void } & Disposable {
  const path = mkdtempSync(join(SHELF, 'sidehook-simulation-'));
  const fresh = join(path, 'fresh');
  openJournal(fresh)[Symbol.dispose]();
  let made = 0;
  return {
    make() {
      made += 1;
      const dir = join(path, String(made));
      mkdirSync(dir);
      copyFileSync(join(fresh, 'journal.db'), join(dir, 'journal.db'));
      return dir;
    },
    remove: (dir) => rmSync(dir, { recursive: true }),
    [Symbol.dispose]: () => rmSync(path, { recursive: true }),
  };
}

/** As it lies there when its process is killed now: what was not committed is in no file. */
export function copyJournal(from: string, to: string): void {
  for (const name of JOURNAL) {
    rmSync(join(to, name), { force: true });
    if (existsSync(join(from, name))) copyFileSync(join(from, name), join(to, name));
  }
}

/** Thrown into the remains of an incarnation that was killed, which nobody hears. */
export class Killed extends Error {}

export type Life = {
  /** Called before and after every call that leaves the process; may kill it. */
  readonly point: (what: string, when: 'before' | 'after') => void;
  readonly isAlive: () => boolean;
  /** A run has come into this phase. */
  readonly onPhase: (phase: string) => void;
  /** Why a write of the journal fails, while it does. */
  readonly writeTrouble: () => string | undefined;
  readonly onBug: (error: unknown) => void;
  readonly log: Log;
  readonly clock: Clock;
  readonly host: Host;
  readonly driver: Driver;
  readonly settings: RunSettings;
  readonly makeRunId: () => string;
};

export type Sidecar = {
  readonly shared: Shared;
  readonly journal: Journal & Disposable;
  /** As the daemon does: puts right what was left, then takes requests. */
  serve(intake: Intake): void;
  /** TERM, also in the middle of the recovery: resolves when all is said and done. */
  terminate(): Promise<void>;
  views(): Views;
  end(): void;
};

/** One incarnation: from its start to its end, however it comes. @throws OperationalError when the journal refuses it */
export function boot(stateDir: string, life: Life): Sidecar {
  const journal = openJournal(stateDir);
  const tools = {
    host: mortal(life.host, life, ['list', 'run', 'endLeftovers']),
    driver: mortal(life.driver, life, ['look', 'inspect', 'exec', 'hold', 'release', 'endLeftovers', 'findStopping']),
    journal: mortalJournal(journal, life),
    clock: mortalClock(life),
    log: life.log,
    settings: life.settings,
    makeRunId: life.makeRunId,
  };
  const shared = makeShared(tools, (error) => {
    if (life.isAlive() && !(error instanceof Killed)) life.onBug(error);
  });
  let isEnding = false;
  return {
    shared,
    journal,
    serve(intake: Intake): void {
      shared.inBackground(watchEngine(shared));
      const recovered = recover([intake], shared);
      shared.inBackground(recovered.then(() => (isEnding ? undefined : takeAll(intake, shared))));
    },
    terminate(): Promise<void> {
      isEnding = true;
      return shutDown(shared);
    },
    views: () => makeViews(shared, { version: 'simulated', since: '' }),
    end(): void {
      shared.stopping.abort(new Killed('ended'));
      shared.ending.abort(new Killed('ended'));
      journal[Symbol.dispose]();
    },
  };
}

async function takeAll(intake: Intake, shared: Shared): Promise<void> {
  for await (const delivery of intake.deliveries(shared.stopping.signal))
    shared.inBackground(conduct(delivery, shared));
}

const NEVER = new Promise<never>(() => undefined);

/** Calls that can be the last; and in a dead process nothing goes on. */
function mortal<Port extends object>(port: Port, life: Life, names: readonly (keyof Port & string)[]): Port {
  const wrapped = { ...port };
  for (const name of names) {
    const call = port[name] as (...args: unknown[]) => Promise<unknown>;
    const mortalCall = (...args: unknown[]): Promise<unknown> => {
      life.point(name, 'before');
      if (!life.isAlive()) return NEVER;
      return new Promise((resolve, reject) => {
        const ended = (settle: () => void): void => {
          if (!life.isAlive()) return;
          life.point(name, 'after');
          if (life.isAlive()) settle();
        };
        call(...args).then(
          (value) => ended(() => resolve(value)),
          (error) => ended(() => reject(error)),
        );
      });
    };
    wrapped[name] = mortalCall as never;
  }
  return wrapped;
}

const WRITES = ['takeRequest', 'answered', 'openRun', 'changeRun', 'stepStarted', 'stepEnded', 'addHold'] as const;
const MORE_WRITES = ['joinHold', 'leaveHold', 'changeHold'] as const;

function mortalJournal(journal: Journal, life: Life): Journal {
  const dies = (what: string, when: 'before' | 'after'): void => {
    life.point(what, when);
    if (!life.isAlive()) throw new Killed(what);
  };
  const wrapped: Record<string, unknown> = {};
  for (const [name, call] of Object.entries(journal) as [string, (...args: unknown[]) => unknown][]) {
    wrapped[name] = (...args: unknown[]): unknown => {
      if (!life.isAlive()) throw new Killed(name);
      return call(...args);
    };
  }
  for (const name of [...WRITES, ...MORE_WRITES]) {
    const call = journal[name] as (...args: unknown[]) => unknown;
    wrapped[name] = (...args: unknown[]): unknown => {
      dies(name, 'before');
      const trouble = life.writeTrouble();
      if (trouble !== undefined) throw new OperationalError('internal', `write journal: ${trouble}`);
      const result = call(...args);
      const { phase } = (name === 'changeRun' ? args[1] : {}) as RunChange;
      if (phase !== undefined) life.onPhase(phase);
      dies(name, 'after');
      return result;
    };
  }
  return wrapped as unknown as Journal;
}

function mortalClock({ clock, isAlive }: Life): Clock {
  return {
    ...clock,
    sleep: (ms, signal) =>
      new Promise((resolve, reject) => {
        clock.sleep(ms, signal).then(
          () => isAlive() && resolve(),
          (error) => isAlive() && reject(error),
        );
      }),
  };
}
