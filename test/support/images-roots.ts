/** Root file systems for images, from Debian's packages. */
import { chmod, copyFile, mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { execa } from 'execa';
import { cacheDir, debianSource, installPackages, unpackedPackage, withLock } from './install.ts';

/** Puts an image's files into an empty folder. */
export type FillRoot = (root: string) => Promise<void>;

const SUITE = 'bookworm';

/** Static busybox with all its commands, and the users that one finds everywhere; `user` is 1000. */
export async function busyboxRoot(root: string, user = 'app'): Promise<void> {
  const busybox = join(await unpackedPackage('busybox-static'), 'bin/busybox');
  const script = `
    mkdir -p bin dev etc home/$2 proc root run sbin sys tmp usr/bin usr/local/bin usr/sbin var/lib
    chmod 1777 tmp
    chown 1000:1000 "home/$2" 2>/dev/null || true
    cp "$1" bin/busybox
    bin/busybox --list-full | while read -r path; do [ -e "$path" ] || ln bin/busybox "$path"; done
    printf '%s\\n' root:x:0:0::/root:/bin/sh "$2:x:1000:1000::/home/$2:/bin/sh" nobody:x:65534:65534::/:/bin/false >etc/passwd
    printf '%s\\n' root:x:0: "$2:x:1000:" nogroup:x:65534: >etc/group`;
  await execa('sh', ['-euc', script, 'sh', busybox, user], { cwd: root });
}

/** Adds a program of this machine with the libraries that it needs. */
export async function addProgram(root: string, program: string, target: string): Promise<void> {
  await mkdir(dirname(join(root, target)), { recursive: true });
  await copyFile(program, join(root, target));
  await chmod(join(root, target), 0o755);
  const { stdout, failed } = await execa('ldd', [program], { reject: false });
  if (failed) return; // a static program
  const libraries = stdout.match(/\/\S+(?= \(0x)/g) ?? [];
  await execa('cp', ['--dereference', '--parents', ...libraries, root]);
}

type Content = string | { readonly copyOf: string };

/** Writes a file, or copies one of this folder, a program then. */
export async function addFile(root: string, path: string, content: Content): Promise<void> {
  const target = join(root, path);
  await mkdir(dirname(target), { recursive: true });
  if (typeof content === 'string') return writeFile(target, content);
  await copyFile(join(import.meta.dirname, content.copyOf), target);
  await chmod(target, 0o755);
}

/** A minimal Debian; unpacked from the cache after the first time. */
export async function debianRoot(root: string): Promise<void> {
  const archive = join(await cacheDir('roots'), `${SUITE}.tar`);
  await withLock(`root-${SUITE}`, async () => {
    const { failed } = await execa('test', ['-e', archive], { reject: false });
    if (failed) await bootstrap(archive);
  });
  await execa('tar', ['--extract', '--file', archive, '--directory', root]);
}

async function bootstrap(archive: string): Promise<void> {
  if ((await execa('wget', ['--version'], { reject: false })).failed) await installPackages('wget');
  const { uri, signedBy } = await debianSource();
  const files = await unpackedPackage('debootstrap');
  const script = `
    trap 'rm -rf "$1.root"' EXIT
    rm -rf "$1.root"
    "$2/usr/sbin/debootstrap" --variant=minbase $4 ${SUITE} "$1.root" "$3" >&2
    cd "$1.root"
    echo 'force-unsafe-io' >etc/dpkg/dpkg.cfg.d/test
    printf '%s\\n' 'path-exclude /usr/share/'{doc,man,locale,info}'/*' >>etc/dpkg/dpkg.cfg.d/test
    printf '#!/bin/sh\\nexit 101\\n' >usr/sbin/policy-rc.d
    chmod +x usr/sbin/policy-rc.d
    rm -rf usr/share/{doc,man,locale,info}/* var/cache/apt/* var/lib/apt/lists/* dev/*
    tar --create --numeric-owner --file "$1.draft" .
    mv "$1.draft" "$1"`;
  const keyring = signedBy?.startsWith('/') ? `--keyring=${signedBy}` : '';
  await execa('bash', ['-euc', script, 'bash', archive, files, uri, keyring], {
    env: { DEBOOTSTRAP_DIR: join(files, 'usr/share/debootstrap') },
    timeout: 10 * 60_000,
  });
}

/** Installs packages into a Debian root. */
export async function addDebianPackages(root: string, names: readonly string[]): Promise<void> {
  await copyFile('/etc/resolv.conf', join(root, 'etc/resolv.conf'));
  const options = '-qq -o Acquire::http::Timeout=60 -o Acquire::Retries=1 -o APT::Sandbox::User=root';
  await runInRoot(
    root,
    `export DEBIAN_FRONTEND=noninteractive
    apt-get ${options} update
    apt-get ${options} install --yes --no-install-recommends ${names.join(' ')}
    rm -rf /var/cache/apt/* /var/lib/apt/lists/* /etc/resolv.conf`,
  );
}

/** Runs a script in a root, on this machine's network, in mount and process namespaces that go with it. */
export async function runInRoot(root: string, script: string): Promise<void> {
  const inRoot =
    'mount -t proc proc "$1/proc" && mount -t tmpfs tmpfs "$1/dev" && mknod -m 666 "$1/dev/null" c 1 3 && exec chroot "$1" sh -euc "$2"';
  const args = ['--mount', '--pid', '--fork', '--kill-child', 'sh', '-euc', inRoot, 'sh', root, script];
  await execa('unshare', args, { timeout: 10 * 60_000, env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' } });
}
