import { closeSync, constants, openSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A pipe to read what a hook prints. */
export type Pipe = {
  /** The hook's end: to be closed here as soon as the hook has it. */
  readonly writeEnd: number;
  /** Our end; it ends when the last one that holds the other has closed it. */
  readonly reader: Socket;
};

/** Makes pipes, as many as asked; undefined where the system has no place for them. */
export type PipeMaker = (count: number) => Promise<readonly Pipe[] | undefined>;

const BATCH = 16;
const { O_RDONLY, O_WRONLY, O_NONBLOCK, O_NOFOLLOW } = constants;
const O_PATH = 0o10_000_000; // no constant of Node's: names a file without opening it

/** Where a FIFO may be born: a read-only root file system has at least the shared memory's. */
const BIRTHPLACES = [tmpdir(), '/dev/shm'];

/**
 * Node connects a child with socket pairs, and a socket cannot be opened anew: `echo oops >/dev/stderr`, a common line
 * in hooks, would fail. Real pipes are FIFOs without a name, each made once and used again after its last writer is gone.
 * `makeFifos` makes FIFOs at these paths, for all users, since a hook may run as another one.
 */
export function openPipes(makeFifos: (paths: readonly string[]) => Promise<void>): PipeMaker {
  const idle: number[] = [];
  let isPossible = true;
  let filling: Promise<void> | undefined; // those who come meanwhile wait for the same

  const fill = async (): Promise<void> => {
    for (const place of BIRTHPLACES) {
      const directory = await mkdtemp(join(place, 'sidehook-')).catch(() => undefined);
      if (directory === undefined) continue;
      try {
        const paths = Array.from({ length: BATCH }, (_, index) => join(directory, String(index)));
        await makeFifos(paths);
        for (const path of paths) idle.push(openSync(path, O_PATH | O_NOFOLLOW));
        return;
      } catch {
        // no mkfifo, or no /proc: the next place, or none
      } finally {
        await rm(directory, { recursive: true, force: true }).catch(() => undefined);
      }
    }
    isPossible = false;
  };

  const take = (): Pipe | undefined => {
    const fifo = idle.pop();
    if (fifo === undefined) return undefined;
    const path = `/proc/self/fd/${fifo}`;
    let readEnd: number | undefined;
    try {
      readEnd = openSync(path, O_RDONLY | O_NONBLOCK); // at once, though nobody writes yet
      const writeEnd = openSync(path, O_WRONLY);
      const reader = new Socket({ fd: readEnd, readable: true, writable: false });
      // An end means that no writer is left: only then may the next hook have it.
      reader.once('close', () => (reader.readableEnded ? idle.push(fifo) : closeSync(fifo)));
      reader.on('error', () => {});
      return { writeEnd, reader };
    } catch {
      if (readEnd !== undefined) closeSync(readEnd);
      closeSync(fifo);
      return undefined;
    }
  };

  return async (count) => {
    while (isPossible && idle.length < count) {
      filling ??= fill().finally(() => {
        filling = undefined;
      });
      await filling;
    }
    const pipes: Pipe[] = [];
    while (pipes.length < count) {
      const pipe = take();
      if (pipe === undefined) break;
      pipes.push(pipe);
    }
    if (pipes.length === count) return pipes;
    for (const { writeEnd, reader } of pipes) {
      closeSync(writeEnd);
      reader.destroy();
    }
    return undefined;
  };
}
