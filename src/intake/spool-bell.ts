import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { type Folder, listNames, pinned } from './spool-folder.ts';
import { senderOf } from './spool-wire.ts';

/** A client wakes no more often than this, however a hook chatters: each time costs it a process or two. */
const RING_EVERY_MS = 40;

/** How a client is woken. */
export type Bell = {
  /** False where the client has none, or does not listen. */
  readonly ready: Promise<boolean>;
  ring(): void;
  close(): Promise<void>;
};

/**
 * `SENDER.bell`: a FIFO on which the client waits. It says only that there is something to see. While we hold it open
 * the client knows that we live. A full FIFO is a bell that was rung.
 */
export function openBell(sender: string, inbox: () => Folder): Bell {
  let bell: FileHandle | undefined;
  let last: Promise<unknown> = Promise.resolve();
  let isDue = false;
  let isResting = false;

  function strike(): void {
    isDue = false;
    last = last.then(() => bell?.write('.\n')).catch(() => undefined);
  }

  function ring(): void {
    if (isResting) {
      isDue = true;
      return;
    }
    isResting = true;
    strike();
    void pause(RING_EVERY_MS, undefined, { ref: false }).then(() => {
      isResting = false;
      if (isDue) ring();
    });
  }

  const ready = pinned(inbox(), `${sender}.bell`, 'fifo', (path) =>
    open(path, constants.O_WRONLY | constants.O_NONBLOCK),
  ).then(
    (handle) => {
      bell = handle;
      strike(); // after our restart it may have waited for long
      return true;
    },
    () => false,
  );
  return {
    ready,
    ring,
    async close() {
      await ready;
      if (isDue) strike();
      await last;
      const handle = bell;
      bell = undefined;
      await handle?.close();
    },
  };
}

/** A bell that is rung now, and at once forgotten: for a client that waits for no answer. */
export async function ringOnce(sender: string, inbox: () => Folder): Promise<void> {
  const bell = openBell(sender, inbox);
  await bell.ready;
  bell.ring();
  await bell.close();
}

/**
 * Rings for each answer that lies in the outbox, once: a dead sidecar may have put it in place and not rung any more. For
 * nobody else: the end of a bell that was rung and forgotten is how a client learns of the sidecar's death.
 */
export async function ringForAnswers(outbox: () => Folder, inbox: () => Folder, signal: AbortSignal): Promise<void> {
  for await (const name of listNames(outbox())) {
    if (signal.aborted) return;
    if (name.endsWith('.ans')) await ringOnce(senderOf(name), inbox);
  }
}
