import type { Clock } from '../../src/core/ports.ts';

/** A clock that jumps to the next sleeper whenever nothing else is left to do: hours pass in no time, in order. */
export function makeVirtualClock(): Clock & { readonly sleepers: () => number } {
  const sleepers: { readonly at: number; readonly wake: () => void }[] = [];
  let now = 0;
  let isPumping = false;
  const pump = (): void => {
    if (isPumping) return;
    isPumping = true;
    // Two turns of the loop: every promise that can go on has gone on by then.
    setImmediate(() =>
      setImmediate(() => {
        isPumping = false;
        const next = sleepers.toSorted((a, b) => a.at - b.at)[0];
        if (next === undefined) return;
        sleepers.splice(sleepers.indexOf(next), 1);
        now = Math.max(now, next.at);
        next.wake();
        if (sleepers.length > 0) pump();
      }),
    );
  };
  const wakeAt = (at: number, wake: () => void): (() => void) => {
    const sleeper = { at, wake };
    sleepers.push(sleeper);
    pump();
    return () => {
      const index = sleepers.indexOf(sleeper);
      if (index >= 0) sleepers.splice(index, 1);
    };
  };
  return {
    sleepers: () => sleepers.length,
    monotonicMs: () => now,
    now: () => new Date(Date.UTC(2026, 0, 1) + now).toISOString(),
    sleep: (ms, signal) =>
      new Promise((resolve, reject) => {
        if (signal.aborted) return reject(signal.reason);
        const forget = wakeAt(now + ms, () => {
          signal.removeEventListener('abort', onAbort);
          resolve();
        });
        const onAbort = (): void => {
          forget();
          reject(signal.reason);
        };
        signal.addEventListener('abort', onAbort, { once: true });
      }),
    deadline(ms) {
      const controller = new AbortController();
      wakeAt(now + ms, () => controller.abort(new DOMException('deadline passed', 'TimeoutError')));
      return controller.signal;
    },
  };
}
