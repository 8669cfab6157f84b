/** Time, chance and what is concurrent, all from one seed. */
import type { Clock } from '../../src/core/ports.ts';

/** Numbers that follow from a seed alone. */
export type Random = {
  /** From 0 up to, and without, `below`. */
  int(below: number): number;
  between(least: number, most: number): number;
  chance(probability: number): boolean;
  pick<Value>(values: readonly Value[]): Value;
};

/** sfc32, which passes the usual tests and costs nothing. */
export function makeRandom(seed: number): Random {
  let [a, b, c, d] = [seed | 0, 0x9e3779b9 ^ seed, 0x243f6a88, 1];
  const next = (): number => {
    const t = (a + b + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + t;
    return (t >>> 0) / 4_294_967_296;
  };
  for (let warm = 0; warm < 12; warm += 1) next();
  const int = (below: number): number => Math.floor(next() * below);
  return {
    int,
    between: (least, most) => least + int(most - least + 1),
    chance: (probability) => next() < probability,
    pick: (values) => values[int(values.length)] as never,
  };
}

type Event = { readonly at: number; readonly tie: number; run: (() => void) | undefined };

/** A clock that only goes on when nothing is left to do, and a dice for who goes first. */
export type World = {
  readonly random: Random;
  now(): number;
  /** Calls `run` after that many milliseconds; what is due at the same time comes in any order. The result calls it off. */
  after(ms: number, run: () => void): () => void;
  /** Resolves after that many milliseconds; rejects with the signal's reason when it aborts. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /** Goes on until nothing is left to do, or `isOver`, or the time is up. Resolves to the number of events. */
  run(isOver: () => boolean, untilMs: number): Promise<number>;
};

export function makeWorld(random: Random): World {
  const heap: Event[] = [];
  let now = 0;
  const isBefore = (one: Event, other: Event): boolean =>
    one.at < other.at || (one.at === other.at && one.tie < other.tie);
  const push = (event: Event): void => {
    let index = heap.push(event) - 1;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      const above = heap[parent] as Event;
      if (!isBefore(event, above)) break;
      heap[index] = above;
      index = parent;
    }
    heap[index] = event;
  };
  const pop = (): Event | undefined => {
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined || first === last) return first;
    let index = 0;
    for (;;) {
      let child = 2 * index + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1] as Event, heap[child] as Event)) child += 1;
      if (!isBefore(heap[child] as Event, last)) break;
      heap[index] = heap[child] as Event;
      index = child;
    }
    heap[index] = last;
    return first;
  };
  const after: World['after'] = (ms, run) => {
    const event: Event = { at: now + Math.max(0, ms), tie: random.int(1_000_000_000), run };
    push(event);
    return () => {
      event.run = undefined;
    };
  };
  return {
    random,
    after,
    now: () => now,
    sleep: (ms, signal) =>
      new Promise((resolve, reject) => {
        if (signal?.aborted === true) return reject(signal.reason);
        const onAbort = (): void => {
          callOff();
          reject(signal?.reason);
        };
        const callOff = after(ms, () => {
          signal?.removeEventListener('abort', onAbort);
          resolve();
        });
        signal?.addEventListener('abort', onAbort, { once: true });
      }),
    async run(isOver, untilMs) {
      let events = 0;
      await settled();
      for (let event = pop(); event !== undefined; event = pop()) {
        if (event.run === undefined) continue;
        if (event.at > untilMs) {
          push(event);
          break;
        }
        now = event.at;
        event.run();
        events += 1;
        await settled();
        if (isOver()) break;
      }
      now = Math.max(now, isOver() ? now : untilMs);
      return events;
    },
  };
}

/** Every promise that can go on has gone on. */
function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** The clock that the sidecar sees; its wall can be moved. */
export function clockOf(world: World, wall: { offsetMs: number }): Clock {
  return {
    monotonicMs: world.now,
    now: () => new Date(Date.UTC(2026, 0, 1) + world.now() + wall.offsetMs).toISOString(),
    sleep: world.sleep,
    deadline(ms) {
      const controller = new AbortController();
      world.after(ms, () => controller.abort(new DOMException('deadline passed', 'TimeoutError')));
      return controller.signal;
    },
  };
}
