import assert from 'node:assert/strict';
import { chmod, cp, mkdir, mkdtempDisposable, readFile, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { execa } from 'execa';
import { docker, engineSocket, openStack, type Stack } from '../support/engine.ts';
import { ensureImage } from '../support/images.ts';
import { ensureDockerCli } from '../support/install.ts';
import { until } from '../support/until.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const SUITE_MS = 15 * 60_000; // images may have to be made first
const MOST_BYTES = 3_000_000;

describe('the image', { timeout: SUITE_MS }, () => {
  let stack: Stack;
  let base: string;
  before(async () => {
    stack = await openStack('image');
    base = await ensureImage('node:26-alpine');
    await using dir = await mkdtempDisposable(join(tmpdir(), 'sidehook-image-'));
    await cp(join(ROOT, 'docker'), join(dir.path, 'docker'), { recursive: true });
    await execa(process.execPath, [join(ROOT, 'docker/build.ts'), join(dir.path, 'dist')]);
    await writeFile(join(dir.path, 'secret'), 'never in an image');
    await ensureDockerCli(['buildx']);
    const args = ['--file', 'docker/Dockerfile', '--build-arg', `BASE=${base}`, '--load', '--tag', stack.name];
    await execa('docker', ['buildx', 'build', ...args, '.'], { cwd: dir.path });
  });
  after(async () => {
    await stack[Symbol.asyncDispose]();
    await docker('rmi', '--force', stack.name);
  });

  const sidehook = (flags: readonly string[], ...args: readonly string[]) =>
    execa('docker', ['run', '--rm', ...flags, stack.name, ...args], { reject: false, stdin: 'ignore' });
  const healthOf = (id: string) => docker('inspect', '--format', '{{.State.Health.Status}}', id);

  it('runs any verb, and is of the version in package.json', async () => {
    const { version } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'));
    assert.equal((await sidehook([], 'version')).stdout, version);
    const { exitCode, stdout } = await sidehook(['--env=SIDEHOOK_ENGINE=none'], 'plan', 'backup');
    assert.equal(exitCode, 0);
    assert.match(stdout, /nothing to do/);
  });

  it('says what to do about an engine that is not there, or that it cannot speak to', async () => {
    const none = await sidehook([], 'serve');
    assert.equal(none.exitCode, 78);
    assert.match(none.stderr, /mount its socket, or say engine: none/);
    const ssh = await sidehook(['--env=DOCKER_HOST=ssh://backup@example.com'], 'serve');
    assert.equal(ssh.exitCode, 78);
    assert.match(ssh.stderr, /^sidehook: DOCKER_HOST: expected unix:\/\/\/PATH or tcp:/);
  });

  it('serves by default, becomes healthy, and ends in order when it is told to, as process 1', async ({ signal }) => {
    const id = await stack.run({ image: stack.name, args: [], env: { SIDEHOOK_ENGINE: 'none' } });
    await until(async () => (await healthOf(id)) === 'healthy', { what: 'health', signal, deadlineMs: 60_000 });
    await docker('stop', '--time', '60', id);
    assert.equal(await docker('inspect', '--format', '{{.State.ExitCode}}', id), '0');
  });

  it('runs as anybody, with a read-only root and no capability, as the chart has it', async ({ signal }) => {
    await using dir = await mkdtempDisposable(join(tmpdir(), 'sidehook-hooks-'));
    const hooks = join(dir.path, 'hooks.d');
    await mkdir(hooks);
    await writeFile(join(hooks, '10-tell'), '#!/bin/sh\necho "$1 $2 by $(id -u)"\n');
    for (const path of [dir.path, hooks, join(hooks, '10-tell')]) await chmod(path, 0o755);
    const [run, state] = [await stack.volume('run'), await stack.volume('state')];
    // Without nocopy, an empty volume takes the owner of the image's folder each time
    const volumes = [`${run}:/run/sidehook:nocopy`, `${state}:/var/lib/sidehook:nocopy`];
    const asKubernetesDoes = 'chown 0:1000 "$@" && chmod 2777 "$@"'; // an emptyDir with fsGroup
    const flags = volumes.map((volume) => `--volume=${volume}`);
    const script = ['-c', asKubernetesDoes, 'sh', '/run/sidehook', '/var/lib/sidehook'];
    await docker('run', '--rm', '--entrypoint=sh', ...flags, stack.name, ...script);

    const strict = ['--read-only', '--cap-drop=ALL', '--security-opt=no-new-privileges'];
    const id = await stack.run({
      ...{ image: stack.name, args: [], user: '1000:1000', env: { SIDEHOOK_ENGINE: 'none' } },
      ...{ volumes: [...volumes, `${hooks}:/etc/sidehook/hooks.d:ro`], flags: [...strict, '--tmpfs=/tmp'] },
    });
    await until(async () => (await healthOf(id)) === 'healthy', { what: 'health', signal, deadlineMs: 60_000 });
    const client = ['run', '--rm', '--user=1000:1000', ...strict, `--volume=${run}:/run/sidehook`];
    const command = ['--entrypoint=/run/sidehook/sidehook', base, 'run', 'backup', '--', 'echo', 'data'];
    const ended = await execa('docker', [...client, ...command], { reject: false, stdin: 'ignore' });
    assert.equal(ended.exitCode, 0, ended.stderr);
    assert.equal(ended.stdout, 'data');
    assert.deepEqual(ended.stderr.match(/^backup .*$/gm), ['backup pre by 1000', 'backup post by 1000']);
  });

  it('speaks to the engine as another user, when it is made as docs/compose.md says', async () => {
    const text = await readFile(join(ROOT, 'docs/compose.md'), 'utf8');
    const [, lines = ''] = /## As another user.*?```dockerfile\n(.*?)```/s.exec(text) ?? [];
    const own = `${stack.name}:own`;
    const input = lines.replace('FROM sidehook', `FROM ${stack.name}`);
    await execa('docker', ['buildx', 'build', '--load', '--tag', own, '-'], { input });
    const { gid } = await stat(engineSocket());
    const [run, state] = [await stack.volume('own-run'), await stack.volume('own-state')];
    const id = await stack.run({
      ...{ image: own, args: [], flags: ['--read-only', '--cap-drop=ALL', `--group-add=${gid}`] },
      volumes: [...[`${run}:/run/sidehook`, `${state}:/var/lib/sidehook`], `${engineSocket()}:/var/run/docker.sock`],
      labels: { 'com.docker.compose.project': stack.name },
    });
    await until(async () => (await healthOf(id)) === 'healthy', { what: 'health', deadlineMs: 60_000 });
    assert.match(await docker('exec', id, 'sidehook', 'status'), /engine: docker$/m);
    assert.equal(await docker('exec', id, 'id', '-u'), '1000');
    await docker('rm', '--force', id);
    await docker('rmi', own);
  });

  it('is hardly larger than Node alone, and holds nothing that lay about', async () => {
    const sizeOf = async (name: string) => Number(await docker('image', 'inspect', '--format', '{{.Size}}', name));
    const more = (await sizeOf(stack.name)) - (await sizeOf(base));
    assert.ok(more < MOST_BYTES, `${more} bytes more`);
    const { stdout } = await execa('docker', [
      'run',
      '--rm',
      '--entrypoint=find',
      stack.name,
      '/',
      '-xdev',
      '-name',
      'secret',
    ]);
    assert.equal(stdout, '');
  });

  it('declares no volume, which could pass for one that lasts', async () => {
    assert.equal(await docker('image', 'inspect', '--format', '{{json .Config.Volumes}}', stack.name), 'null');
  });
});
