import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, it } from 'node:test';
import { execa } from 'execa';
import { docker, openStack } from './support/engine.ts';
import { openPrivateEngine, type PrivateEngine, whyNoPrivateEngine } from './support/engine-private.ts';
import { BUSYBOX, ensureImage } from './support/images.ts';
import { until } from './support/until.ts';

const RUN = join(import.meta.dirname, 'run.ts');
const skip = await whyNoPrivateEngine();

describe('a stack', () => {
  it('takes with it all that it made, and what a compose project of its name made', async () => {
    const labels: string[] = [];
    {
      await using stack = await openStack('removal');
      labels.push(stack.label, `com.docker.compose.project=${stack.name}`);
      const [volume, network] = [await stack.volume('data'), await stack.network('net')];
      const paused = await stack.run({ name: 'one', network, volumes: [`${volume}:/data`], env: { GREETING: 'hi' } });
      assert.equal(await docker('exec', paused, 'sh', '-c', 'echo $GREETING >/data/x; cat /data/x'), 'hi');
      await docker('pause', paused);
      await docker('run', '--detach', '--label', labels[1] ?? '', BUSYBOX, 'true');
    }
    const things = ['ps --all', 'volume ls', 'network ls'].map((list) => list.split(' '));
    const left = things.flatMap((list) => labels.map((label) => docker(...list, '-q', '--filter', `label=${label}`)));
    assert.deepEqual(new Set(await Promise.all(left)), new Set(['']));
  });

  it('has containers that stop when they are told to', async () => {
    await using stack = await openStack('stopping');
    const id = await stack.run();
    await docker('stop', '--time', '30', id);
    assert.equal(await docker('inspect', '--format', '{{.State.ExitCode}}', id), '0');
  });
});

describe('docker()', () => {
  it('rejects with what the engine said', async () => {
    await assert.rejects(docker('inspect', 'no-such-thing'), /docker inspect no-such-thing: .*no such object/i);
  });
});

describe('until()', () => {
  it('ends at its deadline, also when the condition hangs', async () => {
    const hang = () => new Promise<boolean>(() => undefined);
    for (const condition of [hang, () => false]) {
      await assert.rejects(until(condition, { what: 'the moon', deadlineMs: 20 }), /wait for the moon: .* 20 ms/);
    }
  });

  it('ends when it is told to', async () => {
    const waiting = until(() => false, { what: 'the moon', signal: AbortSignal.abort(new Error('enough')) });
    await assert.rejects(waiting, /enough/);
  });
});

