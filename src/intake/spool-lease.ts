import { close, constants, open, read } from 'node:fs';
import { Socket } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { Clock, Log } from '../core/ports.ts';
import { type Folder, isCode, messageOf, pinned, readBounded, UnfitError } from './spool-folder.ts';

const openFile = promisify(open);
const closeFile = promisify(close);
const readFile = promisify(read);

/** What a lease is read with. */
export type LeaseParts = {
  readonly folder: () => Folder;
  readonly ttlMs: number;
  readonly clock: Clock;
  readonly log: Log;
};

/** A counter's largest text, in bytes. */
const LARGEST_COUNT = 64;

/** How long a client that writes into its own lease is left to itself: its FIFO fills up, and it costs us nothing. */
const DEAF_MS = 1000;

/** How long to wait after a trouble that says nothing about the client: no descriptors left, an I/O error. */
const RETRY_MS = 1000;

/**
 * Resolves once the client is known to be dead. Its lease `SENDER.life` is a FIFO that it holds open, of which the
 * kernel tells us the end; or, where there are none, a file in which it counts.
 * Rejects only with the signal's reason.
 */
export async function leaseLost(sender: string, parts: LeaseParts, signal: AbortSignal): Promise<void> {
  const name = `${sender}.life`;
  for (;;) {
    signal.throwIfAborted();
    try {
      const fd = await openLife(parts.folder(), name);
      if (fd === undefined) return;
      if (fd === 'counter') return await counterStopped(name, parts, signal);
      return await endOfFifo(fd, signal);
    } catch (error) {
      signal.throwIfAborted();
      if (isCode(error, 'EACCES')) {
        parts.log.warn('the lease of a client cannot be read, so it counts as lost', { sender, why: messageOf(error) });
        return;
      }
      parts.log.warn('the lease of a client cannot be read yet', { sender, why: messageOf(error) });
      await parts.clock.sleep(RETRY_MS, signal);
    }
  }
}

/**
 * One look at a lease, without waiting: `alive`, `dead`, or `count:TEXT` of a counter, which lives if the next look
 * gives another text.
 */
export async function lookAtLease(sender: string, folder: Folder): Promise<string> {
  const name = `${sender}.life`;
  try {
    const fd = await openLife(folder, name);
    if (fd === undefined) return 'dead';
    if (fd === 'counter') return `count:${await countOf(folder, name)}`;
    await closeFile(fd);
    return 'alive';
  } catch (error) {
    return isCode(error, 'EACCES', 'ENOENT') || error instanceof UnfitError ? 'dead' : 'alive';
  }
}

/** Undefined: it is gone, nobody holds it, or it is nothing that can be a lease. */
async function openLife(folder: Folder, name: string): Promise<number | 'counter' | undefined> {
  try {
    const { O_RDONLY, O_NONBLOCK } = constants;
    const fd = await pinned(folder, name, 'fifo', (path) => openFile(path, O_RDONLY | O_NONBLOCK));
    // Asked by hand first: poll does not tell of the end of a FIFO whose writers left before it was opened.
    if (await hasWriter(fd)) return fd;
    await closeFile(fd);
    return undefined;
  } catch (error) {
    if (isCode(error, 'ENOENT')) return undefined;
    if (!(error instanceof UnfitError)) throw error;
  }
  try {
    await readBounded(folder, name, LARGEST_COUNT);
    return 'counter';
  } catch (error) {
    if (isCode(error, 'ENOENT') || error instanceof UnfitError) return undefined;
    throw error;
  }
}

async function hasWriter(fd: number): Promise<boolean> {
  try {
    const { bytesRead } = await readFile(fd, Buffer.alloc(1), 0, 1, null);
    return bytesRead > 0;
  } catch (error) {
    if (isCode(error, 'EAGAIN')) return true;
    await closeFile(fd);
    throw error;
  }
}

/** Takes the descriptor over. */
async function endOfFifo(fd: number, signal: AbortSignal): Promise<void> {
  const fifo = new Socket({ fd, readable: true, writable: false });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const abort = () => reject(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  fifo.on('data', () => {
    fifo.pause();
    void pause(DEAF_MS, undefined, { ref: false }).then(() => fifo.resume());
  });
  fifo.on('end', resolve).on('close', resolve).on('error', reject);
  try {
    await promise;
  } finally {
    signal.removeEventListener('abort', abort);
    fifo.destroy();
  }
}

async function countOf(folder: Folder, name: string): Promise<string> {
  return (await readBounded(folder, name, LARGEST_COUNT)).toString('latin1');
}

/**
 * Any change is life; time stamps are not asked. When we were away ourselves for longer than a look takes (a stall, a
 * suspended machine), the term begins anew.
 */
async function counterStopped(name: string, { folder, ttlMs, clock }: LeaseParts, signal: AbortSignal): Promise<void> {
  const everyMs = Math.max(10, Math.min(5000, ttlMs / 6));
  let count: string | undefined;
  let sinceMs = clock.monotonicMs();
  for (let lookedMs = sinceMs; ; ) {
    const nowMs = clock.monotonicMs();
    const isStalled = nowMs - lookedMs > 2 * everyMs + 1000;
    lookedMs = nowMs;
    try {
      const seen = await countOf(folder(), name);
      if (seen !== count || isStalled) sinceMs = nowMs;
      count = seen;
    } catch (error) {
      if (isCode(error, 'ENOENT') || error instanceof UnfitError) return;
      if (isStalled) sinceMs = nowMs; // an unreadable moment says nothing; the term goes on
    }
    if (nowMs - sinceMs >= ttlMs) return;
    await clock.sleep(everyMs, signal);
  }
}
