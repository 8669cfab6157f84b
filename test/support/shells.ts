/** Every shell that the client promises to work in: this machine's own, or Debian's, which is not installed. */
import { chmodSync, copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { debianSource, say, unpackedPackage } from './install.ts';
import { which } from './spool.ts';

type Shell = {
  readonly name: string;
  readonly argv: readonly [program: string, ...args: string[]];
  /** The Debian package, and where in it the program lies. */
  readonly from: readonly [name: string, path: string];
};

/** Not posh, which dies of a SIGSEGV of its own now and then when it catches a signal. */
const SHELLS: readonly Shell[] = [
  { name: 'dash', argv: ['dash'], from: ['dash', 'bin/dash'] },
  { name: 'busybox', argv: ['busybox', 'sh'], from: ['busybox-static', 'bin/busybox'] },
  { name: 'bash', argv: ['bash'], from: ['bash', 'bin/bash'] },
  { name: 'bash --posix', argv: ['bash', '--posix'], from: ['bash', 'bin/bash'] },
  { name: 'ksh93', argv: ['ksh93'], from: ['ksh93u+m', 'bin/ksh93'] },
  { name: 'mksh', argv: ['mksh'], from: ['mksh', 'bin/mksh'] },
  { name: 'zsh', argv: ['zsh'], from: ['zsh', 'bin/zsh'] },
  { name: 'yash', argv: ['yash'], from: ['yash', 'usr/bin/yash'] },
];

/** By name, as the start of a command. */
export const shells: readonly (readonly [name: string, argv: readonly string[]])[] = await findShells();

async function findShells() {
  const isDebian = await debianSource().then(
    () => true,
    () => false,
  );
  const dir = mkdtempSync(join(tmpdir(), 'shells-')); // the cache may be closed to the users that the tests become
  chmodSync(dir, 0o755);
  process.on('exit', () => rmSync(dir, { recursive: true, force: true }));
  const found: [string, readonly string[]][] = [];
  for (const { name, argv, from } of SHELLS) {
    const [program, ...args] = argv;
    const [debianPackage, path] = from;
    if ((await which(program)) !== undefined) found.push([name, argv]);
    else if (isDebian) {
      const copy = join(dir, basename(path));
      copyFileSync(join(await unpackedPackage(debianPackage), path), copy);
      found.push([name, [copy, ...args]]);
    } else say(`no ${program} here, and this is not Debian: the client is not tried in it`);
  }
  return found;
}
