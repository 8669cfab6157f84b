/** The programs of a real cluster: Kubernetes' own built with Go from its module proxy, the rest out of Debian packages. */
import {
  access,
  constants,
  glob,
  mkdtemp,
  mkdtempDisposable,
  readFile,
  rename,
  rm,
  stat,
  statfs,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { cacheDir, installPackages, say, unpackedPackage, withLock } from '../support/install.ts';

const MODULE = 'k8s.io/kubernetes';
const VERSION = 'v1.36.3';
/** The modules that Kubernetes' own repository is split into have the same number, one less in front. */
const STAGING_VERSION = VERSION.replace('v1.', 'v0.');
const PROGRAMS = ['kube-apiserver', 'kube-controller-manager', 'kube-scheduler', 'kubelet', 'kubectl'];
/** What its go.mod asks for. */
const GO_MINOR = 26;
/** Far more than it takes where little else is done; what is built by then is kept, and the next run goes on from there. */
const BUILD_MS = 30 * 60_000;
const DOWNLOAD_MS = 10 * 60_000;
/** In MiB, with something to spare: for the tests, and for the build if nothing of it is there yet. */
const NEEDS = { run: { memory: 2_000, disk: 2_000 }, build: { memory: 3_500, disk: 8_000 } };

/** Folders with programs, in the order in which they belong in PATH. */
export type Parts = {
  /** Kubernetes' own programs. */
  readonly kubernetes: string;
  /** Others, and what they look for beside themselves. */
  readonly path: string;
  /** Network plugins. */
  readonly cni: string;
};

/** Why there can be no cluster here, for the operator; false where there can be one. */
export async function whyNoCluster(): Promise<string | false> {
  if (process.getuid?.() !== 0) return 'a cluster needs root';
  if (process.platform !== 'linux') return 'a cluster needs Linux';
  const isBuilt = await isThere(await builtDir());
  if (!isBuilt && (await findGo()) === undefined)
    return `Kubernetes is built with Go 1.${GO_MINOR}, and there is none in PATH or /usr/local/go/bin`;
  const { memory, disk } = isBuilt ? NEEDS.run : NEEDS.build;
  const freeMemory = process.availableMemory() / 2 ** 20;
  if (freeMemory < memory) return `${memory} MiB of memory are needed, and ${Math.round(freeMemory)} are free`;
  for (const place of [tmpdir(), await cacheDir()]) {
    const { bavail, bsize } = await statfs(place);
    const freeDisk = (bavail * bsize) / 2 ** 20;
    if (freeDisk < disk) return `${disk} MiB of disk are needed, and ${Math.round(freeDisk)} are free in ${place}`;
  }
  return whyNoNamespaces();
}

async function whyNoNamespaces(): Promise<string | false> {
  const args = ['--mount', '--pid', '--net', '--fork', 'true'];
  const { failed, shortMessage } = await execa('unshare', args, { reject: false });
  if (failed) return `no namespaces can be made here: ${shortMessage}`;
  for await (const path of glob('/sys/fs/cgroup/{*/,}cgroup.procs')) {
    const isWritable = await access(path, constants.W_OK).then(
      () => true,
      () => false,
    );
    if (!isWritable) return `no control groups can be made here: ${path} cannot be written`;
  }
  return false;
}

/** Builds and downloads what is not there yet. */
export async function prepareParts(): Promise<Parts> {
  for (const [program, debian] of Object.entries({ ip: 'iproute2', openssl: 'openssl' })) {
    if (!(await isInstalled(program))) await installPackages(debian);
  }
  const packages = ['etcd-server', 'containerd', 'runc', 'containernetworking-plugins'];
  const dirs: string[] = [];
  for (const name of packages) dirs.push(await unpackedPackage(name));
  const bins = dirs.flatMap((dir) => [join(dir, 'usr/bin'), join(dir, 'usr/sbin')]);
  const path = [...bins, '/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'].join(':');
  return { kubernetes: await buildKubernetes(), path, cni: join(dirs.at(-1) ?? '', 'usr/lib/cni') };
}

async function builtDir(): Promise<string> {
  return join(await cacheDir(), `kubernetes-${VERSION}`);
}

async function buildKubernetes(): Promise<string> {
  const dir = await builtDir();
  return withLock(`kubernetes-${VERSION}`, async () => {
    if (await isThere(dir)) return dir;
    const go = await findGo();
    if (go === undefined) throw new Error(`build ${MODULE} ${VERSION}: no go in PATH or /usr/local/go/bin`);
    const draft = await mkdtemp(`${dir}-`);
    try {
      await build(go, draft);
      await rename(draft, dir);
    } finally {
      await rm(draft, { recursive: true, force: true });
    }
    return dir;
  });
}

/** Its own go.mod speaks of folders of its repository, which the module does not have: they are modules of their own. */
async function build(go: string, target: string): Promise<void> {
  const startedMs = performance.now();
  await using dir = await mkdtempDisposable(join(tmpdir(), 'sidehook-kubernetes-'));
  const env = { CGO_ENABLED: '0', GOFLAGS: '-mod=mod -trimpath -buildvcs=false', GOWORK: 'off' };
  const download = ['mod', 'download', '-json', `${MODULE}@${VERSION}`];
  const { stdout } = await execa(go, download, { cwd: dir.path, env, timeout: DOWNLOAD_MS });
  const own = await readFile(JSON.parse(stdout).GoMod, 'utf8');
  const goVersion = /^go .*$/m.exec(own)?.[0] ?? '';
  const staging = [...own.matchAll(/^\s+(\S+) => \.\/staging\/\S+$/gm)].map(([, name]) => name);
  const replacements = staging.map((name) => `replace ${name} => ${name} ${STAGING_VERSION}`);
  const mod = ['module sidehook.test/kubernetes', goVersion, `require ${MODULE} ${VERSION}`, ...replacements];
  await writeFile(join(dir.path, 'go.mod'), `${mod.join('\n\n')}\n`);
  say(`building Kubernetes ${VERSION} with ${go}: once, and it takes 10 minutes and more`);
  const commands = PROGRAMS.map((name) => `${MODULE}/cmd/${name}`);
  const flags = ['-ldflags', `-s -w ${versionFlags()}`, '-o', `${target}/`];
  await execa('nice', [go, 'build', ...flags, ...commands], { cwd: dir.path, env, timeout: BUILD_MS });
  say(`built in ${Math.round((performance.now() - startedMs) / 1000)} s`);
}

/** Without these, all of it says that it is v0.0.0, and the parts find each other too old. */
function versionFlags(): string {
  const [, major, minor] = /^v(\d+)\.(\d+)/.exec(VERSION) ?? [];
  const values = { gitVersion: VERSION, gitMajor: major, gitMinor: minor, gitTreeState: 'clean' };
  const names = Object.entries(values);
  return names.map(([name, value]) => `-X k8s.io/component-base/version.${name}=${value}`).join(' ');
}

/** One that is new enough, or that may fetch what is. */
export async function findGo(): Promise<string | undefined> {
  for (const go of ['go', '/usr/local/go/bin/go']) {
    const { failed, stdout } = await execa(go, ['env', 'GOVERSION', 'GOTOOLCHAIN'], { reject: false });
    const [, minor] = /^go1\.(\d+)/.exec(stdout ?? '') ?? [];
    if (!failed && (Number(minor) >= GO_MINOR || stdout?.includes('auto'))) return go;
  }
  return undefined;
}

async function isInstalled(program: string): Promise<boolean> {
  const { failed } = await execa('sh', ['-c', 'command -v "$1"', 'sh', program], { reject: false });
  return !failed;
}

async function isThere(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
