import assert from 'node:assert/strict';
import { chmod, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { dirname, join, resolve } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { describe, it } from 'node:test';
import { composeLabels, openProxy } from '../drivers/docker-bench.ts';
import { docker, engineSocket, openStack, type Stack } from '../support/engine.ts';
import { ensureImage } from '../support/images.ts';
import { logsOf, openSidecar, type Sidecar } from '../support/sidecar.ts';
import { until } from '../support/until.ts';
import { openServices } from './stack-of-three.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const THREE = [{ name: 'db' }, { name: 'api', after: 'db' }, { name: 'web', after: 'api' }] as const;
const NAMES = ['web', 'api', 'db'] as const;

describe('with three services held', () => {
  it('starts them again when the client is killed', async () => {
    await using project = await openServices(THREE);
    await using sidecar = await openSidecar({ scope: project.stack.name });
    const client = await sidecar.clientIn(project.stack, ['run', 'backup', '--', 'sleep', '1000']);
    await project.untilStopped(...NAMES);
    await untilOpen(sidecar);
    await client.kill();
    await project.untilRunning(...NAMES);
    await untilClosed(sidecar);
    assert.match(sidecar.log(), /"run closed".*"abandoned"/);
  });

  it('starts them again when the container is killed that gave a bare signal', async () => {
    await using project = await openServices(THREE);
    await using sidecar = await openSidecar({ scope: project.stack.name });
    const script = '/run/sidehook/sidehook signal backup pre && echo begun && sleep 1000';
    const client = await sidecar.runIn(project.stack, ['sh', '-c', script]);
    await until(async () => (await client.log()).includes('begun'), { what: 'the answer', deadlineMs: 60_000 });
    assert.equal(await project.runs('db'), false);
    await client.kill();
    await project.untilRunning(...NAMES);
    await untilClosed(sidecar);
    assert.match(sidecar.log(), /"run abandoned".*no container that shared its directory runs any more/);
  });

  it('goes on with the run when the daemon is killed and starts anew', async () => {
    await using project = await openServices(THREE);
    await using sidecar = await openSidecar({ scope: project.stack.name });
    await sidecar.addHook('10-count', recorder(sidecar));
    const waiting = ['sh', '-c', 'echo begun; until [ -e /run/sidehook/go ]; do sleep 0.1; done'];
    const client = await sidecar.clientIn(project.stack, ['run', 'backup', '--', ...waiting]);
    await until(async () => (await client.log()).includes('begun'), { what: 'the command', deadlineMs: 60_000 });
    const held = await Promise.all(NAMES.map(project.lifeOf));
    assert.ok(held.every(({ Running }) => !Running));
    await sidecar.kill();
    await sidecar.start();
    assert.deepEqual(await Promise.all(NAMES.map(project.lifeOf)), held, 'still held, all the while');
    await writeFile(join(sidecar.runDir, 'go'), '');
    assert.equal(await client.ended(), 0, await client.log());
    assert.ok(await project.runs(...NAMES));
    assert.deepEqual(await callsOf(sidecar), ['10-count pre ', '10-count post success']);
  });

  it('starts them again at its next start when both are killed', async () => {
    await using project = await openServices(THREE);
    await using sidecar = await openSidecar({ scope: project.stack.name });
    const client = await sidecar.clientIn(project.stack, ['run', 'backup', '--', 'sleep', '1000']);
    await project.untilStopped(...NAMES);
    await untilOpen(sidecar);
    await sidecar.kill();
    await client.kill();
    assert.equal(await project.runs('db'), false);
    await sidecar.start();
    await project.untilRunning(...NAMES);
    await untilClosed(sidecar);
  });

  it('starts them by release --all while the daemon is down, and leaves them alone when it is back', async () => {
    await using project = await openServices(THREE);
    await using sidecar = await openSidecar({ scope: project.stack.name });
    const client = await sidecar.clientIn(project.stack, ['run', 'backup', '--', 'sleep', '1000']);
    await project.untilStopped(...NAMES);
    await untilOpen(sidecar);
    await sidecar.kill();
    const release = sidecar.cli('release', '--all');
    assert.equal(await release.ended, 0, release.err());
    assert.ok(await project.runs(...NAMES));
    const startsOf = async () => (await Promise.all(NAMES.map(project.lifeOf))).map(({ StartedAt }) => StartedAt);
    const starts = await startsOf();
    await sidecar.start();
    await client.kill();
    await untilClosed(sidecar);
    assert.deepEqual(await startsOf(), starts);
  });

  it('starts those that it had stopped when it is killed in the middle of its stops', async () => {
    await using project = await openServices(THREE);
    await using sidecar = await openSidecar({ scope: project.stack.name });
    const client = await sidecar.clientIn(project.stack, ['run', 'backup', '--', 'true']);
    await project.untilStopped('web');
    await sidecar.kill();
    await sidecar.start();
    await project.untilRunning(...NAMES);
    assert.equal(await client.ended(), 75, await client.log());
    await untilClosed(sidecar);
  });
});

describe('a daemon that is told to end', () => {
  it('starts first what it holds for a living client, which is told 65', async () => {
    await using project = await openServices(THREE);
    await using sidecar = await openSidecar({ scope: project.stack.name });
    const pre = sidecar.client('signal', 'backup', 'pre');
    assert.equal(await pre.ended, 0, pre.err());
    assert.equal(await project.runs('db'), false);
    assert.equal(await sidecar.end(), 0, sidecar.log());
    assert.ok(await project.runs(...NAMES), 'before it ended');
    await sidecar.start();
    const post = sidecar.client('signal', 'backup', 'post');
    assert.equal(await post.ended, 65, post.err());
    assert.match(lastLineOf(post.err()), /its holds were released, since the sidecar was stopped/);
    await untilClosed(sidecar);
  });

  it('keeps what it holds where it is told so, and goes on at its next start', async () => {
    await using project = await openServices([{ name: 'db' }]);
    const env = { SIDEHOOK_SHUTDOWN_HOLDS: 'keep' };
    await using sidecar = await openSidecar({ scope: project.stack.name, env });
    const pre = sidecar.client('signal', 'backup', 'pre');
    assert.equal(await pre.ended, 0, pre.err());
    assert.equal(await sidecar.end(), 0, sidecar.log());
    assert.equal(await project.runs('db'), false);
    await sidecar.start();
    const post = sidecar.client('signal', 'backup', 'post');
    assert.equal(await post.ended, 0, post.err());
    assert.ok(await project.runs('db'));
    await untilClosed(sidecar);
  });

  it('ends without its engine, too, while it still recovers', async () => {
    await using project = await openServices([{ name: 'db' }]);
    await using proxy = await openProxy();
    await using sidecar = await openSidecar({ scope: project.stack.name, host: proxy.host });
    await sidecar.addHook('20-wait', '#!/bin/sh\n# sidehook: on=backup.pre while=held\necho held; exec sleep 1000\n');
    const client = sidecar.client('run', 'backup', '--', 'true');
    await until(() => client.err().includes('held'), { what: 'the hook' });
    await sidecar.kill();
    await proxy.cut();
    const started = sidecar.start().catch(() => undefined); // it never gets ready
    await until(() => sidecar.log().includes('"engine away'), { what: 'the daemon to recover' });
    assert.equal(await sidecar.end(), 0, sidecar.log());
    await started;
    await proxy.mend();
    await sidecar.start();
    await project.untilRunning('db');
    assert.equal(await client.ended, 75, client.err());
    await untilClosed(sidecar);
  });

  it('ends without its engine, too, and forgets nothing', async () => {
    await using project = await openServices([{ name: 'db' }]);
    await using proxy = await openProxy();
    await using sidecar = await openSidecar({ scope: project.stack.name, host: proxy.host });
    const pre = sidecar.client('signal', 'backup', 'pre');
    assert.equal(await pre.ended, 0, pre.err());
    await proxy.cut();
    assert.equal(await sidecar.end(), 0, sidecar.log());
    assert.match(sidecar.log(), /the engine is away: kept for the next start/);
    await proxy.mend();
    await sidecar.start();
    assert.equal(await project.runs('db'), false, 'its run is still open');
    const post = sidecar.client('signal', 'backup', 'post');
    assert.equal(await post.ended, 0, post.err());
    assert.ok(await project.runs('db'));
    await untilClosed(sidecar);
  });
});

type Change = {
  readonly what: string;
  readonly does: (sidecar: Sidecar) => Promise<unknown>;
  /** What the client is told; undefined where all is well. */
  readonly why?: RegExp;
};

describe('what changes between pre and post', () => {
  const changes: readonly Change[] = [
    { what: 'its file is deleted', does: ({ hooksDir }) => rm(join(hooksDir, '10-hook')), why: /10-hook: not found/ },
    {
      what: 'its file is edited into nonsense',
      does: ({ hooksDir }) => writeFile(join(hooksDir, '10-hook'), '# sidehook: nonsense\n'),
      why: /10-hook .*no #! line/,
    },
    {
      what: 'its file can be run no more',
      does: ({ hooksDir }) => chmod(join(hooksDir, '10-hook'), 0o000),
      why: /10-hook .*not executable/,
    },
    { what: 'the whole folder is gone', does: ({ hooksDir }) => rm(hooksDir, { recursive: true }), why: /not found/ },
    {
      what: 'a hook with a bad header has come',
      does: (sidecar) => sidecar.addHook('20-bad', '#!/bin/sh\n# sidehook: x=y\n'),
    },
  ];
  for (const { what, does, why } of changes) {
    it(`releases what is held, runs the other hooks and answers, when ${what}`, async () => {
      await using project = await openServices([{ name: 'db' }]);
      await using sidecar = await openSidecar({ scope: project.stack.name });
      for (const name of ['10-hook', '30-last']) await sidecar.addHook(name, recorder(sidecar));
      const pre = sidecar.client('signal', 'backup', 'pre');
      assert.equal(await pre.ended, 0, pre.err());
      assert.equal(await project.runs('db'), false);
      await does(sidecar);
      const post = sidecar.client('signal', 'backup', 'post');
      assert.equal(await post.ended, why === undefined ? 0 : 78, post.err());
      assert.match(lastLineOf(post.err()), why ?? /^sidehook: held: \S+db \d+\.\ds$/);
      assert.ok(await project.runs('db'), post.err());
      const isFolderGone = what.includes('folder');
      const posts = [...(isFolderGone ? [] : ['30-last post success']), ...(why ? [] : ['10-hook post success'])];
      assert.deepEqual(await callsOf(sidecar), ['10-hook pre ', '30-last pre ', ...posts]);
      await untilClosed(sidecar);
    });
  }

  it('releases what is held, and answers, when a sidecar that is not root can read a hook no more', async () => {
    await using project = await openServices([{ name: 'db' }]);
    await using proxy = await openProxy();
    const socket = proxy.host.slice('unix://'.length);
    await chmod(dirname(socket), 0o755);
    await chmod(socket, 0o666);
    const options = { host: proxy.host, user: { uid: 4000, gid: 4242 } };
    await using sidecar = await openSidecar({ scope: project.stack.name, ...options });
    for (const name of ['10-hook', '30-last']) await sidecar.addHook(name, recorder(sidecar));
    const pre = sidecar.client('signal', 'backup', 'pre');
    assert.equal(await pre.ended, 0, pre.err());
    assert.equal(await project.runs('db'), false);
    await chmod(join(sidecar.hooksDir, '10-hook'), 0o700); // its owner is root
    const post = sidecar.client('signal', 'backup', 'post');
    assert.equal(await post.ended, 78, post.err());
    assert.match(lastLineOf(post.err()), /10-hook .*not executable for us, .*it has changed since it was planned$/);
    assert.ok(await project.runs('db'), post.err());
    assert.deepEqual(await callsOf(sidecar), ['10-hook pre ', '30-last pre ', '30-last post success']);
    await untilClosed(sidecar);
  });

  it('releases what is held when a container with a bad label has come', async () => {
    await using project = await openServices([{ name: 'db' }]);
    await using sidecar = await openSidecar({ scope: project.stack.name });
    const pre = sidecar.client('signal', 'backup', 'pre');
    assert.equal(await pre.ended, 0, pre.err());
    const { stack } = project;
    await stack.run({ name: 'bad', labels: { ...composeLabels(stack.name, 'bad'), 'sidehook.hold': 'nonsense' } });
    const post = sidecar.client('signal', 'backup', 'post');
    assert.equal(await post.ended, 0, post.err());
    assert.ok(await project.runs('db'));
  });

  it('tells the client when the engine is away at post, and releases once it is back', async () => {
    await using project = await openServices([{ name: 'db' }]);
    await using proxy = await openProxy();
    const env = { SIDEHOOK_HOLD_HEALTH_TIMEOUT: '2s' };
    await using sidecar = await openSidecar({ scope: project.stack.name, host: proxy.host, env });
    const pre = sidecar.client('signal', 'backup', 'pre');
    assert.equal(await pre.ended, 0, pre.err());
    await proxy.cut();
    const post = sidecar.client('signal', 'backup', 'post');
    assert.equal(await post.ended, 69, post.err());
    assert.match(lastLineOf(post.err()), /done when the engine is back/);
    assert.equal(await project.runs('db'), false);
    const refused = sidecar.client('signal', 'backup', 'pre', '--job', 'other');
    assert.equal(await refused.ended, 69, refused.err());
    assert.match(lastLineOf(refused.err()), /engine|docker/i);
    await proxy.mend();
    await project.untilRunning('db');
    await untilClosed(sidecar);
  });
});

describe('an engine that goes away in the middle of pre', () => {
  it('is told to the client with 69, and what was stopped by then runs again once it is back', async () => {
    await using project = await openServices([{ name: 'db' }, { name: 'web', after: 'db' }]);
    await using proxy = await openProxy();
    const env = { SIDEHOOK_HOLD_HEALTH_TIMEOUT: '2s' };
    await using sidecar = await openSidecar({ scope: project.stack.name, host: proxy.host, env });
    const gate = join(sidecar.workDir, 'go');
    const target = `# sidehook: on=backup.pre target=container:${project.stack.named('other')}`;
    await project.stack.run({ name: 'other', labels: composeLabels(project.stack.name, 'other') });
    await sidecar.addHook(
      '20-wait',
      `#!/bin/sh\n# sidehook: while=held\necho held; until [ -e '${gate}' ]; do sleep 0.1; done\n`,
    );
    await sidecar.addHook('30-inside', `#!/bin/sh\n${target} while=held\ntrue\n`);
    const client = sidecar.client('run', 'backup', '--', 'echo', 'the command ran');
    await until(() => client.err().includes('held'), { what: 'the hook' });
    assert.equal(await project.runs('db'), false);
    await proxy.cut();
    await writeFile(gate, '');
    assert.equal(await client.ended, 69, client.err());
    assert.match(lastLineOf(client.err()), /^sidehook: backup pre: hook 30-inside .*cannot be reached/);
    assert.equal(client.out(), '');
    assert.equal(await project.runs('db'), false);
    await proxy.mend();
    await project.untilRunning('db', 'web');
    await untilClosed(sidecar);
  });
});

describe('bad input', () => {
  it('is answered with a code and one line that says what to do, and the daemon lives on', async () => {
    await using sidecar = await openSidecar({ scope: 'nothing', env: { SIDEHOOK_ENGINE: 'none' } });
    const pid = sidecar.pid();
    const tries: readonly (readonly [readonly string[], number, RegExp])[] = [
      [['signal', 'destroy', 'pre'], 77, /destroy.*(?:allowed|operation)/],
      [['signal', 'backup', 'before'], 64, /before/],
      [['signal', 'backup', 'pre', '--param', 'bad name=1'], 64, /param/],
      [['signal', 'backup', 'pre', '--job', '../../etc'], 64, /job/],
      [['signal', 'backup', 'inspect', '--inspect', '../../etc'], 78, /inspect.*not supported/],
    ];
    for (const [args, code, line] of tries) {
      const client = sidecar.client(...args);
      assert.equal(await client.ended, code, `${args.join(' ')}: ${client.err()}`);
      assert.match(lastLineOf(client.err()), line);
    }
    await sidecar.addHook('10-bad', '#!/bin/sh\n# sidehook: targett=host\ntrue\n');
    const bad = sidecar.client('signal', 'backup', 'pre');
    assert.equal(await bad.ended, 78, bad.err());
    assert.match(lastLineOf(bad.err()), /10-bad, line 2, targett/);
    await rm(join(sidecar.hooksDir, '10-bad'));

    const head = 'POST /v1/signals HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ';
    const large = Buffer.concat([Buffer.from(`${head}10485760\r\n\r\n"`), Buffer.alloc(10_485_759, 'x')]);
    assert.match(await tell(sidecar, large), /^HTTP\/1\.1 413 .*application\/problem\+json/s);
    assert.match(
      await tell(sidecar, Buffer.from(Array.from({ length: 4096 }, (_, at) => (at * 7) % 256))),
      /^HTTP\/1\.1 400 /,
    );
    assert.match(
      await tell(sidecar, Buffer.from(`${head}9\r\n\r\n{"state":`)),
      /^HTTP\/1\.1 4\d\d .*application\/problem\+json/s,
    );

    const spool = join(sidecar.runDir, 'spool');
    const hostile: Readonly<Record<string, string | Buffer>> = {
      'halfhalf.1': 'version=1\noperation=backup\nsta',
      'junkjunk.1': Buffer.from([0, 255, 254, 10, 13, 0]),
      'largelarge.1': Buffer.alloc(10_485_760, 'y'),
    };
    for (const [id, bytes] of Object.entries(hostile)) {
      await writeFile(join(spool, `${id}.part`), bytes);
      await rename(join(spool, `${id}.part`), join(spool, 'in', `${id}.req`));
      const readAnswer = () => readFile(join(spool, 'out', `${id}.ans`), 'utf8').catch(() => undefined);
      const answer = await until(readAnswer, { what: `the answer to ${id}` });
      assert.match(answer, /^exit=64\n(?:.*\n)*message=request: expected/m);
    }
    const good = sidecar.client('signal', 'backup', 'pre');
    assert.equal(await good.ended, 0, good.err());
    assert.equal(sidecar.pid(), pid);
  });

  it('of a label is answered 78, and holds nothing', async () => {
    await using project = await openServices([{ name: 'db' }]);
    await using sidecar = await openSidecar({ scope: project.stack.name, down: true });
    const { stack } = project;
    await serveInContainer(stack, sidecar, [`${engineSocket()}:/var/run/docker.sock`]);
    const labels = { ...composeLabels(stack.name, 'bad'), 'sidehook.backup.pre': '["sh", "-c"' };
    await stack.run({ name: 'bad', labels });
    const client = await sidecar.clientIn(stack, ['run', 'backup', '--', 'echo', 'the command ran']);
    assert.equal(await client.ended(), 78, await client.log());
    assert.match(lastLineOf(await client.log()), /label sidehook\.backup\.pre: expected a JSON array/);
    assert.doesNotMatch(await client.log(), /^the command ran$/m);
    assert.ok(await project.runs('db'));
  });

  it('of a label in a project that a sidecar outside compose was given is answered 78, and holds nothing', async () => {
    await using project = await openServices([{ name: 'db' }]);
    await using sidecar = await openSidecar({ scope: project.stack.name });
    const labels = { ...composeLabels(project.stack.name, 'bad'), 'sidehook.hold': 'stpo' };
    await project.stack.run({ name: 'bad', labels });
    const client = sidecar.client('run', 'backup', '--', 'echo', 'the command ran');
    assert.equal(await client.ended, 78, client.err());
    assert.match(lastLineOf(client.err()), /label sidehook\.hold: expected stop/);
    assert.equal(client.out(), '');
    assert.ok(await project.runs('db'));
  });

  it('of two sidecars on one state directory ends the second with 78, and the first goes on', async () => {
    await using project = await openServices([{ name: 'db' }]);
    await using sidecar = await openSidecar({ scope: project.stack.name });
    const second = sidecar.cli('serve');
    assert.equal(await second.ended, 78, second.err());
    assert.match(second.err(), /another sidehook uses this state directory/);
    const client = sidecar.client('run', 'backup', '--', 'true');
    assert.equal(await client.ended, 0, client.err());
  });

  it('of a journal that a newer version wrote ends the daemon with 78, and leaves the journal as it is', async () => {
    await using sidecar = await openSidecar({ scope: 'nothing' });
    await sidecar.kill();
    const path = join(sidecar.stateDir, 'journal.db');
    using journal = new DatabaseSync(path);
    journal.exec('PRAGMA user_version = 99');
    journal.close();
    const daemon = sidecar.cli('serve');
    assert.equal(await daemon.ended, 78, daemon.err());
    assert.match(daemon.err(), /a newer sidehook wrote it \(format 99, this one knows 1\)/);
    using left = new DatabaseSync(path, { readOnly: true });
    assert.equal(left.prepare('PRAGMA user_version').get()?.user_version, 99);
  });

  it('of no engine at all ends the daemon with 78 and what to do', async () => {
    await using stack = await openStack('noengine');
    await using sidecar = await openSidecar({ scope: stack.name, down: true });
    const id = await startInContainer(stack, sidecar, []);
    assert.equal(await docker('wait', id), '78');
    assert.match(lastLineOf(await logsOf(id)), /no engine found .*mount its socket, or say engine: none$/);
  });

  it('of an engine that is not there is an outage: 69 for each signal, and what to do', async () => {
    await using sidecar = await openSidecar({ scope: 'nothing', host: 'unix:///nowhere/docker.sock' });
    const client = sidecar.client('run', 'backup', '--', 'echo', 'the command ran');
    assert.equal(await client.ended, 69, client.err());
    assert.match(lastLineOf(client.err()), /\/nowhere\/docker\.sock cannot be reached: .*mount it, or set DOCKER_HOST/);
    assert.equal(client.out(), '');
  });
});

/** Sends bytes to the socket, and resolves to all that comes back. */
function tell({ runDir }: Sidecar, bytes: Buffer): Promise<string> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    const socket = createConnection(join(runDir, 'sidehook.sock'));
    socket.on('data', (chunk) => chunks.push(chunk));
    socket.on('error', () => undefined); // refused in the middle of what is sent
    socket.on('close', () => resolve(Buffer.concat(chunks).toString()));
    socket.end(bytes);
  });
}

