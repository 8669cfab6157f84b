import assert from 'node:assert/strict';
import { chmod, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { docker } from '../support/engine.ts';
import { until } from '../support/until.ts';
import { type Ended, openProject, type Project } from './compose-project.ts';

const START_MS = 10 * 60_000; // images may have to be made first
const SUITE_MS = 20 * 60_000;
const HEALTHY_MS = 90_000;
const RUN_MS = 60_000;

/** A backup whose command waits until it is let go; then it is the real one. */
const SLOW_BACKUP = `exec /run/sidehook/sidehook run backup -- sh -euc '
  touch /repository/begun
  until [ -e /repository/go ]; do sleep 0.1; done
  restic backup --host sidehook-example /data'`;

describe('compose.yaml', { timeout: SUITE_MS }, () => {
  let project: Project;
  before(
    async () => {
      project = await openProject();
      await up();
    },
    { timeout: START_MS },
  );
  after(() => project[Symbol.asyncDispose]());

  const backup = (): Promise<Ended> => project.compose('run', '--rm', 'backup');
  const restic = (...args: readonly string[]): Promise<string> => project.must('run', '--rm', 'restic', ...args);

  async function up(): Promise<void> {
    await project.must('up', '--detach', '--wait');
    await until(async () => (await orders()).length > 2, {
      what: 'the application to take orders',
      deadlineMs: RUN_MS,
    });
  }

  /** `ID ARTICLE`, one for each row. */
  async function orders(): Promise<readonly string[]> {
    const query = "select id || ' ' || article from orders order by id";
    const args = ['psql', '--username=shop', '--quiet', '--no-align', '--tuples-only', '--command', query];
    const { stdout } = await project.compose('exec', '-T', 'database', ...args);
    return stdout.split('\n').filter(Boolean);
  }

  /** The same, one for each file. */
  async function invoices(): Promise<readonly string[]> {
    const text = await inVolumes('cat /data/files/* 2>/dev/null || true');
    const found = [...text.matchAll(/^invoice: order (\d+), article (\S+)$/gm)];
    return found.map(([, id, article]) => `${id} ${article}`);
  }

  /** Runs a script beside everything, with no hook and no hold. */
  function inVolumes(script: string): Promise<string> {
    return project.must('run', '--rm', '--no-deps', '--entrypoint=sh', 'restore', '-euc', script);
  }

  /** Does `action` while a backup reads, then lets that end, whatever came of it. */
  async function duringBackup(action: (client: string) => Promise<void>): Promise<Ended> {
    await inVolumes('rm -f /repository/go /repository/begun');
    const client = `${project.name}-client`;
    const running = project.compose('run', '--rm', '--name', client, 'backup', SLOW_BACKUP);
    try {
      await until(isBegun, { what: 'the backup to begin', deadlineMs: RUN_MS });
      await action(client);
    } finally {
      await inVolumes('touch /repository/go');
    }
    return await running;
  }

  async function snapshots(): Promise<readonly { readonly id: string; readonly time: string }[]> {
    return JSON.parse(await restic('snapshots', '--json'));
  }

  it('makes a backup while the application stands still, and it alone', async () => {
    const databaseBefore = await project.lifeOf('database');
    const ended = await backup();
    assert.equal(ended.exitCode, 0, ended.stderr);
    const [snapshot, ...others] = await snapshots();
    assert.ok(snapshot);
    assert.deepEqual(others, []);
    const application = await project.lifeOf('application');
    assert.equal(application.Running, true);
    const [stopped, taken, started] = [application.FinishedAt, snapshot.time, application.StartedAt].map(Date.parse);
    assert.ok(Number(stopped) <= Number(taken) && Number(taken) <= Number(started), `${[stopped, taken, started]}`);
    assert.equal((await project.lifeOf('database')).StartedAt, databaseBefore.StartedAt);
  });

  it('has in the backup a dump whose rows agree with the files', async () => {
    const restored = await project.must(
      ...['run', '--rm', '--no-deps', '--entrypoint=sh', 'restore', '-euc'],
      'restic restore --quiet latest --target /tmp/restored && cat /tmp/restored/data/files/*',
    );
    const files = [...restored.matchAll(/^invoice: order (\d+)/gm)].map(([, id]) => Number(id));
    const dump = await project.must('exec', '-T', 'database', 'pg_restore', '--data-only', '--file=-', '/dump/shop');
    const rows = [...dump.matchAll(/^(\d+)\t[0-9a-f-]{36}$/gm)].map(([, id]) => Number(id));
    assert.ok(rows.length > 2);
    assert.deepEqual(files.toSorted(ascending), rows.toSorted(ascending));
  });

  it('gives no container but the sidecar the socket of the engine', async () => {
    const { services } = JSON.parse(await project.must('--profile', '*', 'config', '--format', 'json'));
    const withSocket = Object.entries<{ volumes?: { target: string }[] }>(services)
      .filter(([, { volumes = [] }]) => volumes.some(({ target }) => target.endsWith('docker.sock')))
      .map(([name]) => name);
    assert.deepEqual(withSocket, ['sidehook']);
    assert.equal(await inVolumes('find / -xdev -name "*.sock" -o -type s | grep docker || echo none'), 'none');
  });

  it('makes no backup when the dump fails, says why by the code, and starts the application again', async () => {
    const hook = join(project.dir, 'examples/compose/hooks.d/10-database');
    const text = await readFile(hook, 'utf8');
    const before = await project.lifeOf('application');
    const count = (await snapshots()).length;
    await writeFile(hook, text.replace('set -eu', 'echo "disk full" >&2; exit 3'));
    await chmod(hook, 0o755);
    const ended = await backup();
    await writeFile(hook, text);
    assert.equal(ended.exitCode, 3, ended.stderr);
    assert.match(ended.stderr, /^disk full$/m);
    assert.match(ended.stderr, /10-database.*exited 3/);
    assert.equal((await snapshots()).length, count);
    const application = await project.lifeOf('application');
    assert.equal(application.Running, true);
    assert.ok(application.StartedAt > before.StartedAt, 'it was held before the hook ran');
  });

  it('goes on with a backup when the sidecar is killed in its middle', async () => {
    const count = (await snapshots()).length;
    const sidecar = await project.idOf('sidehook');
    const ended = await duringBackup(async () => {
      const held = await project.lifeOf('application');
      assert.equal(held.Running, false);
      await docker('exec', sidecar, 'sh', '-c', 'kill -9 $(pidof node)');
      const isBack = async () => (await restartsOf(sidecar)) > 0 && (await healthOf('sidehook')) === 'healthy';
      await until(isBack, { what: 'the sidecar to be back', deadlineMs: HEALTHY_MS });
      assert.deepEqual(await project.lifeOf('application'), held, 'still held, all the while');
    });
    assert.equal(ended.exitCode, 0, ended.stderr);
    assert.equal((await snapshots()).length, count + 1);
    await untilRunning();
  });

  it('starts the application again when the backup container is killed, and nobody asks', async () => {
    const ended = await duringBackup(async (client) => {
      assert.equal((await project.lifeOf('application')).Running, false);
      await docker('kill', client);
      await untilRunning();
    });
    assert.equal(ended.exitCode, 137);
  });

  it('brings rows and files back to where they agreed', async () => {
    const made = await backup();
    assert.equal(made.exitCode, 0, made.stderr);
    const then = await orders();
    await sql("update orders set article = 'damaged'; insert into orders (article) values ('after')");
    await inVolumes('rm /data/files/1; echo damaged >/data/files/2');
    await until(async () => (await orders()).length > then.length + 3, { what: 'more orders', deadlineMs: RUN_MS });

    const ended = await project.compose('run', '--rm', 'restore');
    assert.equal(ended.exitCode, 0, ended.stderr);
    await untilRunning();
    await project.must('stop', 'application');
    const [rows, files] = [await orders(), await invoices()];
    await project.must('up', '--detach', '--wait');
    assert.deepEqual(files.toSorted(), rows.toSorted());
    assert.ok(then.length > 2);
    const known = new Set(rows);
    const [, ...older] = then.toReversed(); // the last may have come after the backup
    assert.deepEqual(
      older.filter((order) => !known.has(order)),
      [],
    );
    assert.ok(!rows.some((order) => /damaged|after/.test(order)));
  });

  it('leaves the application stopped after a restore that failed, until somebody says otherwise', async () => {
    const ended = await project.compose(
      ...['run', '--rm', 'restore', 'exec /run/sidehook/sidehook run restore -- sh -c "exit 5"'],
    );
    assert.equal(ended.exitCode, 5, ended.stderr);
    assert.equal((await project.lifeOf('application')).Running, false);
    assert.match(await project.must('exec', '-T', 'sidehook', 'sidehook', 'status'), /application/);
    await project.must('exec', '-T', 'sidehook', 'sidehook', 'release', '--all');
    await untilRunning();
  });

  it('starts what it holds when it alone is restarted, and tells the client', async () => {
    const ended = await duringBackup(async () => {
      assert.equal((await project.lifeOf('application')).Running, false);
      await project.must('restart', 'sidehook');
      await untilRunning();
    });
    assert.equal(ended.exitCode, 65, ended.stderr);
    assert.match(ended.stderr, /its holds were released, since the sidecar was stopped: \S*application/);
  });

  it('starts nothing while compose stops the project, and the client learns what compose started after', async () => {
    const ended = await duringBackup(async () => {
      const startedNow = await project.starts();
      await project.must('stop');
      assert.deepEqual(await startedNow(), []);
      await project.must('start');
      await untilHealthy();
      assert.equal((await project.lifeOf('application')).Running, true);
    });
    assert.equal(ended.exitCode, 65, ended.stderr);
    assert.match(ended.stderr, /application-1 was held and runs again/);
  });

  it('starts at its next start what it left to compose, and compose did not start', async () => {
    await duringBackup(async (client) => {
      const startedNow = await project.starts();
      await project.must('stop');
      await docker('kill', client);
      assert.deepEqual(await startedNow(), []);
      await project.must('start', 'database', 'sidehook');
      await untilRunning();
    });
    await untilHealthy();
  });

  it('starts nothing while compose takes the project down, and a new one comes up as ever', async () => {
    const ended = await duringBackup(async () => {
      const startedNow = await project.starts();
      const { stderr } = await project.compose('down'); // its network may be in use by the client
      assert.deepEqual(await startedNow(), [], stderr);
      assert.equal(await docker('ps', '--quiet', '--filter', ofProject(), '--filter', 'name=application'), '');
      await up();
    });
    assert.ok([65, 137, 143].includes(ended.exitCode ?? 0), `${ended.exitCode}: ${ended.stderr}`);
    const next = await backup();
    assert.equal(next.exitCode, 0, next.stderr);
  });

  it('goes down without a trace but its volumes, and comes up again', async () => {
    const held = (await orders()).length;
    await project.must('down');
    assert.equal(await docker('ps', '--all', '--quiet', '--filter', ofProject()), '');
    assert.equal(await docker('network', 'ls', '--quiet', '--filter', ofProject()), '');
    await up();
    assert.ok((await orders()).length >= held);
    const ended = await backup();
    assert.equal(ended.exitCode, 0, ended.stderr);
  });

  const isBegun = async (): Promise<boolean> => (await inVolumes('ls /repository')).split('\n').includes('begun');
  const healthOf = async (service: string) => (await project.lifeOf(service)).Health?.Status;
  const untilHealthy = () =>
    until(async () => (await healthOf('sidehook')) === 'healthy', {
      what: 'the sidecar to be healthy',
      deadlineMs: HEALTHY_MS,
    });
  const restartsOf = async (id: string) => Number(await docker('inspect', '--format', '{{.RestartCount}}', id));
  const ofProject = () => `label=com.docker.compose.project=${project.name}`;
  const sql = (text: string) =>
    project.must('exec', '-T', 'database', 'psql', '--username=shop', '--quiet', '--command', text);
  const untilRunning = () =>
    until(async () => (await project.lifeOf('application')).Running, {
      what: 'the application to run again',
      deadlineMs: RUN_MS,
    });
});

function ascending(a: number, b: number): number {
  return a - b;
}
