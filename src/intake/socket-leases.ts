import { addAbortListener } from 'node:events';
import type { Clock, Lease } from '../core/ports.ts';

/** Leases of which we still know how they ended; older ones are forgotten, and run out once more if asked about. */
const MOST_ENDED = 4096;

/** One connection that proves a client's life. */
export interface Attachment {
  /** It was closed: after its answer (`done`), or it broke (`broken`) because the client died. Once. */
  detach(how: 'done' | 'broken'): void;
}

/** All leases that clients hold through one socket, each known by its ref. */
export interface Leases extends Disposable {
  /** A connection that is open for as long as one request lasts. */
  attach(ref: string): Attachment;
  /** A connection that is nothing but the lease; `onAbandoned` is told, also at once, when the run was given up. */
  keep(ref: string, onAbandoned: (why: string) => void): Attachment;
  /** The lease itself, whoever is connected. */
  lease(ref: string): Lease;
}

type Entry = {
  attached: number;
  /** A connection that is nothing but the lease was there once: when the last goes, the client is dead. */
  kept: boolean;
  readonly waiters: Set<() => void>;
  readonly listeners: Set<(why: string) => void>;
  /** Ends the term that runs while nobody is connected. */
  term?: AbortController | undefined;
};

/**
 * Opens the book of leases. A client lives while a connection of its does. With none it is dead at once if one broke,
 * or was there for the lease alone; else (it was only answered, or we have just started) when nobody came for `ttlMs`.
 * Disposed, it calls nobody dead any more: connections that we close ourselves prove nothing.
 */
export function openLeases({ ttlMs, clock }: { readonly ttlMs: number; readonly clock: Clock }): Leases {
  const entries = new Map<string, Entry>();
  const ended = new Map<string, { readonly lost: boolean; readonly why: string }>();
  let disposed = false;

  function entryOf(ref: string): Entry {
    const known = entries.get(ref);
    if (known !== undefined) return known;
    const entry: Entry = { attached: 0, kept: false, waiters: new Set(), listeners: new Set() };
    entries.set(ref, entry);
    return entry;
  }

  function attach(ref: string): Attachment {
    const entry = entryOf(ref);
    entry.attached += 1;
    settle(ref, entry);
    let detached = false;
    return {
      detach(how) {
        if (detached) return;
        detached = true;
        entry.attached -= 1;
        if (entry.attached === 0 && !disposed && (how === 'broken' || entry.kept)) lose(ref, entry);
        settle(ref, entry);
      },
    };
  }

  function lose(ref: string, entry: Entry): void {
    end(ref, { lost: true, why: 'the lease was lost' });
    for (const tell of [...entry.waiters]) tell();
  }

  function end(ref: string, how: { readonly lost: boolean; readonly why: string }): void {
    const oldest = ended.size < MOST_ENDED ? undefined : ended.keys().next().value;
    if (oldest !== undefined) ended.delete(oldest);
    ended.set(ref, how);
  }

  /** Runs the term while someone waits and nobody is connected, and forgets what nobody asks about. */
  function settle(ref: string, entry: Entry): void {
    const isRunning = !disposed && entry.attached === 0 && entry.waiters.size > 0;
    if (!isRunning) {
      entry.term?.abort();
      entry.term = undefined;
    } else if (entry.term === undefined) {
      entry.term = new AbortController();
      void runOut(entry.term.signal).then((isOver) => isOver && lose(ref, entry));
    }
    if (entry.attached === 0 && entry.waiters.size === 0 && entries.get(ref) === entry) entries.delete(ref);
  }

  /** Waits in slices: after a stall of our own, clients could not come either, and the term begins anew. */
  async function runOut(signal: AbortSignal): Promise<boolean> {
    const sliceMs = Math.max(1, ttlMs / 20);
    for (let leftMs = ttlMs; leftMs > 0; ) {
      const began = clock.monotonicMs();
      try {
        await clock.sleep(Math.min(sliceMs, leftMs), signal);
      } catch (error) {
        if (signal.aborted) return false;
        throw error;
      }
      const passedMs = clock.monotonicMs() - began;
      leftMs = passedMs > 3 * sliceMs + 1_000 ? ttlMs : leftMs - passedMs;
    }
    return !signal.aborted;
  }

  return {
    attach(ref) {
      ended.delete(ref); // somebody lives who says that it is his; what his run is by now, the daemon knows
      return attach(ref);
    },
    keep(ref, onAbandoned) {
      const attachment = attach(ref);
      const entry = entryOf(ref);
      entry.kept = true;
      entry.listeners.add(onAbandoned);
      const past = ended.get(ref);
      if (past !== undefined) onAbandoned(past.why);
      return {
        detach(how) {
          entry.listeners.delete(onAbandoned);
          attachment.detach(how);
        },
      };
    },
    lease(ref) {
      return {
        ref,
        isHeld: async () => (entries.get(ref)?.attached ?? 0) > 0,
        abandon(why) {
          end(ref, { lost: ended.get(ref)?.lost ?? false, why });
          for (const tell of [...(entries.get(ref)?.listeners ?? [])]) tell(why);
        },
        lost(signal) {
          if (signal.aborted) return Promise.reject(signal.reason);
          if (ended.get(ref)?.lost === true) return Promise.resolve();
          return new Promise((resolve, reject) => {
            const entry = entryOf(ref);
            const listening = addAbortListener(signal, () => leave(() => reject(signal.reason)));
            entry.waiters.add(tell);
            settle(ref, entry);

            function tell(): void {
              leave(resolve);
            }
            function leave(how: () => void): void {
              listening[Symbol.dispose]();
              entry.waiters.delete(tell);
              settle(ref, entry);
              how();
            }
          });
        },
      };
    },
    [Symbol.dispose]() {
      disposed = true;
      for (const [ref, entry] of entries) settle(ref, entry);
    },
  };
}
