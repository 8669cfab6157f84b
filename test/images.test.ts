import assert from 'node:assert/strict';
import { mkdtempDisposable, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import { execa } from 'execa';
import { docker, openStack } from './support/engine.ts';
import { ensureImage, SCRIPTING } from './support/images.ts';
import { ensureDockerCli } from './support/install.ts';
import { until } from './support/until.ts';

describe('images to test with', () => {
  it('have PostgreSQL, which keeps its data and stops at once though a session is open', async ({ signal }) => {
    const image = await ensureImage('postgres:17-alpine');
    await using stack = await openStack('postgres');
    const volume = await stack.volume('data');
    const env = { POSTGRES_PASSWORD: 'secret', POSTGRES_DB: 'shop' };
    const id = await stack.run({ image, args: [], env, volumes: [`${volume}:/var/lib/postgresql/data`] });
    const query = (sql: string) =>
      docker('exec', id, 'psql', '--username=postgres', '--tuples-only', '--command', sql, 'shop');
    const isReady = () => docker('exec', id, 'pg_isready', '--host=127.0.0.1').catch(() => '');
    await until(isReady, { what: 'PostgreSQL', signal, deadlineMs: 60_000 });
    await query('create table orders as select 42 as number');
    await docker('exec', '--detach', id, 'psql', '--username=postgres', '--command', 'select pg_sleep(1000)');

    await docker('stop', '--time', '60', id);
    assert.equal(await docker('inspect', '--format', '{{.State.ExitCode}}', id), '0');
    await docker('start', id);
    await until(isReady, { what: 'PostgreSQL again', signal });
    assert.equal((await query('select number from orders')).trim(), '42');
  });

  it('have restic', async () => {
    const image = await ensureImage('restic/restic:latest');
    assert.match(await docker('run', '--rm', '--entrypoint=sh', image, '-c', 'restic version'), /^restic \d/);
  });

  it('have Perl, Python and bash', async () => {
    const script = `perl -e 'print "perl "'; python3 -c 'print("python", end=" ")'; bash -c 'echo bash'`;
    assert.equal(await docker('run', '--rm', await ensureImage(SCRIPTING), 'sh', '-c', script), 'perl python bash');
  });
});

describe('the docker command line', () => {
  before(() => ensureDockerCli(['compose', 'buildx']));

  it('builds with the image of Node, and runs that with compose', async ({ signal }) => {
    const base = await ensureImage('node:26-alpine');
    await using stack = await openStack('build');
    await using dir = await mkdtempDisposable(join(tmpdir(), 'sidehook-build-'));
    const options = { cwd: dir.path, cancelSignal: signal };
    await writeFile(join(dir.path, 'Dockerfile'), `FROM ${base}\nUSER node\nCMD ["node", "-p", "process.getuid()"]\n`);
    await writeFile(join(dir.path, 'compose.yaml'), `services: { app: { image: ${stack.name} } }\n`);
    await execa('docker', ['buildx', 'build', '--load', '--tag', stack.name, '.'], options);
    const args = ['compose', '--project-name', stack.name, 'run', '--rm', 'app'];
    const { stdout } = await execa('docker', args, { ...options, stdin: 'ignore' });
    assert.equal(stdout.trim(), '1000');
    await docker('rmi', stack.name);
  });
});
