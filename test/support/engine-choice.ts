import { readFile } from 'node:fs/promises';
import { parseEnv } from 'node:util';
import { execa } from 'execa';
import { answers, openPrivateEngine } from './engine-private.ts';
import { installPackages, say } from './install.ts';

export type Engine = AsyncDisposable & { readonly host: string };

/**
 * Opens the engine for a test run: one that answers already, or else a throw-away one, installed first if need be.
 * TEST_ENGINE=private in the environment leaves the one that answers alone.
 * @throws NoEngine where there can be none
 */
export async function openEngine(): Promise<Engine> {
  const { DOCKER_HOST, TEST_ENGINE } = process.env;
  for (const host of TEST_ENGINE === 'private' ? [] : [DOCKER_HOST, 'unix:///var/run/docker.sock']) {
    if (host && (await answers(host))) return { host, [Symbol.asyncDispose]: async () => undefined };
    if (host && host === DOCKER_HOST) say(`no engine answers at DOCKER_HOST=${host}`);
  }
  if (process.getuid?.() !== 0) throw new NoEngine('and a throw-away one needs root');
  if (!(await isInstalled('dockerd'))) {
    if (!(await isDebianLike()))
      throw new NoEngine('none is installed, and this is not Debian, where that could be done');
    await installPackages('docker.io', 'iptables');
  }
  if (!(await isInstalled('docker'))) await installPackages('docker-cli'); // a package of its own since Debian 13
  return openPrivateEngine();
}

/** There is no engine and none can be had: for the operator to solve. */
export class NoEngine extends Error {
  override readonly name = 'NoEngine';

  constructor(reason: string) {
    super(`no Docker engine answers, ${reason}: start one, or set DOCKER_HOST`);
  }
}

async function isInstalled(program: string): Promise<boolean> {
  const { failed } = await execa(program, ['--version'], { reject: false });
  return !failed;
}

async function isDebianLike(): Promise<boolean> {
  const { ID = '', ID_LIKE = '' } = parseEnv(await readFile('/etc/os-release', 'utf8').catch(() => ''));
  return `${ID} ${ID_LIKE}`.split(' ').includes('debian');
}
