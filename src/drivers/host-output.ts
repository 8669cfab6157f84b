import type { Readable } from 'node:stream';
import type { Output, Sink } from '../core/ports.ts';

/** What a hook prints on one stream, on its way to the sink. */
export type Forwarding = {
  /** Resolves when everything was handed on and nobody holds the other end any more. */
  readonly ended: Promise<void>;
  /** For how long nothing came and nothing is under way; 0 while the sink has not taken the last. */
  idleMs(): number;
  /** How many bytes were read so far. */
  bytes(): number;
  /** Hands on no more. Whatever still holds the other end may go on writing: it is read, and dropped. */
  letGo(): void;
};

/** A background child may keep the output open; what the hook itself wrote is read well before this. */
const QUIET_MS = 100;
const TURN_MS = 25;
const MOST_TURNS = 40;
const LATE_MS = 1_000;

/** More than a pipe can hold at its largest: what comes after so much, the hook did not write. */
const MOST_AFTER_EXIT = 1024 * 1024 + 65_536;

/** Hands a stream on to a sink, read no faster than the sink takes it. */
export function forward(reader: Readable & { unref?(): unknown }, stream: Output['stream'], sink: Sink): Forwarding {
  const { promise: ended, resolve: end } = Promise.withResolvers<void>();
  let pending = Promise.resolve();
  let isPending = false;
  let lastMs = performance.now();
  let bytes = 0;

  const take = (chunk: Buffer): void => {
    reader.pause();
    isPending = true;
    bytes += chunk.length;
    pending = sink({ stream, bytes: chunk }).then(() => {
      isPending = false;
      lastMs = performance.now();
      reader.resume();
    });
  };
  reader.on('data', take);
  reader.once('close', () => void pending.then(end));
  return {
    ended,
    idleMs: () => (isPending ? 0 : performance.now() - lastMs),
    bytes: () => bytes,
    letGo() {
      reader.off('data', take);
      reader.resume();
      reader.unref?.();
    },
  };
}

/** Waits, after a hook's exit, until what it wrote has been handed on; a background child is not waited for. */
export async function drain(forwardings: readonly Forwarding[], signal: AbortSignal): Promise<void> {
  const total = () => forwardings.reduce((sum, one) => sum + one.bytes(), 0);
  const atExit = total();
  const exitMs = performance.now();
  let isEnded = false;
  const ended = Promise.all(forwardings.map((one) => one.ended)).then(() => {
    isEnded = true;
  });
  for (let turns = 0; !isEnded; ) {
    let timer: NodeJS.Timeout | undefined; // cheaper than an AbortController, and a hook mostly needs one turn
    await Promise.race([ended, new Promise((resolve) => (timer = setTimeout(resolve, TURN_MS)))]);
    clearTimeout(timer);
    if (isEnded) return;
    const idleMs = Math.min(performance.now() - exitMs, ...forwardings.map((one) => one.idleMs()));
    if (idleMs > 0) turns += 1; // a turn that the sink had us wait for does not count
    const isLate = signal.aborted && performance.now() - exitMs >= LATE_MS; // nobody waits for a stuck sink
    if (idleMs >= QUIET_MS || turns >= MOST_TURNS || isLate || total() - atExit > MOST_AFTER_EXIT) break;
  }
  for (const one of forwardings) one.letGo();
}
