import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, mkdtempDisposable, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { execa } from 'execa';
import type { FillRoot } from './images-roots.ts';
import { cacheDir, say, withLock } from './install.ts';

/** What an image says of itself, in the engine's own words. `docker import` cannot set all of it, such as StopSignal. */
export type ImageConfig = {
  readonly Env: readonly string[];
  readonly Entrypoint?: readonly string[];
  readonly Cmd?: readonly string[];
  readonly Volumes?: Readonly<Record<string, object>>;
  readonly ExposedPorts?: Readonly<Record<string, object>>;
  readonly StopSignal?: string;
};

/** Makes the archive of an image of one layer, and resolves to its folder. It is kept: the next time it is there. */
export async function makeImage(
  name: string,
  { fill, config }: { fill: FillRoot; config: ImageConfig },
): Promise<string> {
  const dir = join(await cacheDir('images'), `${name.replaceAll(/[/:]/g, '-')}-${await recipeDigest()}`);
  return withLock(`archive-${basename(dir)}`, async () => {
    if (await isThere(dir)) return dir;
    say(`making image ${name} in ${dir}`);
    await using root = await mkdtempDisposable(join(tmpdir(), 'sidehook-image-'));
    await fill(root.path);
    await rm(`${dir}.draft`, { recursive: true, force: true }); // of a run that was killed
    await mkdir(`${dir}.draft`);
    await writeArchive(name, root.path, config, `${dir}.draft`);
    await rename(`${dir}.draft`, dir);
    return dir;
  });
}

/** Gives the engine the image. */
export async function loadImage(archive: string): Promise<void> {
  const files = ['manifest.json', 'config.json', 'layer.tar'];
  await execa('sh', ['-euc', 'tar --create "$@" | docker load --quiet', 'sh', ...files], { cwd: archive });
}

/** Images are made anew when the code that makes them changes: a stale one would be found out much too late. */
async function recipeDigest(): Promise<string> {
  const digest = createHash('sha256').update(process.version);
  const files = await readdir(import.meta.dirname);
  for (const file of files.filter((file) => file.startsWith('images')).toSorted()) {
    await pipeline(createReadStream(join(import.meta.dirname, file)), digest, { end: false });
  }
  return digest.digest('hex').slice(0, 16);
}

/** Writes an archive as `docker save` does: one layer, one configuration that names it by its digest, one table. */
export async function writeArchive(name: string, root: string, config: ImageConfig, dir: string): Promise<void> {
  const layer = join(dir, 'layer.tar');
  await execa('tar', ['--create', '--file', layer, '--sort=name', '--numeric-owner', '--directory', root, '.']);
  const digest = createHash('sha256');
  await pipeline(createReadStream(layer), digest);
  const image = {
    architecture: process.arch === 'x64' ? 'amd64' : process.arch,
    os: 'linux',
    created: new Date().toISOString(),
    config,
    rootfs: { type: 'layers', diff_ids: [`sha256:${digest.digest('hex')}`] },
    history: [{ created_by: 'test/support/images.ts' }],
  };
  const manifest = [{ Config: 'config.json', RepoTags: [name], Layers: ['layer.tar'] }];
  await writeFile(join(dir, 'config.json'), JSON.stringify(image));
  await writeFile(join(dir, 'manifest.json'), JSON.stringify(manifest));
}

async function isThere(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
