import { isUtf8 } from 'node:buffer';
import { constants } from 'node:fs';
import { access, open, readdir, realpath, stat } from 'node:fs/promises';
import { join, sep } from 'node:path';
import { OperationalError } from '../core/errors.ts';
import type { HookFile, Note } from '../core/ports.ts';

/** What travels into a container goes through an exec's arguments or standard input: more than this is no script. */
const LARGEST_TEXT = 1024 * 1024;

const HEAD_LINES = 20;
const HEAD_BYTES = 16 * 1024;

/** What editors, patches and package managers leave lying about, and git's examples. */
const LEFT_OVER = /(?:~|\.bak|\.swp|\.orig|\.rej|\.sig|\.sample|\.dpkg-[^.]*|\.rpm[^.]*)$/;

/** How Kubernetes mounts a ConfigMap or a Secret: the files are symlinks through these, and are listed themselves. */
const MOUNT_MACHINERY = /^\.\.(?:data(?:_tmp)?|\d{4}_\d\d_\d\d_.*)$/;

type Listing = { readonly files: readonly HookFile[]; readonly passedOver: readonly Note[] };

type Found = { readonly file: HookFile } | { readonly passedOver: Note } | undefined;

/**
 * Lists the executables of a directory in byte order of their names, and what was passed over with its reason.
 * @throws OperationalError `refused` for what others may write, `configuration` for what cannot be read or run by us,
 * or lies in the directory that clients share
 */
export async function listHookFiles(hooksDir: string, sharedDir: string | undefined): Promise<Listing> {
  let names: Buffer[];
  try {
    await refuseWritable(hooksDir, (await stat(hooksDir)).mode);
    names = await readdir(hooksDir, { encoding: 'buffer' });
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return { files: [], passedOver: [] };
    throw unreadable(hooksDir, error);
  }
  const shared = sharedDir === undefined ? undefined : await realpath(sharedDir).catch(() => sharedDir);
  const found = await Promise.all(names.toSorted(Buffer.compare).map((name) => look(hooksDir, name, shared)));
  return {
    files: found.flatMap((one) => (one !== undefined && 'file' in one ? [one.file] : [])),
    passedOver: found.flatMap((one) => (one !== undefined && 'passedOver' in one ? [one.passedOver] : [])),
  };
}

async function look(hooksDir: string, bytes: Buffer, shared: string | undefined): Promise<Found> {
  const name = bytes.toString();
  const passOver = (why: string): Found => ({
    passedOver: `${JSON.stringify(name).slice(1, -1)}: passed over: ${why}`,
  });

  if (MOUNT_MACHINERY.test(name)) return undefined;
  if (!isUtf8(bytes)) return passOver('its name is no UTF-8');
  if (/\p{Cc}/u.test(name)) return passOver('its name has control characters');
  if (name.startsWith('.')) return passOver('hidden');
  const [ending] = LEFT_OVER.exec(name) ?? [];
  if (ending !== undefined) return passOver(`ends in ${ending}`);

  const path = join(hooksDir, name);
  try {
    const { mode, size } = await stat(path);
    const kind = mode & constants.S_IFMT;
    if (kind === constants.S_IFDIR) return passOver('a directory');
    if (kind !== constants.S_IFREG) return passOver('no regular file');
    if ((mode & 0o111) === 0) return passOver('not executable');

    await refuseWritable(path, mode);
    await refuseShared(path, shared);
    await access(path, constants.X_OK).catch((cause: unknown) => {
      throw new OperationalError('configuration', `run ${path}: not permitted to us, or its mount is noexec`, {
        cause,
      });
    });
    return { file: { name, path, ...(await readScript(path, size)) } };
  } catch (error) {
    const code = codeOf(error);
    if (code === 'ENOENT') return passOver('a symlink that leads nowhere, or it was just removed');
    if (code === 'ELOOP') return passOver('a symlink that leads to itself');
    throw unreadable(path, error);
  }
}

/** Reads what the header and a container need of it, and never more. */
async function readScript(path: string, size: number): Promise<Pick<HookFile, 'head' | 'text'>> {
  await using file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const wanted = size <= LARGEST_TEXT ? LARGEST_TEXT + 1 : HEAD_BYTES;
  const chunks: Buffer[] = [];
  let length = 0;
  while (length < wanted) {
    const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(Math.min(wanted - length, 65_536)));
    if (bytesRead === 0) break;
    chunks.push(buffer.subarray(0, bytesRead));
    length += bytesRead;
  }
  const bytes = Buffer.concat(chunks);
  const isText = isUtf8(bytes) && !bytes.includes(0);
  const head = headOf(bytes);
  if (isText && size <= LARGEST_TEXT && length <= LARGEST_TEXT) return { text: bytes.toString(), head };
  // A script may carry a binary payload, or a comment in Latin-1: its header counts all the same.
  return { head: isText || bytes.subarray(0, 2).equals(Buffer.from('#!')) ? head : '' };
}

function headOf(bytes: Buffer): string {
  const lines = bytes.subarray(0, HEAD_BYTES).toString().split('\n');
  if (bytes.length > HEAD_BYTES) lines.pop(); // it may be cut in half
  return lines.slice(0, HEAD_LINES).join('\n');
}

/** A mount that is read-only keeps everyone out, whatever the mode says. */
async function refuseWritable(path: string, mode: number): Promise<void> {
  if ((mode & constants.S_IWOTH) === 0) return;
  const isReadOnly = await access(path, constants.W_OK).then(
    () => false,
    (error: unknown) => codeOf(error) === 'EROFS',
  );
  if (isReadOnly) return;
  throw new OperationalError('refused', `${path}: writable by others, so that anyone could put a command there`);
}

async function refuseShared(path: string, shared: string | undefined): Promise<void> {
  if (shared === undefined) return;
  if (!`${await realpath(path)}`.startsWith(shared + sep)) return;
  throw new OperationalError('configuration', `${path}: lies in ${shared}, where every client can write`);
}

function unreadable(path: string, error: unknown): Error {
  if (error instanceof OperationalError) return error;
  const code = codeOf(error);
  if (code === undefined) return error as Error;
  const why = { EACCES: 'not permitted', ENOTDIR: 'not a directory' }[code] ?? (error as Error).message;
  return new OperationalError('configuration', `read ${path}: ${why}`, { cause: error });
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}
