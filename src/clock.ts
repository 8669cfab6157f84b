import { setTimeout as sleep } from 'node:timers/promises';
import type { Clock } from './core/ports.ts';

/** Timers take 32 bits: some 24 days. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** The real time. */
export const systemClock: Clock = {
  monotonicMs: () => performance.now(),
  now: () => new Date().toISOString(),
  async sleep(ms, signal) {
    const until = performance.now() + ms;
    for (let left = ms; left > 0; left = until - performance.now()) {
      await sleep(Math.min(left, LONGEST_TIMER_MS), undefined, { signal }).catch((error) => {
        throw signal.aborted ? signal.reason : error;
      });
    }
    signal.throwIfAborted();
  },
  deadline: (ms) => AbortSignal.timeout(Math.min(ms, LONGEST_TIMER_MS)),
};
