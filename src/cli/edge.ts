import type { Writable } from 'node:stream';

/** What a verb has of the process: handed in by `main.ts`, which alone has the rest. */
export type Edge = {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly out: Writable;
  readonly err: Writable;
  /** Emits SIGTERM, SIGINT and SIGHUP, each by its name. */
  readonly posix: PosixSignals;
};

/** The part of `process` that tells of POSIX signals. */
export type PosixSignals = {
  on(name: PosixSignal, listener: (name: PosixSignal) => void): unknown;
  off(name: PosixSignal, listener: (name: PosixSignal) => void): unknown;
};

const POSIX_SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const;

/** A POSIX signal that asks a verb to end. */
export type PosixSignal = (typeof POSIX_SIGNALS)[number];

/** What a shell calls the end by this signal. */
export const EXIT_CODE_OF_SIGNAL: Readonly<Record<PosixSignal, number>> = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 };

/** Calls the listener for each of the three until it is disposed. */
export function listenTo(posix: PosixSignals, listener: (name: PosixSignal) => void): Disposable {
  for (const name of POSIX_SIGNALS) posix.on(name, listener);
  return {
    [Symbol.dispose]() {
      for (const name of POSIX_SIGNALS) posix.off(name, listener);
    },
  };
}

/** Turns the first signal into an abort, and leaves the second to its default: it ends the process at once. */
export function untilTold(
  posix: PosixSignals,
): Disposable & { readonly signal: AbortSignal; told(): PosixSignal | undefined } {
  const controller = new AbortController();
  let first: PosixSignal | undefined;
  const listening = listenTo(posix, (name) => {
    first = name;
    listening[Symbol.dispose]();
    controller.abort(new Error(`received ${name}`));
  });
  return { signal: controller.signal, told: () => first, [Symbol.dispose]: () => listening[Symbol.dispose]() };
}

/** Prints bytes or text as they are, no faster than they are taken. A reader that is gone misses them: no error. */
export async function print(stream: Writable, data: string | Uint8Array): Promise<void> {
  if (stream.destroyed || stream.errored) return;
  await new Promise<void>((resolve) => {
    stream.write(data, () => resolve());
  });
}

/** Standard error, shared by hooks' output and our own lines: each of ours begins on a line of its own. */
export type Voice = {
  /** Output of a hook, as it came. */
  pass(stream: 'out' | 'err', bytes: Uint8Array): Promise<void>;
  /** One line (or several) of ours: `sidehook: …`. */
  say(text: string): Promise<void>;
};

/** Makes the voice. `outputTo`: where the standard output of hooks goes. */
export function makeVoice({ out, err }: Edge, outputTo: 'out' | 'err'): Voice {
  let isAtStart = true;
  return {
    async pass(stream, bytes) {
      if (bytes.byteLength === 0) return;
      const isErr = stream === 'err' || outputTo === 'err';
      if (isErr) isAtStart = bytes.at(-1) === 0x0a;
      await print(isErr ? err : out, bytes);
    },
    async say(text) {
      const lines = text.split('\n').map((line) => `sidehook: ${line}\n`);
      const lead = isAtStart ? '' : '\n';
      isAtStart = true;
      await print(err, lead + lines.join(''));
    },
  };
}
