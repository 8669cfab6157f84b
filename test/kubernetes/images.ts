/** What the cluster's pods are made of. Nothing is pulled: containerd gets archives, as `docker save` writes them. */
import { cp, mkdir, readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { execa } from 'execa';
import { BUSYBOX, standInArchive } from '../support/images.ts';
import { type ImageConfig, makeImage, writeArchive } from '../support/images-archive.ts';
import { busyboxRoot, runInRoot } from '../support/images-roots.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** What every pod's namespaces are held by. */
export const PAUSE = 'sidehook-test/pause:1';

/** The archives that a cluster of ours begins with: the pause image, busybox, and this checkout's sidehook. */
export async function clusterImages(workDir: string): Promise<readonly string[]> {
  const waits = 'trap "exit 0" TERM INT; while :; do sleep 3600 & wait "$!"; done';
  const pause = { fill: (root: string) => busyboxRoot(root), config: { Env: [PATH], Entrypoint: ['sh', '-c', waits] } };
  return [await makeImage(PAUSE, pause), await standInArchive(BUSYBOX), await sidehookImage(workDir)];
}

/** The image that docker/Dockerfile says, on a stand-in for its base. */
async function sidehookImage(workDir: string): Promise<string> {
  const { version } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'));
  const base = await standInArchive('node:26-alpine');
  const [root, dir, context] = ['root', 'image', 'context'].map((name) => join(workDir, name)) as [
    string,
    string,
    string,
  ];
  for (const path of [root, dir, context]) await mkdir(path, { recursive: true });
  await execa('tar', ['--extract', '--file', join(base, 'layer.tar'), '--directory', root]);
  await execa(process.execPath, [join(ROOT, 'docker/build.ts'), join(context, 'dist')]);
  const config = await build(root, context);
  await writeArchive(`sidehook:${version}`, root, config, dir);
  return dir;
}

/** Does what the Dockerfile says, as far as it says no more than it does today. */
async function build(root: string, context: string): Promise<ImageConfig> {
  const text = await readFile(join(ROOT, 'docker/Dockerfile'), 'utf8');
  const config: Record<string, unknown> = { Env: [PATH] };
  for (const line of text
    .replaceAll(/^#.*\n/gm, '')
    .replaceAll('\\\n', '')
    .split('\n')) {
    const [, instruction, rest = ''] = /^(\w+)\s+(.*)$/.exec(line) ?? [];
    if (instruction === 'RUN') await runInRoot(root, `export ${PATH}\n${rest}`);
    else if (instruction === 'COPY') {
      const [from = '', to = ''] = rest.split(' ');
      await cp(join(context, from), join(root, to), { recursive: true });
    } else if (instruction === 'ENTRYPOINT') config.Entrypoint = JSON.parse(rest);
    else if (instruction === 'CMD') config.Cmd = JSON.parse(rest);
    else if (instruction === 'STOPSIGNAL') config.StopSignal = rest;
    else if (instruction && !['ARG', 'FROM', 'LABEL', 'HEALTHCHECK'].includes(instruction)) {
      throw new Error(`docker/Dockerfile: ${line}: the tests' own builder does not know this`);
    }
  }
  return config as ImageConfig;
}
