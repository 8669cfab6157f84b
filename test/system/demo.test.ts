import assert from 'node:assert/strict';
import { mkdtempDisposable, readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { describe, it } from 'node:test';
import { execa } from 'execa';
import { docker, engineHost } from '../support/engine.ts';

const DEMO = resolve(import.meta.dirname, '../../demo/demo.ts');

describe('the demo', () => {
  it('keeps every promise with an engine, and leaves nothing behind', async ({ signal }) => {
    await using dir = await mkdtempDisposable(join(tmpdir(), 'sidehook-'));
    const { all, exitCode } = await runDemo({ DOCKER_HOST: engineHost(), TMPDIR: dir.path }, signal);
    assert.equal(exitCode, 0, all);
    assert.match(all, /records in the archive are whole\n/);
    assert.match(all, /All as promised\.$/);
    assert.equal(await docker('ps', '--all', '--quiet', '--filter', 'label=com.docker.compose.service=writer'), '');
    assert.deepEqual(await readdir(dir.path), []);
  });

  it('says so where no engine answers, and keeps the others', async ({ signal }) => {
    const { all, exitCode } = await runDemo({ DOCKER_HOST: 'unix:///nonexistent/docker.sock' }, signal);
    assert.equal(exitCode, 0, all);
    assert.match(all, /No container engine answers at unix:\/\/\/nonexistent\/docker\.sock/);
    assert.match(all, /All as promised\.$/);
  });
});

async function runDemo(env: Readonly<Record<string, string>>, signal: AbortSignal) {
  return execa(process.execPath, [DEMO], { env, all: true, reject: false, stdin: 'ignore', cancelSignal: signal });
}
