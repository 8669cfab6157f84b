import { randomBytes } from 'node:crypto';
import { type BigIntStats, constants, type Stats } from 'node:fs';
import { type FileHandle, lstat, mkdir, open, opendir, rename, rm, rmdir, statfs, unlink } from 'node:fs/promises';

/** Linux: names an inode without opening it, so that a device or a FIFO feels nothing. Node does not export it. */
const O_PATH = 0o10000000;

const { O_RDONLY, O_WRONLY, O_CREAT, O_EXCL, O_APPEND, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_NOCTTY } = constants;

/** Who may use what we make; undefined: whoever we are. */
export type Owner = { readonly uid: number; readonly gid: number };

/** How one directory is to be found. `mode` and `owner` are set by handle, never by a path that others can swap. */
export type Access = { readonly mode: number; readonly owner?: Owner };

/**
 * One directory, held by its handle. Clients can swap any path on a shared volume for another one, symlinks included,
 * at any time; a handle stays what it is. Names are single components.
 */
export type Folder = {
  /** The path of a name in it, by way of the handle. Its last component is still the client's to swap. */
  path(name: string): string;
  /** The directory itself. */
  readonly self: string;
  /** Whether that name in `parent` still leads to it: nobody removed it, or put something else in its place. */
  isAt(parent: Folder, name: string): Promise<boolean>;
  /** What could not be set as it was asked for, and why. */
  readonly complaint?: string;
  [Symbol.asyncDispose](): Promise<void>;
};

/** It is not what it should be: a symlink, a device, a directory; `message` says what, and what was expected. */
export class UnfitError extends Error {
  override readonly name = 'UnfitError';
}

/** Opens the directory that the operator named, and makes it where it is missing. */
export async function openTop(path: string, access: Access): Promise<Folder> {
  await mkdir(path, { recursive: true });
  return await makeFolder(await open(path, O_RDONLY | O_DIRECTORY), access);
}

/**
 * Opens a directory in a folder, and makes it where it is missing. What is no directory is put aside, since everything
 * there is ours to name.
 */
export async function openInside(parent: Folder, name: string, access: Access): Promise<Folder> {
  for (let attempt = 1; ; attempt += 1) {
    await mkdir(parent.path(name), 0o700).catch(unless('EEXIST'));
    try {
      const handle = await open(parent.path(name), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK);
      return await makeFolder(handle, access);
    } catch (error) {
      if (attempt === 5 || !isCode(error, 'ENOTDIR', 'ELOOP', 'ENOENT')) throw error;
      await putAside(parent, name);
    }
  }
}

async function makeFolder(handle: FileHandle, { mode, owner }: Access): Promise<Folder> {
  let complaint: string | undefined;
  try {
    const stat = await handle.stat();
    const isOwned = owner === undefined || (stat.uid === owner.uid && stat.gid === owner.gid);
    if (!isOwned) await handle.chown(owner.uid, owner.gid);
    if (!isOwned || (stat.mode & 0o7777) !== mode) await handle.chmod(mode);
  } catch (error) {
    complaint = messageOf(error); // not ours to change: it may do as it is
  }
  return folderOf(handle, complaint);
}

function folderOf(handle: FileHandle, complaint?: string): Folder {
  const self = `/proc/self/fd/${handle.fd}`;
  let own: BigIntStats | undefined;
  return {
    self,
    path: (name) => `${self}/${name}`,
    async isAt(parent, name) {
      own ??= await handle.stat({ bigint: true }); // while we hold it, no other one can have its number
      const there = await lstat(parent.path(name), { bigint: true }).catch(unless('ENOENT', 'ENOTDIR'));
      return there?.ino === own.ino && there.dev === own.dev;
    },
    ...(complaint === undefined ? {} : { complaint }),
    [Symbol.asyncDispose]: () => handle.close(),
  };
}

/** Each name in turn; the directory may be larger than memory. */
export async function* listNames(folder: Folder): AsyncGenerator<string> {
  for await (const { name } of await opendir(folder.self)) yield name;
}

/**
 * Looks what a name is before it is opened, and opens the very thing that was looked at: `path` leads to it whatever
 * becomes of the name. Open it with O_NONBLOCK.
 * @throws UnfitError when it is something else
 */
export async function pinned<Value>(
  folder: Folder,
  name: string,
  kind: 'file' | 'fifo',
  use: (path: string) => Promise<Value>,
): Promise<Value> {
  await using pin = await open(folder.path(name), O_PATH | O_NOFOLLOW);
  const stat = await pin.stat();
  const isFit = kind === 'file' ? stat.isFile() : stat.isFIFO();
  if (!isFit) throw new UnfitError(`expected ${kind === 'file' ? 'a regular file' : 'a FIFO'}, got ${kindOf(stat)}`);
  // A second name may lead out of the spool, to a file that its owner never meant for us.
  if (kind === 'file' && stat.nlink > 1) throw new UnfitError('expected a regular file with one name, got a hard link');
  return await use(`/proc/self/fd/${pin.fd}`);
}

