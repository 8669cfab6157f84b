import { type FSWatcher, watch } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import type { Log } from '../core/ports.ts';
import { messageOf } from './spool-folder.ts';

/** How often the directory is read all the same: an event may be lost, and a network file system has none. */
const SLOW_SCAN_MS = 3000;
const FAST_SCAN_MS = 500;

/** How many names wait at once; more stay in the directory until there is room. */
const MOST_NAMES = 1000;

/** Where requests arrive. */
export type Arrivals = {
  /** Every name that may be a request, as it is seen; a name may come more than once. Ends when the signal aborts. */
  names(signal: AbortSignal): AsyncGenerator<string>;
  /** Says that something was left in the directory for which there was no room. */
  scanSoon(): void;
};

/** What it watches: `tend` comes before each scan, and says whether the directory is now another one. */
export type ArrivalsOptions = {
  readonly path: () => string;
  readonly list: () => AsyncIterable<string>;
  readonly isRequest: (name: string) => boolean;
  readonly tend: () => Promise<boolean>;
  readonly isRemote: boolean;
  readonly log: Log;
};

/** inotify where it works, and a scan every now and then always; more often where there is no inotify. */
export function openArrivals({ path, list, isRequest, tend, isRemote, log }: ArrivalsOptions): Arrivals {
  const waiting = new Set<string>();
  let scanMs = isRemote ? FAST_SCAN_MS : SLOW_SCAN_MS;
  let isScanDue = true;
  let wake: () => void = () => undefined;
  let watcher: FSWatcher | undefined;

  function scanSoon(): void {
    isScanDue = true;
    wake();
  }

  function goDeaf(why: string): void {
    if (scanMs === FAST_SCAN_MS) return;
    scanMs = FAST_SCAN_MS;
    log.warn('requests are found by polling: this file system does not tell of them', { why });
  }

  function listen(): void {
    watcher?.close();
    try {
      watcher = watch(path(), (_event, name) => {
        if (name === null || !name.endsWith('.req') || !isRequest(name)) return;
        if (waiting.size < MOST_NAMES) waiting.add(name);
        else isScanDue = true;
        wake();
      }).on('error', (error) => goDeaf(error.message));
    } catch (error) {
      goDeaf(messageOf(error));
    }
  }

  async function scan(): Promise<void> {
    isScanDue = false;
    try {
      if (await tend()) listen();
      for await (const name of list()) {
        if (!isRequest(name) || waiting.has(name)) continue;
        if (waiting.size >= MOST_NAMES) {
          isScanDue = true;
          break;
        }
        waiting.add(name);
      }
    } catch (error) {
      log.error('the spool cannot be read', { why: messageOf(error) });
    }
  }

  async function tick(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await pause(scanMs, undefined, { signal }).catch(() => undefined);
      scanSoon();
    }
  }

  return {
    scanSoon,
    async *names(signal) {
      listen(); // first: what arrives during the first scan is announced
      const onAbort = () => wake();
      signal.addEventListener('abort', onAbort);
      const ticking = tick(signal);
      try {
        while (!signal.aborted) {
          if (isScanDue) await scan();
          for (const name of waiting) {
            if (signal.aborted) return;
            waiting.delete(name);
            yield name;
          }
          const { promise, resolve } = Promise.withResolvers<void>();
          wake = resolve;
          if (waiting.size === 0 && !isScanDue && !signal.aborted) await promise;
        }
      } finally {
        signal.removeEventListener('abort', onAbort);
        watcher?.close();
        if (signal.aborted) await ticking;
      }
    },
  };
}
