/** What the tests need of other people's software, fetched from the machine's own package source, and kept. */
import { mkdir, mkdtemp, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { parseEnv } from 'node:util';
import { execa } from 'execa';
import { until } from './until.ts';

const DOWNLOAD_MS = 5 * 60_000;
const LOCK_MS = 20 * 60_000;

/** Where downloads and built images are kept between runs: outside the checkout, and safe to delete. */
export async function cacheDir(...names: readonly string[]): Promise<string> {
  const dir = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'sidehook-test', ...names);
  await mkdir(dir, { recursive: true });
  return dir;
}

/** Tells the developer what is being done to the machine; standard output belongs to the tests. */
export function say(line: string): void {
  process.stderr.write(`test: ${line}\n`);
}

/** Runs `action` while no other process of this user does the same. The kernel unlocks for a process that dies. */
export async function withLock<Value>(name: string, action: () => Promise<Value>): Promise<Value> {
  const lock = new DatabaseSync(join(await cacheDir('locks'), name.replaceAll('/', '-')));
  try {
    await until(() => isLocked(lock), {
      what: `another run to finish with ${name}`,
      deadlineMs: LOCK_MS,
      everyMs: 100,
    });
    return await action();
  } finally {
    lock.close();
  }
}

function isLocked(lock: DatabaseSync): boolean {
  try {
    lock.exec('BEGIN EXCLUSIVE');
    return true;
  } catch (error) {
    if (error instanceof Error && error.message.includes('database is locked')) return false;
    throw error;
  }
}

/** Installs packages on the machine itself: only for what cannot be run from a folder, such as the engine. */
export async function installPackages(...packages: readonly string[]): Promise<void> {
  say(`apt-get install ${packages.join(' ')}`);
  await withLock('apt', async () => {
    await apt(['update']);
    await apt(['install', '--yes', '--no-install-recommends', ...packages]);
  });
}

/** The folder with a Debian package's files, downloaded and unpacked, never installed: nothing of the machine changes. */
export async function unpackedPackage(name: string, suite?: string): Promise<string> {
  const source = await debianSource();
  const from = suite ?? source.suite;
  const dir = join(await cacheDir('packages', from), name);
  return withLock(`package-${from}-${name}`, async () => {
    if (await isThere(dir)) return dir;
    say(`downloading Debian package ${name} (${from}) to ${dir}`);
    const draft = await mkdtemp(`${dir}-`);
    try {
      const options = await privateApt(source, from);
      await apt([...options, 'update']);
      await apt([...options, 'download', name], draft);
      const [file = ''] = await readdir(draft);
      await execa('dpkg', ['-x', join(draft, file), join(draft, 'files')]);
      await rename(join(draft, 'files'), dir);
    } finally {
      await rm(draft, { recursive: true });
    }
    return dir;
  });
}

/**
 * Makes sure that `docker PLUGIN` works for each plugin, if need be through a private DOCKER_CONFIG with plugins of
 * Debian sid, and resolves to what has to be in the environment of docker. It is put in our own environment too.
 */
export async function ensureDockerCli(plugins: readonly ('compose' | 'buildx')[]): Promise<{ DOCKER_CONFIG?: string }> {
  const missing = [];
  for (const plugin of plugins) if (!(await hasPlugin(plugin))) missing.push(plugin);
  if (missing.length > 0) {
    const dir = await cacheDir('docker-config', 'cli-plugins');
    for (const plugin of missing) {
      const files = await unpackedPackage(`docker-${plugin}`, 'sid');
      const link = join(dir, `.${plugin}-${process.pid}`);
      await symlink(join(files, 'usr/libexec/docker/cli-plugins', `docker-${plugin}`), link);
      await rename(link, join(dir, `docker-${plugin}`));
    }
    process.env.DOCKER_CONFIG = await cacheDir('docker-config');
    for (const plugin of plugins) await execa('docker', [plugin, 'version']);
  }
  const { DOCKER_CONFIG } = process.env;
  return DOCKER_CONFIG === undefined ? {} : { DOCKER_CONFIG };
}