function kindOf(stat: Stats): string {
  if (stat.isFile()) return 'a regular file';
  if (stat.isDirectory()) return 'a directory';
  if (stat.isSymbolicLink()) return 'a symbolic link';
  if (stat.isFIFO()) return 'a FIFO';
  return stat.isSocket() ? 'a socket' : 'a device';
}

/**
 * The bytes of a regular file, at most `limit`; one byte more than `limit` when there are more.
 * @throws UnfitError
 */
export async function readBounded(folder: Folder, name: string, limit: number): Promise<Buffer> {
  return await pinned(folder, name, 'file', async (path) => {
    await using file = await open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    const buffer = Buffer.alloc(limit + 1);
    let length = 0;
    while (length < buffer.length) {
      const { bytesRead } = await file.read(buffer, length, buffer.length - length, length);
      if (bytesRead === 0) break;
      length += bytesRead;
    }
    return buffer.subarray(0, length);
  });
}

/** Makes a file that was not there. */
export async function createFile(folder: Folder, name: string, { mode, owner }: Access): Promise<FileHandle> {
  const file = await open(
    folder.path(name),
    O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_NOFOLLOW | O_NONBLOCK,
    mode & 0o777,
  );
  try {
    if (owner !== undefined) await file.chown(owner.uid, owner.gid).catch(unless('EPERM'));
    await file.chmod(mode); // whatever our umask is
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Opens a file of ours to append to it, and makes it where it is missing. What else has that name is removed. */
export async function appendFile(folder: Folder, name: string, access: Access): Promise<FileHandle> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await createFile(folder, name, access);
    } catch (error) {
      if (attempt === 5 || !isCode(error, 'EEXIST')) throw error;
    }
    try {
      return await pinned(folder, name, 'file', (path) => open(path, O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY));
    } catch (error) {
      if (error instanceof UnfitError) await remove(folder, name);
      else if (!isCode(error, 'ENOENT')) throw error;
    }
  }
}

/** Puts a whole file in the place of whatever has that name, at once. */
export async function replaceFile(folder: Folder, name: string, text: string, access: Access): Promise<void> {
  const temporary = `.${name}.${randomBytes(6).toString('hex')}.tmp`;
  try {
    await using file = await createFile(folder, temporary, access);
    await file.writeFile(text);
    await rename(folder.path(temporary), folder.path(name)).catch(async (error) => {
      if (!isCode(error, 'EISDIR', 'ENOTEMPTY', 'EEXIST')) throw error;
      await putAside(folder, name); // a directory
      await rename(folder.path(temporary), folder.path(name));
    });
  } catch (error) {
    await remove(folder, temporary).catch(() => undefined);
    throw error;
  }
}

/** Removes a name, whatever it is, but for a directory that is not empty. */
export async function remove(folder: Folder, name: string): Promise<void> {
  try {
    await unlink(folder.path(name));
  } catch (error) {
    if (isCode(error, 'EISDIR', 'EPERM')) await rmdir(folder.path(name)).catch(unless('ENOTEMPTY', 'ENOTDIR'));
    else if (!isCode(error, 'ENOENT')) throw error;
  }
}

async function putAside(parent: Folder, name: string): Promise<void> {
  const aside = `${name}.aside.${randomBytes(6).toString('hex')}`;
  await rename(parent.path(name), parent.path(aside)).catch(unless('ENOENT'));
  await rm(parent.path(aside), { force: true }).catch(() => undefined); // a directory stays for its owner to look at
}

/** File systems that other machines may write: they tell nobody of a change, and a FIFO on them joins no two kernels. */
const REMOTE = new Set([
  0x6969, 0x517b, 0xff534d42, 0xfe534d42, 0x65735546, 0x01021997, 0x00c36400, 0x5346414f, 0x01161970, 0x7461636f,
  0x0bd00bd0,
]);

/** Whether other kernels may share this directory: NFS, SMB, FUSE, 9p, Ceph, AFS, GFS2, OCFS2, Lustre. */
export async function isRemote(folder: Folder): Promise<boolean> {
  return isRemoteType((await statfs(folder.self)).type);
}

/** The same, of the type that statfs(2) gives. */
export function isRemoteType(type: number): boolean {
  return REMOTE.has(type >>> 0); // the kernel's word may come with a sign
}

/** Whether an error is one of the system's, of one of these codes. */
export function isCode(error: unknown, ...codes: string[]): boolean {
  return error instanceof Error && 'code' in error && codes.includes(String(error.code));
}

/** For `catch`: these codes are as good as success. */
export function unless(...codes: string[]): (error: unknown) => undefined {
  return (error) => {
    if (!isCode(error, ...codes)) throw error;
  };
}

/** What went wrong, in words. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
