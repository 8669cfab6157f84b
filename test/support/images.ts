/** Images for the tests. An engine that cannot pull gets stand-ins, made from the machine's own Debian packages. */
import { execa } from 'execa';
import { type ImageConfig, loadImage, makeImage } from './images-archive.ts';
import {
  addDebianPackages,
  addFile,
  addProgram,
  busyboxRoot,
  debianRoot,
  type FillRoot,
  runInRoot,
} from './images-roots.ts';
import { say, unpackedPackage, withLock } from './install.ts';

/** A shell and the usual commands, and nothing else: 2 MB, started in no time. User `app` is 1000. */
export const BUSYBOX = 'sidehook-test/busybox:1';
/** Debian with sh, bash, perl and python3, for hooks in these. */
export const SCRIPTING = 'sidehook-test/scripting:1';

const PULL_MS = 5 * 60_000;
const SBIN_AND_BIN = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const PG_BIN = '/usr/lib/postgresql/15/bin';

type Image = {
  /** What has the same programs, for an engine that can pull. */
  readonly pull: string;
  /** Makes the files of the stand-in; part of what its place in the cache depends on. */
  readonly fill: FillRoot;
  readonly config: ImageConfig;
};

const IMAGES = {
  [BUSYBOX]: { pull: 'busybox:1.37', fill: busyboxRoot, config: { Env: [SBIN_AND_BIN], Cmd: ['sh'] } },
  [SCRIPTING]: {
    pull: 'python:3.13-bookworm',
    fill: async (root) => {
      await debianRoot(root);
      await addDebianPackages(root, ['python3']);
    },
    config: { Env: [SBIN_AND_BIN], Cmd: ['bash'] },
  },
  'debian:bookworm-slim': {
    pull: 'debian:bookworm-slim',
    fill: debianRoot,
    config: { Env: [SBIN_AND_BIN], Cmd: ['bash'] },
  },
  // PostgreSQL 15 behind an entry point of ours, which knows the variables and folders of the real one
  'postgres:17-alpine': {
    pull: 'postgres:17-alpine',
    fill: async (root) => {
      await debianRoot(root);
      await runInRoot(root, 'groupadd --system --gid 999 postgres; useradd --system --uid 999 -g postgres postgres');
      await addFile(root, 'etc/postgresql-common/createcluster.conf', 'create_main_cluster = false\n');
      await addDebianPackages(root, ['postgresql-15']);
      await addFile(root, 'usr/local/bin/docker-entrypoint.sh', { copyOf: 'images-postgres-entrypoint.sh' });
      // Without its 130 MB of just-in-time compiler, PostgreSQL interprets, and says nothing of it
      await runInRoot(
        root,
        `rm -rf ${PG_BIN}/../lib/bitcode ${PG_BIN}/../lib/llvmjit* /usr/lib/*/libLLVM* /usr/lib/*/libz3*
        echo "listen_addresses = '*'" >>/usr/share/postgresql/15/postgresql.conf.sample
        install -d -o postgres -g postgres -m 1777 /var/lib/postgresql/data
        install -d -o postgres -g postgres -m 3777 /var/run/postgresql
        mkdir /docker-entrypoint-initdb.d`,
      );
    },
    config: {
      Env: [`${SBIN_AND_BIN}:${PG_BIN}`, 'PGDATA=/var/lib/postgresql/data', 'LANG=C.UTF-8', 'PG_MAJOR=15'],
      Entrypoint: ['docker-entrypoint.sh'],
      Cmd: ['postgres'],
      Volumes: { '/var/lib/postgresql/data': {} },
      ExposedPorts: { '5432/tcp': {} },
      StopSignal: 'SIGINT',
    },
  },
  'restic/restic:latest': {
    pull: 'restic/restic:latest',
    fill: async (root) => {
      await busyboxRoot(root);
      await addProgram(root, `${await unpackedPackage('restic', 'sid')}/usr/bin/restic`, 'usr/bin/restic');
    },
    config: { Env: [SBIN_AND_BIN], Entrypoint: ['/usr/bin/restic'] },
  },
  // Our Dockerfile's base. The engine of Debian 12 has a BuildKit too old for `--build-context`, and would want to
  // pull a newer Dockerfile frontend; but `FROM node:26-alpine` takes the image that the engine has under that name.
  'node:26-alpine': {
    pull: 'node:26-alpine',
    fill: async (root) => {
      await busyboxRoot(root, 'node');
      await addProgram(root, process.execPath, 'usr/local/bin/node');
    },
    config: { Env: [SBIN_AND_BIN, `NODE_VERSION=${process.versions.node}`], Cmd: ['node'] },
  },
} as const satisfies Record<string, Image>;

export type ImageName = keyof typeof IMAGES;

/**
 * Makes sure that the engine has such an image, and resolves to the name to use: `name` itself, but on an engine that
 * is not ours and cannot pull, where a stand-in must not pass for the real one. Safe to call from many processes.
 */
export async function ensureImage(name: ImageName): Promise<string> {
  const standIn = standInOf(name);
  for (const known of [name, standIn]) if (await hasImage(known)) return known;
  return withLock(`image-${standIn}`, async () => {
    for (const known of [name, standIn]) if (await hasImage(known)) return known;
    const image: Image = IMAGES[name];
    const isOurs = await isPrivateEngine();
    if (!isOurs && (await pull(image.pull))) {
      await execa('docker', ['tag', image.pull, name]);
      return name;
    }
    await loadImage(await makeImage(standIn, image));
    if (!isOurs) return standIn;
    await execa('docker', ['tag', standIn, name]);
    return name;
  });
}

/** The archive of the stand-in for an image, by that image's name: for what is no Docker engine. */
export function standInArchive(name: ImageName): Promise<string> {
  return makeImage(name, IMAGES[name]);
}

/** Does the slow part for all images, so that no test's time runs out over it. */
export async function prepareImages(): Promise<void> {
  const names = Object.keys(IMAGES) as ImageName[];
  const isOurs = await isPrivateEngine();
  for (const name of names) await (isOurs ? makeImage(standInOf(name), IMAGES[name]) : ensureImage(name));
}

function standInOf(name: ImageName): string {
  return name.startsWith('sidehook-test/') ? name : `sidehook-test/${name.replace('/', '-')}`;
}

async function hasImage(name: string): Promise<boolean> {
  const { failed } = await execa('docker', ['image', 'inspect', name], { reject: false });
  return !failed;
}

async function isPrivateEngine(): Promise<boolean> {
  const { stdout } = await execa('docker', ['info', '--format', '{{.Labels}}']);
  return stdout.includes('sidehook.test=');
}

async function pull(name: string): Promise<boolean> {
  say(`pulling ${name}`);
  const { failed, stderr } = await execa('docker', ['pull', '--quiet', name], { reject: false, timeout: PULL_MS });
  if (failed) say(`${stderr}; making a stand-in`);
  return !failed;
}
