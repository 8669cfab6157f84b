import { setTimeout as pause } from 'node:timers/promises';

type Truthy<Value> = Exclude<Value, false | undefined | null | '' | 0>;

export type Patience = {
  /** What is waited for, for the message: `container db to stop`. */
  readonly what: string;
  readonly signal?: AbortSignal;
  readonly deadlineMs?: number;
  readonly everyMs?: number;
};

/**
 * Waits until `condition` gives something truthy, and resolves to that. What the condition throws is thrown on at once.
 * @throws when the deadline (a minute by default, for a busy machine) passes, also while the condition hangs
 */
export async function until<Value>(
  condition: (signal: AbortSignal) => Value | Promise<Value>,
  { what, signal, deadlineMs = 60_000, everyMs = 50 }: Patience,
): Promise<Truthy<Value>> {
  const deadline = AbortSignal.timeout(deadlineMs);
  const ended = AbortSignal.any(signal ? [signal, deadline] : [deadline]);
  const { promise: end, reject } = Promise.withResolvers<never>();
  const onEnd = () =>
    reject(deadline.aborted ? new Error(`wait for ${what}: not so after ${deadlineMs} ms`) : ended.reason);
  ended.addEventListener('abort', onEnd);
  end.catch(() => undefined); // nobody may be waiting when it comes
  try {
    ended.throwIfAborted();
    for (;;) {
      const value = await Promise.race([condition(ended), end]);
      if (value) return value as Truthy<Value>;
      await Promise.race([pause(everyMs), end]);
    }
  } finally {
    ended.removeEventListener('abort', onEnd);
  }
}