async function hasPlugin(plugin: string): Promise<boolean> {
  // Without the plugin, docker takes `compose version` for a misspelt command of its own, and fails
  const { failed } = await execa('docker', [plugin, 'version'], { reject: false });
  return !failed;
}

/** Every download has an end, and a second try. */
async function apt(args: readonly string[], cwd = '/'): Promise<void> {
  const options = { cwd, timeout: DOWNLOAD_MS, stdin: 'ignore', env: { DEBIAN_FRONTEND: 'noninteractive' } } as const;
  const bounded = ['-qq', '-o', 'Acquire::http::Timeout=60', '-o', 'DPkg::Lock::Timeout=300', ...args];
  const first = await execa('apt-get', bounded, { ...options, reject: false });
  if (!first.failed) return;
  say(`${first.shortMessage}; trying once more`);
  await execa('apt-get', bounded, options);
}

export type DebianSource = { readonly uri: string; readonly suite: string; readonly signedBy: string | undefined };

/** Where this machine gets its own Debian from, so that we name no host and go where its network lets it. */
export async function debianSource(): Promise<DebianSource> {
  const { ID, VERSION_CODENAME: suite } = parseEnv(await readFile('/etc/os-release', 'utf8').catch(() => ''));
  if (ID !== 'debian' || suite === undefined) throw new Error('find a Debian package source: this is not Debian');
  for (const text of await sourceLists()) {
    for (const entry of text.split(/\n\s*\n/)) {
      const field = (name: string) => new RegExp(`^${name}:[ \t]*(\\S.*)$`, 'im').exec(entry)?.[1]?.trim();
      const uri = field('URIs')?.split(/\s+/)[0];
      const signedBy = field('Signed-By');
      if (uri && field('Suites')?.split(/\s+/).includes(suite)) return { uri, suite, signedBy };
    }
    const [, options = '', uri, suites] = /^deb\s+(\[.*?\]\s+)?(\S+)\s+(\S+)\s/m.exec(onlySuite(text, suite)) ?? [];
    if (uri && suites) return { uri, suite, signedBy: /signed-by=([^\s\]]+)/i.exec(options)?.[1] };
  }
  throw new Error(`find a Debian package source: no entry for ${suite} below /etc/apt`);
}

function onlySuite(text: string, suite: string): string {
  return text
    .split('\n')
    .filter((line) => line.startsWith('deb ') && line.split(/\s+/).includes(suite))
    .join('\n');
}

async function sourceLists(): Promise<readonly string[]> {
  const dir = '/etc/apt/sources.list.d';
  const names = await readdir(dir).catch(() => []);
  const files = ['/etc/apt/sources.list', ...names.toSorted().map((name) => join(dir, name))];
  const texts = await Promise.all(files.map((file) => readFile(file, 'utf8').catch(() => '')));
  return texts.map((text) => text.replace(/^#.*\n/gm, ''));
}

/** Lists and settings of our own: the machine's apt never hears of the other suite, so it can upgrade nothing to it. */
async function privateApt({ uri, signedBy }: DebianSource, suite: string): Promise<readonly string[]> {
  const dir = await cacheDir('apt', suite);
  for (const sub of ['lists/partial', 'archives/partial']) await cacheDir('apt', suite, sub);
  const keys = signedBy?.startsWith('/') ? `[signed-by=${signedBy}] ` : '';
  await writeFile(join(dir, 'sources.list'), `deb ${keys}${uri} ${suite} main\n`);
  await writeFile(join(dir, 'status'), '');
  const settings = {
    'Dir::Etc::SourceList': join(dir, 'sources.list'),
    'Dir::Etc::SourceParts': '/dev/null',
    'Dir::Etc::PreferencesParts': '/dev/null',
    'Dir::State': dir,
    'Dir::State::status': join(dir, 'status'),
    'Dir::Cache': dir,
    'APT::Sandbox::User': 'root',
    'APT::Update::Post-Invoke-Success': '',
  };
  return Object.entries(settings).flatMap(([key, value]) => ['-o', `${key}=${value}`]);
}

async function isThere(path: string): Promise<boolean> {
  return readdir(path).then(
    () => true,
    () => false,
  );
}
