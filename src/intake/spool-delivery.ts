import { randomUUID } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import type { Log, Output } from '../core/ports.ts';
import type { Answer } from '../core/result.ts';
import { openBell, ringOnce } from './spool-bell.ts';
import { type Access, appendFile, type Folder, messageOf, remove, replaceFile } from './spool-folder.ts';
import { formatAnswer } from './spool-wire.ts';

/** What one stream of one request may measure. */
export const LARGEST_OUTPUT = 64 * 1024 * 1024;

/** How often a client without a bell is shown that we live. */
const BEAT_EVERY_MS = 2000;

/** After a full disk: the first pause, which doubles up to the longest. */
const RETRY_MS = 500;
const LONGEST_RETRY_MS = 15_000;

/** Where replies are written, and how much room there is for output. */
export type ReplyParts = {
  readonly inbox: () => Folder;
  readonly outbox: () => Folder;
  readonly access: Access;
  /** Takes that many bytes of the room that all output shares; false when there is none left. */
  readonly claim: (bytes: number) => boolean;
  readonly log: Log;
};

/** The way back to one request. Nothing here rejects, whatever the client or the disk does. */
export type Reply = {
  output(output: Output): Promise<void>;
  /** Resolves after the first attempt; goes on behind it while the disk is full. */
  answer(answer: Answer): Promise<void>;
  /** Gives up what is open; the request stays to be found by the next sidecar unless it was answered. */
  close(): Promise<void>;
};

type Stream = { file?: FileHandle; bytes: number; isCut: boolean };

/** `onAnswered` is told once the answer is there to be read. */
export function makeReply(id: string, sender: string, parts: ReplyParts, onAnswered: () => void): Reply {
  const { inbox, outbox, access, log } = parts;
  const bell = openBell(sender, inbox);
  const streams: Record<Output['stream'], Stream> = {
    out: { bytes: 0, isCut: false },
    err: { bytes: 0, isCut: false },
  };
  const closing = new AbortController();
  const pulse = closing.signal;
  let queue: Promise<unknown> = bell.ready;
  let isAnswered = false;

  void bell.ready.then((isThere) => (isThere ? undefined : beat(id, parts, pulse)));

  async function write(stream: Stream, { stream: name, bytes }: Output): Promise<void> {
    if (stream.isCut) return;
    try {
      if (stream.file === undefined) {
        stream.file = await appendFile(outbox(), `${id}.${name}`, access);
        stream.bytes = (await stream.file.stat()).size;
      }
      const part = bytes.subarray(0, Math.max(0, LARGEST_OUTPUT - stream.bytes));
      const hasRoom = parts.claim(part.length);
      if (hasRoom) await stream.file.appendFile(part);
      stream.bytes += part.length;
      if (hasRoom && part.length === bytes.length) return;
      stream.isCut = true;
      await stream.file.appendFile(`\nsidehook: the output of ${id} is cut here: there is no more room for it\n`);
      log.warn('output cut: no more room for it', { request: id, stream: name });
    } catch (error) {
      stream.isCut = true;
      log.warn('output cut: it cannot be written', { request: id, stream: name, why: messageOf(error) });
    }
  }

  async function tryAnswer(text: string): Promise<boolean> {
    try {
      await replaceFile(outbox(), `${id}.ans`, text, access);
    } catch (error) {
      log.error('an answer cannot be written yet', { request: id, why: messageOf(error) });
      return false;
    }
    bell.ring();
    await remove(inbox(), `${id}.got`).catch((error) => {
      log.warn('a request that is answered cannot be removed', { request: id, why: messageOf(error) });
    });
    await close();
    onAnswered();
    return true;
  }

  async function keepTrying(text: string): Promise<void> {
    for (let ms = RETRY_MS; !pulse.aborted; ms = Math.min(2 * ms, LONGEST_RETRY_MS)) {
      await pause(ms, undefined, { ref: false, signal: pulse }).catch(() => undefined);
      if (pulse.aborted || (await tryAnswer(text))) return;
    }
  }

  async function close(): Promise<void> {
    closing.abort();
    await Promise.all([bell.close(), closeStreams()].map(quietly));
  }

  async function closeStreams(): Promise<void> {
    for (const stream of Object.values(streams)) {
      const { file } = stream;
      delete stream.file;
      await file?.close();
    }
  }

  return {
    output(output) {
      if (isAnswered || output.bytes.length === 0) return Promise.resolve();
      const written = queue.then(() => write(streams[output.stream], output)).then(() => bell.ring());
      queue = written;
      return written;
    },
    async answer(answer) {
      if (isAnswered) return;
      isAnswered = true;
      await queue;
      const cut = Object.entries(streams).filter(([, { isCut }]) => isCut);
      const notes = [...answer.notes, ...cut.map(([name]) => `the hooks' output (${name}) was cut: no room for it`)];
      const text = formatAnswer({ ...answer, notes });
      await quietly(closeStreams()); // of a file that is removed to make room, nothing is freed while it is open
      if (!(await tryAnswer(text))) void keepTrying(text);
    },
    async close() {
      isAnswered = true;
      await queue;
      await close();
    },
  };
}

/** `ID.beat`: another text every now and then while we live, for clients without a bell. */
async function beat(id: string, { outbox, access, log }: ReplyParts, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      await replaceFile(outbox(), `${id}.beat`, `${randomUUID()}\n`, access);
    } catch (error) {
      log.debug('a sign of life cannot be written', { request: id, why: messageOf(error) });
    }
    await pause(BEAT_EVERY_MS, undefined, { ref: false, signal }).catch(() => undefined);
  }
  await quietly(remove(outbox(), `${id}.beat`));
}

async function quietly(work: Promise<unknown> | undefined): Promise<void> {
  await work?.catch(() => undefined);
}

/** Leaves word that a run was given up, and rings: a client whose command is a restore's then ends it. */
export async function tellGone(sender: string, why: string, parts: ReplyParts): Promise<void> {
  try {
    await replaceFile(parts.outbox(), `${sender}.gone`, `${why}\n`, parts.access);
    await ringOnce(sender, parts.inbox);
  } catch (error) {
    parts.log.warn('a client cannot be told that its run was given up', { sender, why: messageOf(error) });
  }
}
