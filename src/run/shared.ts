import type { Delivery, Lease } from '../core/ports.ts';
import type { Answer } from '../core/result.ts';
import { type Lock, makeLock, makeTurnstile } from './lock.ts';
import { makePulse, type Pulse } from './pulse.ts';
import type { ReleaseEdges } from './release.ts';
import type { Tools } from './tools.ts';

/** The watch over one run. */
export type Guard = {
  readonly stop: AbortController;
  readonly lease: Lease | undefined;
  /** By the monotonic clock: when it has held for long enough, whatever its client says; infinite where it holds nothing. */
  readonly releaseMs: number;
};

/** What all runs of this process have in common. */
export type Shared = {
  readonly tools: Tools;
  /** One at a time at each workload, and at each run. */
  readonly workloadLock: Lock;
  readonly runLock: Lock;
  readonly turnstile: ReleaseEdges['turnstile'];
  /** Beats when the engine says that something changed. */
  readonly engine: Pulse;
  /** Beats when a run ended: those that wait for their turn look again. */
  readonly turn: Pulse;
  /** Ends the watch over a run's lease. */
  readonly guards: Map<string, Guard>;
  /** Cuts short the `pre` of a run that is not open yet. */
  readonly cuts: Map<string, (why: Error) => void>;
  /** The same request, come again while it is under way, gets the same answer. */
  readonly underWay: Map<string, Promise<Answer>>;
  /** Runs that have let go of a shared hold (`RUN KEY`), which the journal may not say yet. */
  readonly left: Set<string>;
  /** Runs that are being unwound: once each, whoever asks. */
  readonly unwindings: Map<string, Promise<Answer>>;
  /** No new work, and no waiting for health: the sidecar was told to end. */
  readonly stopping: AbortController;
  /** Unwinding outlives `stopping`; this ends it, too. What is cut off goes on at the next start. */
  readonly ending: AbortController;
  /** Takes work that nobody waits for; a bug in it ends the process, as anywhere. */
  readonly inBackground: (work: Promise<unknown>) => void;
  readonly background: Set<Promise<unknown>>;
};

/** Starts at once four at a time: more gain nothing (docs/performance.md). */
const STARTS_AT_ONCE = 4;

export function makeShared(tools: Tools, onBug: (error: unknown) => void): Shared {
  const background = new Set<Promise<unknown>>();
  const ending = new AbortController();
  return {
    tools,
    workloadLock: makeLock(),
    runLock: makeLock(),
    turnstile: makeTurnstile(STARTS_AT_ONCE),
    engine: makePulse(),
    turn: makePulse(),
    guards: new Map(),
    cuts: new Map(),
    underWay: new Map(),
    left: new Set(),
    unwindings: new Map(),
    stopping: new AbortController(),
    ending,
    background,
    inBackground(work) {
      const watched = work
        .catch((error) => {
          if (!ending.signal.aborted) onBug(error);
        })
        .finally(() => background.delete(watched));
      background.add(watched);
    },
  };
}

/** What unwinding needs, with somebody, or nobody, to hear the hooks. */
export function edgesOf(shared: Shared, output: Delivery['output'], onAway: (why: string) => void = () => undefined) {
  return {
    output,
    onAway,
    signal: shared.ending.signal,
    haste: shared.stopping.signal,
    lock: shared.workloadLock,
    turnstile: shared.turnstile,
    pulse: shared.engine,
    left: shared.left,
  };
}

/** For a run whose client is gone: the log has its hooks' output. */
export const toNobody: Delivery['output'] = () => Promise.resolve();
