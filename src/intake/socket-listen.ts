import { constants } from 'node:fs';
import { chown, type FileHandle, lstat, open, unlink } from 'node:fs/promises';
import { createConnection, type Server } from 'node:net';
import { umask } from 'node:process';
import { OperationalError } from '../core/errors.ts';

/** Not among Node's constants: opens the name itself and nothing behind it, whatever it is. */
const O_PATH = 0o10000000;

/** How long somebody who listens may take to accept; the kernel does it for him, so this is generous. */
const PROBE_MS = 2_000;

/** Whom it is given to; undefined: as it is. */
type Owner = { readonly uid?: number; readonly gid?: number };

/** Where to listen, and who may connect. */
export type Place = {
  readonly path: string;
  readonly mode: number;
  /** Undefined: whoever we are. */
  readonly owner?: Owner;
};

/**
 * Listens on a unix socket whose directory others may write. A socket that a dead sidecar left is taken away; anything
 * else that stands there is not ours to remove. Mode by umask and owner by the inode: a path could be swapped under us.
 * @throws OperationalError `configuration`, and nothing listens
 */
export async function listenOn(server: Server, place: Place): Promise<void> {
  await removeStale(place.path);
  await bind(server, place);
  if (place.owner !== undefined) await give(place.path, place.owner);
}

async function removeStale(path: string): Promise<void> {
  const stats = await lstat(path).catch(() => undefined);
  if (stats === undefined) return;
  if (!stats.isSocket()) throw refusal(path, 'something else than a socket stands there; take it away');
  if (await isAnswered(path)) throw refusal(path, 'another sidehook, or somebody else, listens there already');
  await unlink(path).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== 'ENOENT')
      throw refusal(path, `take away the socket of a dead sidehook: ${cause.message}`, cause);
  });
}

/** Only a refused connection proves that nobody listens: a full backlog (EAGAIN) does not. */
function isAnswered(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createConnection(path);
    probe.setTimeout(PROBE_MS, () => settle(true));
    probe.once('connect', () => settle(true));
    probe.once('error', ({ code }: NodeJS.ErrnoException) => settle(code !== 'ECONNREFUSED' && code !== 'ENOENT'));
    function settle(answered: boolean): void {
      probe.destroy();
      resolve(answered);
    }
  });
}

function bind(server: Server, { path, mode }: Place): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', onError);
    const before = umask(0o777 & ~mode);
    try {
      server.listen(path, () => {
        server.off('error', onError);
        resolve();
      });
    } finally {
      umask(before); // the socket was made inside of listen()
    }
    function onError(cause: Error): void {
      reject(refusal(path, cause.message, cause));
    }
  });
}

async function give(path: string, owner: Owner): Promise<void> {
  let inode: FileHandle | undefined;
  try {
    inode = await open(path, O_PATH | constants.O_NOFOLLOW);
    const stats = await inode.stat();
    if (!stats.isSocket()) throw new Error('it was swapped for something else');
    const { uid = stats.uid, gid = stats.gid } = owner;
    if (stats.uid !== uid || stats.gid !== gid) await chown(`/proc/self/fd/${inode.fd}`, uid, gid);
  } catch (cause) {
    throw refusal(path, `give it to ${owner.uid ?? ''}:${owner.gid ?? ''}: ${(cause as Error).message}`, cause);
  } finally {
    await inode?.close();
  }
}

function refusal(path: string, why: string, cause?: unknown): OperationalError {
  return new OperationalError('configuration', `listen on ${path}: ${why}`, { cause });
}
