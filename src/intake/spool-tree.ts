import { lstat } from 'node:fs/promises';
import type { Log } from '../core/ports.ts';
import {
  type Access,
  createFile,
  type Folder,
  isRemote,
  type Owner,
  openInside,
  openTop,
  remove,
  replaceFile,
  unless,
} from './spool-folder.ts';

/** What may be done where: by the group that the operator lets signal, and by all if run.mode lets all. */
export type TreeOptions = {
  readonly runDir: string;
  readonly mode: number;
  readonly owner?: Owner;
  readonly clientScript: string;
  readonly log: Log;
};

/** The directories of one spool, as they are now. */
export type Tree = {
  inbox(): Folder;
  outbox(): Folder;
  /** For files of ours in `outbox`. */
  readonly fileAccess: Access;
  /** Whether other kernels may share it, so that nothing but polling works. */
  readonly isRemote: boolean;
  /**
   * Makes anew what someone removed or swapped, and publishes the client again where it is gone.
   * True when the directories are other ones than before.
   */
  repair(): Promise<boolean>;
  [Symbol.asyncDispose](): Promise<void>;
};

type Folders = { readonly spool: Folder; readonly inbox: Folder; readonly outbox: Folder };

/** On a file system that other kernels share: tells clients to poll, and to count. */
export const NO_FIFO = 'no-fifo';

/** Makes RUN_DIR, spool/in and spool/out, and publishes the client. */
export async function openTree(options: TreeOptions): Promise<Tree> {
  const { log, mode, owner } = options;
  const own = owner === undefined ? {} : { owner };
  const forAll = mode & 0o007;
  await using stack = new AsyncDisposableStack();
  const top = stack.use(await openTop(options.runDir, { mode, ...own }));
  const remote = await isRemote(top);
  if (top.complaint !== undefined) log.warn('run.dir keeps its mode and owner', { why: top.complaint });
  const fileAccess = { mode: forAll === 0 ? 0o640 : 0o644, ...own };

  async function openFolders(): Promise<Folders> {
    await using half = new AsyncDisposableStack();
    const spool = half.use(await openInside(top, 'spool', { mode: forAll === 0 ? 0o2750 : 0o2755, ...own }));
    const inbox = half.use(await openInside(spool, 'in', { mode: forAll === 0 ? 0o3730 : 0o3733, ...own }));
    const outbox = half.use(await openInside(spool, 'out', { mode: forAll === 0 ? 0o2750 : 0o2755, ...own }));
    const complaint = spool.complaint ?? inbox.complaint ?? outbox.complaint;
    if (complaint !== undefined) log.warn('the spool keeps its modes and owners', { why: complaint });
    await remove(outbox, NO_FIFO);
    if (remote) await (await createFile(outbox, NO_FIFO, fileAccess)).close();
    half.move();
    return { spool, inbox, outbox };
  }

  async function publish(): Promise<void> {
    await replaceFile(top, 'sidehook', options.clientScript, { mode: 0o755, ...own });
  }

  let now = await openFolders();
  let retired: Folders | undefined;
  await publish();
  stack.defer(async () => {
    for (const folders of [now, retired]) await closeAll(folders);
  });
  const whole = stack.move();

  return {
    inbox: () => now.inbox,
    outbox: () => now.outbox,
    fileAccess,
    isRemote: remote,
    async repair() {
      // What was opened by an old path may still be under way when it is swapped; by the next repair it is not.
      await closeAll(retired);
      retired = undefined;
      if (!(await isPublished(top))) await publish();
      if (await isWhole(top, now)) return false;
      log.warn('the spool was removed or swapped, and is made anew');
      const old = now;
      now = await openFolders();
      retired = old;
      return true;
    },
    [Symbol.asyncDispose]: () => whole.disposeAsync(),
  };
}

async function isPublished(top: Folder): Promise<boolean> {
  const stat = await lstat(top.path('sidehook')).catch(unless('ENOENT'));
  return stat?.isFile() === true;
}

/** Whether the names still lead to the directories that we hold. */
async function isWhole(top: Folder, { spool, inbox, outbox }: Folders): Promise<boolean> {
  return (await spool.isAt(top, 'spool')) && (await inbox.isAt(spool, 'in')) && (await outbox.isAt(spool, 'out'));
}

async function closeAll(folders: Folders | undefined): Promise<void> {
  if (folders === undefined) return;
  for (const folder of Object.values(folders)) await folder[Symbol.asyncDispose]();
}
