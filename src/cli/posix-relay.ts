import { type Edge, listenTo, type PosixSignal, type Voice } from './edge.ts';

/** Where POSIX signals go: they cut `pre` short, are kept while there is no command yet, and then are passed on. */
export type PosixRelay = Disposable & {
  /** Aborts at the first that comes before `pass` was called. */
  readonly early: AbortSignal;
  /** The first that came. */
  told(): PosixSignal | undefined;
  /** From now on there is a run: what comes goes there, or nowhere. */
  pass(to: ((name: PosixSignal) => void) | undefined): void;
};

/** Listens until it is disposed. */
export function relayPosix({ posix }: Edge): PosixRelay {
  const early = new AbortController();
  let told: PosixSignal | undefined;
  let isEarly = true;
  let passTo: ((name: PosixSignal) => void) | undefined;
  const listening = listenTo(posix, (name) => {
    told ??= name;
    if (isEarly) early.abort(new Error(`received ${name}`));
    passTo?.(name);
  });
  return {
    early: early.signal,
    told: () => told,
    pass(to) {
      isEarly = false;
      passTo = to;
    },
    [Symbol.dispose]: () => listening[Symbol.dispose](),
  };
}

/** While `post` runs: the first signal is answered with words, since nobody gains by leaving now; the second leaves. */
export function waitOut(
  { posix }: Edge,
  voice: Voice,
): Disposable & { readonly signal: AbortSignal; told(): PosixSignal } {
  const leaving = new AbortController();
  let last: PosixSignal = 'SIGTERM';
  let count = 0;
  const listening = listenTo(posix, (name) => {
    last = name;
    count += 1;
    if (count > 1) leaving.abort(new Error(`received ${name}`));
    else void voice.say(`received ${name}: waiting for the hooks after the command; once more to leave without them`);
  });
  return { signal: leaving.signal, told: () => last, [Symbol.dispose]: () => listening[Symbol.dispose]() };
}
