import type { Clock } from '../core/ports.ts';

/** Lets waiters look again when something may have changed. */
export type Pulse = {
  beat(): void;
  /** Resolves at the next beat; rejects with the signal's reason. */
  next(signal: AbortSignal): Promise<void>;
};

export function makePulse(): Pulse {
  let { promise, resolve } = Promise.withResolvers<void>();
  return {
    beat() {
      resolve();
      ({ promise, resolve } = Promise.withResolvers<void>());
    },
    next: (signal) => withSignal(promise, signal),
  };
}

/** Resolves at the next beat, or when the time is over, whichever comes first; rejects with the signal's reason. */
export async function nextWithin(pulse: Pulse, ms: number, clock: Clock, signal: AbortSignal): Promise<void> {
  const over = new AbortController();
  const either = AbortSignal.any([signal, over.signal]);
  const ways = [pulse.next(either), clock.sleep(ms, either)];
  try {
    await Promise.race(ways);
  } finally {
    over.abort();
    await Promise.allSettled(ways);
  }
}

/** The promise, or the signal's reason, whichever comes first; leaves no listener behind. */
function withSignal<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  if (signal.aborted) return Promise.reject(signal.reason);
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  return Promise.race([promise, aborted]).finally(() => signal.removeEventListener('abort', onAbort));
}