/** A daemon in a container of the project, as compose has it. Resolves to the container's id. */
async function startInContainer(stack: Stack, sidecar: Sidecar, volumes: readonly string[]): Promise<string> {
  const { runDir, stateDir } = sidecar;
  return stack.run({
    name: 'sidehook',
    image: await ensureImage('node:26-alpine'),
    args: ['node', '/app/src/main.ts', 'serve'],
    labels: composeLabels(stack.name, 'sidehook'),
    volumes: [`${ROOT}:/app:ro`, `${runDir}:/run/sidehook`, `${stateDir}:/var/lib/sidehook`, ...volumes],
  });
}

async function serveInContainer(...[stack, sidecar, volumes]: Parameters<typeof startInContainer>): Promise<void> {
  const id = await startInContainer(stack, sidecar, volumes);
  const isReady = async () => (await logsOf(id)).includes('"ready"');
  await until(isReady, { what: 'the daemon in its container', deadlineMs: 60_000, everyMs: 200 });
}

/** A hook that writes down how it was called. */
function recorder({ workDir }: Sidecar): string {
  return `#!/bin/sh\necho "$SIDEHOOK_HOOK $2 $SIDEHOOK_OUTCOME" >>'${workDir}/calls'\n`;
}

type StatusDocument = { readonly runs: readonly { readonly phase: string }[]; readonly holds: readonly unknown[] };

async function statusOf(sidecar: Sidecar): Promise<StatusDocument> {
  const status = sidecar.cli('status', '--json');
  assert.equal(await status.ended, 0, status.err());
  return JSON.parse(status.out());
}

const untilOpen = (sidecar: Sidecar) =>
  until(async () => (await statusOf(sidecar)).runs.some(({ phase }) => phase === 'open'), {
    ...{ what: 'the run to be open', deadlineMs: 60_000 },
  });

/** Nothing is owed any more: no run is open, nothing is held. */
const untilClosed = (sidecar: Sidecar) =>
  until(
    async () => {
      const { runs, holds } = await statusOf(sidecar);
      return runs.length === 0 && holds.length === 0;
    },
    { what: 'the run to be over', deadlineMs: 60_000 },
  );

async function callsOf({ workDir }: Sidecar): Promise<readonly string[]> {
  return (await readFile(join(workDir, 'calls'), 'utf8')).split('\n').slice(0, -1);
}

function lastLineOf(text: string): string {
  return text.trimEnd().split('\n').at(-1) ?? '';
}
