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

/** The promise, or the signal's reason, whichever comes first; leaves no listener behind. */
function withSignal<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  if (signal.aborted) return Promise.reject(signal.reason);
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  return Promise.race([promise, aborted]).finally(() => signal.removeEventListener('abort', onAbort));
}
