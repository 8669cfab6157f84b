/** Lets one at a time in, per key, in the order of asking. */
export type Lock = <T>(key: string, work: () => Promise<T>) => Promise<T>;

export function makeLock(): Lock {
  const tails = new Map<string, Promise<unknown>>();
  return async (key, work) => {
    const before = tails.get(key);
    const done = (before ?? Promise.resolve()).then(work);
    const tail = done.catch(() => undefined);
    tails.set(key, tail);
    try {
      return await done;
    } finally {
      if (tails.get(key) === tail) tails.delete(key);
    }
  };
}

/** Lets `places` in at a time, whoever they are. */
export function makeTurnstile(places: number): <T>(work: () => Promise<T>) => Promise<T> {
  const waiting: (() => void)[] = [];
  let free = places;
  return async (work) => {
    if (free === 0) await new Promise<void>((resolve) => waiting.push(resolve));
    else free -= 1;
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      if (next === undefined) free += 1;
      else next();
    }
  };
}
