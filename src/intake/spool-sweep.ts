import { lstat } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import type { Clock, Log } from '../core/ports.ts';
import { type Folder, listNames, messageOf, remove, unless } from './spool-folder.ts';
import { lookAtLease } from './spool-lease.ts';
import { NO_FIFO } from './spool-tree.ts';
import { parseName, senderOf } from './spool-wire.ts';

/** How long the files of a client that is dead stay to be read. */
const KEPT_MS = 60 * 60 * 1000;
const SWEEP_EVERY_MS = 5 * 60 * 1000;

/** How many answers there are at most, and how many bytes of output; beyond, the oldest answers go. */
const MOST_ANSWERS = 5000;
const MOST_BYTES = 1024 * 1024 * 1024;

/** How many clients one sweep remembers; those beyond it have their turn later. */
const MOST_SENDERS = 20_000;

/** Keeps the spool from growing. */
export type Sweeper = {
  /** Takes room for output; false when there is none. */
  claim(bytes: number): boolean;
  /** An answer is there to be read: from now on it may be removed. */
  answered(id: string): Promise<void>;
  /** Removes what dead clients left over an hour ago. Never rejects. */
  sweep(): Promise<void>;
  /** Sweeps every now and then until the signal aborts. */
  run(signal: AbortSignal): Promise<void>;
};

/** What is swept. `isOpen` protects the clients whose requests are being answered. */
export type SweeperOptions = {
  readonly inbox: () => Folder;
  readonly outbox: () => Folder;
  readonly isOpen: (sender: string) => boolean;
  readonly clock: Clock;
  readonly log: Log;
};

type Seen = { readonly life: string; readonly sinceMs: number };

/** Time stamps are not asked: a term begins when a client is first seen to be dead, anew after each start. */
export function openSweeper({ inbox, outbox, isOpen, clock, log }: SweeperOptions): Sweeper {
  const answers = new Set<string>();
  let seen = new Map<string, Seen>();
  let bytes = 0;

  /** The bytes that there are less of. */
  async function discard(folder: Folder, name: string): Promise<number> {
    try {
      const size = await sizeOf(folder, name);
      await remove(folder, name);
      return size;
    } catch (error) {
      log.warn('a file in the spool cannot be removed', { file: name, why: messageOf(error) });
      return 0;
    }
  }

  async function lookAt(sender: string): Promise<Seen> {
    const life = isOpen(sender) ? 'alive' : await lookAtLease(sender, inbox());
    const before = seen.get(sender);
    const nowMs = clock.monotonicMs();
    return life !== 'alive' && before?.life === life ? before : { life, sinceMs: nowMs };
  }

  async function sweep(): Promise<void> {
    const next = new Map<string, Seen>();
    let total = 0;
    try {
      for (const folder of [inbox(), outbox()]) {
        for await (const name of listNames(folder)) {
          if (name === NO_FIFO || parseName(name)?.stage === 'req') continue;
          const sender = senderOf(name);
          const known = next.get(sender) ?? (next.size < MOST_SENDERS ? await lookAt(sender) : undefined);
          if (known === undefined) continue;
          next.set(sender, known);
          if (known.life !== 'alive' && clock.monotonicMs() - known.sinceMs >= KEPT_MS) {
            await discard(folder, name);
            answers.delete(name.slice(0, -'.ans'.length));
          } else if (folder === outbox()) {
            total += await sizeOf(folder, name);
            if (name.endsWith('.ans') && answers.size < MOST_SENDERS) answers.add(name.slice(0, -'.ans'.length));
          }
        }
      }
      bytes = total;
    } catch (error) {
      log.warn('the spool cannot be swept', { why: messageOf(error) });
    }
    seen = next;
  }

  return {
    claim(wanted) {
      if (bytes + wanted > MOST_BYTES) return false;
      bytes += wanted;
      return true;
    },
    async answered(id) {
      answers.delete(id);
      answers.add(id);
      for (const oldest of answers) {
        if (oldest === id || (answers.size <= MOST_ANSWERS && bytes <= MOST_BYTES / 2)) break;
        answers.delete(oldest);
        for (const ending of ['ans', 'out', 'err', 'beat']) bytes -= await discard(outbox(), `${oldest}.${ending}`);
      }
    },
    sweep,
    async run(signal) {
      while (!signal.aborted) {
        await sweep();
        await pause(SWEEP_EVERY_MS, undefined, { signal, ref: false }).catch(() => undefined);
      }
    },
  };
}

async function sizeOf(folder: Folder, name: string): Promise<number> {
  return (await lstat(folder.path(name)).catch(unless('ENOENT')))?.size ?? 0;
}