describe('a throw-away engine', { skip }, () => {
  it('is gone with all that ran on it when its command ends', async () => {
    const { stdout, exitCode } = await execa('node', [RUN, '--engine', '--', 'sh', '-c', `${START}; exit 7`], {
      env: { TEST_ENGINE: 'private' },
      reject: false,
    });
    assert.equal(exitCode, 7);
    assert.deepEqual(await tracesOf(stdout), []);
  });

  for (const signal of ['SIGTERM', 'SIGINT', 'SIGKILL'] as const) {
    it(`is gone with all that ran on it when the run gets a ${signal}`, async () => {
      const command = `${START}; exec cat`; // cat ends, at the latest, with its standard input
      const run = execa('node', [RUN, '--engine', '--', 'sh', '-c', command], {
        env: { TEST_ENGINE: 'private' },
        stdin: 'pipe',
        reject: false,
      });
      const { value: host } = await run.iterable().next();
      assert.ok(typeof host === 'string');
      assert.notDeepEqual(await tracesOf(host), []);
      run.kill(signal);
      if (signal === 'SIGKILL') run.stdin.end(); // which it cannot pass on
      const ended = await run;
      if (signal === 'SIGKILL') assert.equal(ended.signal, signal);
      else assert.equal(ended.exitCode, signal === 'SIGTERM' ? 143 : 130);
      await until(async () => (await tracesOf(host)).length === 0, { what: 'the engine to go' });
    });
  }

  it('says why it does not start, and leaves nothing', async () => {
    const before = await enginesOf(process.pid);
    await assert.rejects(
      openPrivateEngine(['--storage-driver=no-such-driver']),
      /start a throw-away engine.*no-such-driver/s,
    );
    assert.deepEqual(await enginesOf(process.pid), before);
  });

  it('lives next to another one, and outlives it', async () => {
    await using one = await openPrivateEngine();
    {
      await using other = await openPrivateEngine();
      await Promise.all([assertNetwork(one), assertNetwork(other)]);
    }
    await assertNetwork(one);
  });

  it('comes back after a power failure with what is to restart, and nothing else', async () => {
    await using engine = await openPrivateEngine();
    const on = await withBusybox(engine);
    await on('run', '--detach', '--name=steady', '--restart=unless-stopped', BUSYBOX, 'sleep', '1000');
    await on('run', '--detach', '--name=fleeting', BUSYBOX, 'sleep', '1000');
    await engine.cutPower();
    await until(async () => (await on('ps', '--format={{.Names}}')) === 'steady', { what: 'steady alone to run' });
  });

  // Which is why the sidecar is to have `always`.
  it('comes back after a crash with what is always to restart, and not with what was not stopped', async () => {
    await using engine = await openPrivateEngine();
    const on = await withBusybox(engine);
    for (const policy of ['always', 'unless-stopped'])
      await on('run', '--detach', `--name=${policy}`, `--restart=${policy}`, '--init', BUSYBOX, 'sleep', '1000');
    await engine.stopDaemon('SIGKILL');
    await engine.startDaemon();
    await until(async () => (await on('ps', '--format={{.Names}}')) === 'always', { what: 'always alone to run' });
  });

  it('can be left without its daemon, and given it back', async () => {
    await using engine = await openPrivateEngine(['--live-restore']);
    const on = await withBusybox(engine);
    await on('run', '--detach', '--name=steady', BUSYBOX, 'sleep', '1000');
    const startedAt = () => on('inspect', '--format={{.State.Running}} {{.State.StartedAt}}', 'steady');
    const before = await startedAt();
    await engine.stopDaemon('SIGKILL');
    await assert.rejects(startedAt(), /cannot connect/i);
    await engine.startDaemon();
    assert.equal(await startedAt(), before);
  });
});

/** Leaves a container running behind and says which engine it was. */
const START = `docker run --detach --quiet ${BUSYBOX} sleep 1000 >/dev/null && echo "$DOCKER_HOST"`;

/** What is left of an engine: processes that name its folder, its control groups, and the folder. */
async function tracesOf(host: string): Promise<readonly string[]> {
  const dir = dirname(host.slice('unix://'.length));
  const { stdout: groups } = await execa('find', ['/sys/fs/cgroup', '-type', 'd', '-path', `*${dir.slice(5)}*`], {
    reject: false, // one that is removed meanwhile is an error to find
  });
  const { stdout: files } = await execa('find', [dir, '-maxdepth', '0'], { reject: false });
  const processes = [];
  for (const id of await readdir('/proc')) {
    const command = await readFile(`/proc/${id}/cmdline`, 'utf8').catch(() => '');
    if (command.includes(dir)) processes.push(command);
  }
  return [...processes, ...groups.split('\n'), ...files.split('\n')].filter(Boolean);
}

async function enginesOf(process: number): Promise<readonly string[]> {
  const { stdout } = await execa('ps', ['--ppid', String(process), '-o', 'args='], { reject: false });
  return stdout.split('\n').filter((line) => line.includes('engine-leash'));
}

async function withBusybox({ host }: PrivateEngine): Promise<typeof docker> {
  const archive = await execa('docker', ['save', await ensureImage(BUSYBOX)], { encoding: 'buffer' });
  await execa('docker', ['load'], { env: { DOCKER_HOST: host }, input: archive.stdout });
  return (...args) => docker('--host', host, ...args);
}

/** Containers find and reach one another by name. */
async function assertNetwork(engine: PrivateEngine): Promise<void> {
  const on = await withBusybox(engine);
  await on('network', 'create', 'net');
  await on('run', '--detach', '--name=server', '--network=net', BUSYBOX, 'sleep', '1000');
  await on('run', '--rm', '--network=net', BUSYBOX, 'ping', '-c', '1', 'server');
  await on('rm', '--force', 'server');
  await on('network', 'rm', 'net');
}
