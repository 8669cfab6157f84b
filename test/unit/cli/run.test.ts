import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { describe, it } from 'node:test';
import type { Delivery } from '../../../src/core/ports.ts';
import type { Answer } from '../../../src/core/result.ts';
import { lastLine, startCli, waitingCommand } from '../../support/cli.ts';
import { obliging, openSidecar } from '../../support/scripted-sidecar.ts';
import { until } from '../../support/until.ts';

describe('sidehook run', () => {
  it('runs the command between pre and post, with its own streams and the run in its environment', async () => {
    await using sidecar = await openSidecar({ script: talkative });
    const command = [
      'sh',
      '-c',
      'read -r line; echo "$line $SIDEHOOK_RUN_ID $SIDEHOOK_JOB $SIDEHOOK_OPERATION $SIDEHOOK_DIR"',
    ];
    const args = ['run', 'backup', '--job', 'nightly', '--param', 'path=/data', '--dir', sidecar.dir, '--', ...command];
    await using cli = startCli(args, {}, { stdio: ['pipe', 'pipe', 'pipe'] });
    cli.child.stdin?.end('hello\n');
    assert.equal(await cli.ended, 0);
    assert.equal(cli.out(), `hello run-1 nightly backup ${sidecar.dir}\n`);
    assert.equal(cli.err(), 'out of pre\nerr of pre\nout of post\nerr of post\n');

    const [pre, post] = sidecar.seen.map(({ request }) => request);
    assert.equal(sidecar.seen.length, 2);
    assert.deepEqual([pre?.state, pre?.job, pre?.lease, pre?.waitMs], ['pre', 'nightly', 'held', 3_600_000]);
    assert.deepEqual(pre?.params, { PATH: '/data' });
    assert.deepEqual([post?.state, post?.runId, post?.status, post?.outcome], ['post', 'run-1', 0, 'success']);
    assert.equal(sidecar.seen[0]?.sender.ref, sidecar.seen[1]?.sender.ref);
  });

  const codes: readonly (readonly [
    what: string,
    command: string,
    pre: number,
    post: number,
    exit: number,
    last: string,
  ])[] = [
    ['a good run', 'exit 0', 0, 0, 0, ''],
    ['a command that fails', 'exit 3', 0, 0, 3, 'sidehook: backup: command sh exited 3'],
    ['a code of the table from the command', 'exit 65', 0, 0, 65, 'sidehook: backup: command sh exited 65'],
    ['a command that fails over a hook that does', 'exit 3', 0, 42, 3, 'sidehook: backup: command sh exited 3'],
    ['a command that fails over a lost hold', 'exit 1', 0, 65, 1, 'sidehook: backup: command sh exited 1'],
    ['a command that kills itself', 'kill -9 $$', 0, 0, 137, 'sidehook: backup: command sh was ended by SIGKILL'],
    ['a hook that fails before', 'exit 0', 42, 0, 42, 'sidehook: pre says 42'],
    ['a hook that says not now', 'exit 0', 75, 0, 75, 'sidehook: pre says 75'],
    ['a hook that fails after', 'exit 0', 0, 1, 1, 'sidehook: post says 1'],
    ['a backup not to be trusted', 'exit 0', 0, 65, 65, 'sidehook: post says 65'],
    ['a workload that does not come back', 'exit 0', 0, 74, 74, 'sidehook: post says 74'],
  ];
  for (const [what, command, pre, post, exit, last] of codes) {
    it(`exits with ${exit} for ${what}`, async () => {
      await using sidecar = await openSidecar({ script: answering({ pre, post }) });
      const line = `touch ${sidecar.dir}/ran; ${command}`;
      await using cli = startCli(['run', 'backup', '--dir', sidecar.dir, '--', 'sh', '-c', line]);
      assert.equal(await cli.ended, exit);
      assert.equal(lastLine(cli.err()), last);
      const states = sidecar.seen.map(({ request }) => request.state);
      assert.deepEqual(states, pre === 0 ? ['pre', 'post'] : ['pre']);
      const ran = readFile(join(sidecar.dir, 'ran'));
      if (pre === 0) await ran;
      else await assert.rejects(ran, { code: 'ENOENT' });
    });
  }

  it('exits with 127 for a command that is not there, and 126 for one that is none, after post', async () => {
    await using sidecar = await openSidecar({});
    await writeFile(join(sidecar.dir, 'text'), 'no program', { mode: 0o644 });
    const expected = [
      [join(sidecar.dir, 'nothing'), 127, 'was not found'],
      [join(sidecar.dir, 'text'), 126, 'could not be executed: permission denied'],
    ] as const;
    for (const [program, exit, what] of expected) {
      await using cli = startCli(['run', 'backup', '--dir', sidecar.dir, '--', program]);
      assert.equal(await cli.ended, exit);
      assert.equal(lastLine(cli.err()), `sidehook: backup: command ${program} ${what}`);
      const { request } = sidecar.seen.at(-1) as Delivery;
      assert.deepEqual([request.state, request.status, request.outcome], ['post', exit, 'failure']);
    }
  });

  it('ends a command that takes too long, and exits with 124 after post', async () => {
    await using sidecar = await openSidecar({});
    await using cli = startCli(['run', 'backup', '--timeout', '300ms', '--dir', sidecar.dir, '--', 'sleep', '1000']);
    assert.equal(await cli.ended, 124);
    assert.equal(lastLine(cli.err()), 'sidehook: backup: command sleep ran out of time (300ms)');
    assert.deepEqual(sidecar.seen.at(-1)?.request.status, 124);
  });

  it('tells what was passed over or is odd, and begins its own lines on lines of their own', async () => {
    await using sidecar = await openSidecar({
      async script({ request, output, answer }) {
        await output({ stream: 'out', bytes: Buffer.from('no newline') });
        await answer({ exitCode: 0, runId: 'run-1', notes: [`note of ${request.state}`] });
      },
    });
    await using cli = startCli(['run', 'backup', '--dir', sidecar.dir, '--', 'true']);
    assert.equal(await cli.ended, 0);
    assert.equal(cli.err(), 'no newline\nsidehook: note of pre\nno newline\nsidehook: note of post\n');
  });

  it('prints what a hook says while it runs, every byte', async () => {
    const heard = Promise.withResolvers<void>();
    await using sidecar = await openSidecar({
      async script(delivery) {
        await delivery.output({ stream: 'out', bytes: Buffer.from('dumping db ') });
        await heard.promise;
        await obliging(delivery);
      },
    });
    await using cli = startCli(['run', 'backup', '--dir', sidecar.dir, '--', 'true']);
    await cli.said('dumping db');
    assert.equal(cli.child.exitCode, null);
    heard.resolve();
    assert.equal(await cli.ended, 0);
  });

  it('passes signals on to the command, and does post', async () => {
    await using sidecar = await openSidecar({});
    const command = 'trap "echo told; exit 7" TERM; echo ready; while :; do sleep 0.05; done';
    await using cli = startCli(['run', 'backup', '--dir', sidecar.dir, '--', 'sh', '-c', command]);
    await cli.said('ready');
    cli.child.kill('SIGTERM');
    assert.equal(await cli.ended, 7);
    assert.equal(cli.out(), 'ready\ntold\n');
    assert.equal(sidecar.seen.at(-1)?.request.status, 7);
  });

  it('does not pass on what the terminal has sent to the command already', {
    skip: !existsSync('/usr/bin/script'),
  }, async () => {
    await using sidecar = await openSidecar({});
    const go = join(sidecar.dir, 'go');
    const begin = "process.on('SIGINT', () => console.log('got it')); console.log('ready')";
    const poll = `setInterval(() => require('fs').existsSync('${go}') && process.exit(console.log('over') ?? 0), 50)`;
    const command = [process.execPath, '-e', `${begin}; ${poll}`];
    const words = [process.execPath, resolve('src/main.ts'), 'run', 'backup', '--dir', sidecar.dir, '--', ...command];
    // exec: or a shell in between gets the signal, too, and dash dies of it.
    const line = `exec ${words.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(' ')}`;
    const terminal = spawn('/usr/bin/script', ['-qfec', line, '/dev/null'], { stdio: ['pipe', 'pipe', 'ignore'] });
    let screen = '';
    terminal.stdout.on('data', (chunk) => {
      screen += String(chunk);
    });
    const has = (text: string) => until(() => screen.includes(text), { what: `${text} in ${screen}` });
    const closed = once(terminal, 'close');
    await has('ready');
    terminal.stdin.write('\u0003');
    await has('got it');
    await writeFile(go, '');
    await has('over');
    assert.deepEqual(await closed, [0, null]);
    assert.equal(screen.match(/got it/g)?.length, 1);
  });

  it('gives up before the command when it is told to during pre', async ({ signal }) => {
    await using sidecar = await openSidecar({ script: () => undefined });
    await using cli = startCli(['run', 'backup', '--dir', sidecar.dir, '--', 'touch', join(sidecar.dir, 'ran')]);
    const { sender } = await sidecar.requested('pre');
    cli.child.kill('SIGTERM');
    assert.equal(await cli.ended, 143);
    await sender.lost(signal);
    assert.equal(lastLine(cli.err()), 'sidehook: backup: ended by SIGTERM before the command was started');
    await assert.rejects(readFile(join(sidecar.dir, 'ran')), { code: 'ENOENT' });
  });

  it('does not leave post at the first signal, but at the second', async () => {
    await using sidecar = await openSidecar({
      script: (delivery) => (delivery.request.state === 'pre' ? obliging(delivery) : undefined),
    });
    await using cli = startCli(['run', 'backup', '--dir', sidecar.dir, '--', 'true']);
    await sidecar.requested('post');
    cli.child.kill('SIGTERM');
    await cli.said('waiting for the hooks after the command');
    cli.child.kill('SIGINT');
    assert.equal(await cli.ended, 130);
  });

  it('says 69 when there is no sidecar', async () => {
    await using sidecar = await openSidecar({});
    await sidecar.stop();
    const args = ['run', 'backup', '--connect-timeout', '300ms', '--dir', sidecar.dir];
    await using cli = startCli([...args, '--', 'touch', join(sidecar.dir, 'ran')]);
    assert.equal(await cli.ended, 69);
    assert.match(
      lastLine(cli.err()),
      /^sidehook: no sidecar at .*sidehook\.sock: none answered within 300ms \(ENOENT\)$/,
    );
    await assert.rejects(readFile(join(sidecar.dir, 'ran')), { code: 'ENOENT' });
  });

  it('says 69 when there is one that takes nothing up', async () => {
    await using sidecar = await openSidecar({ deaf: true });
    await using cli = startCli(['run', 'backup', '--connect-timeout', '300ms', '--dir', sidecar.dir, '--', 'true']);
    assert.equal(await cli.ended, 69);
    assert.match(lastLine(cli.err()), /none took it up within 300ms \(does not take signals\)$/);
  });

  it('passes on what the sidecar refuses, with its code', async () => {
    await using sidecar = await openSidecar({});
    await using cli = startCli(['run', 'format', '--dir', sidecar.dir, '--', 'true']);
    assert.equal(await cli.ended, 77);
    assert.match(lastLine(cli.err()), /^sidehook: operation format: not allowed here/);
  });

  it('waits for a sidecar that comes up late', async () => {
    await using sidecar = await openSidecar({});
    await sidecar.stop();
    await using cli = startCli(['run', 'backup', '--dir', sidecar.dir, '--', 'sh', '-c', 'echo ran']);
    await until(() => cli.child.pid !== undefined, { what: 'the client' });
    await sidecar.start();
    assert.equal(await cli.ended, 0);
    assert.equal(cli.out(), 'ran\n');
  });
});

describe('sidehook run restore', () => {
  it('reports that the command starts before it does', async () => {
    await using sidecar = await openSidecar({});
    await using cli = startCli(['run', 'restore', '--dir', sidecar.dir, '--', 'true']);
    assert.equal(await cli.ended, 0);
    assert.deepEqual(
      sidecar.seen.map(({ request }) => [request.state, request.runId]),
      [
        ['pre', undefined],
        ['started', 'run-1'],
        ['post', 'run-1'],
      ],
    );
  });

  it('does not start the command when that is not taken down', async () => {
    await using sidecar = await openSidecar({ script: answering({ pre: 0, started: 70, post: 0 }) });
    await using cli = startCli(['run', 'restore', '--dir', sidecar.dir, '--', 'touch', join(sidecar.dir, 'ran')]);
    assert.equal(await cli.ended, 70);
    await assert.rejects(readFile(join(sidecar.dir, 'ran')), { code: 'ENOENT' });
    assert.equal(sidecar.seen.at(-1)?.request.outcome, 'failure');
  });

  it('ends its command when the run is given up, and a backup does not', async () => {
    for (const [operation, exit] of [
      ['restore', 65],
      ['backup', 65],
    ] as const) {
      await using sidecar = await openSidecar({});
      const [sh = '', c = '', line = ''] = waitingCommand(sidecar.dir);
      await using cli = startCli(['run', operation, '--dir', sidecar.dir, '--', sh, c, `${line}; echo whole`]);
      await until(() => readFile(join(sidecar.dir, 'begun')).catch(() => ''), { what: 'the command' });
      sidecar.seen[0]?.sender.abandon?.('it held for longer than 12h');
      await cli.said('the run was given up: it held for longer than 12h');
      if (operation === 'backup') await writeFile(join(sidecar.dir, 'go'), '');
      assert.equal(await cli.ended, exit);
      assert.equal(cli.out(), operation === 'backup' ? 'whole\n' : '');
      assert.match(lastLine(cli.err()), /do not trust it: it held for longer than 12h$/);
    }
  });
});

async function talkative(delivery: Delivery): Promise<void> {
  const { state } = delivery.request;
  await delivery.output({ stream: 'out', bytes: Buffer.from(`out of ${state}\n`) });
  await delivery.output({ stream: 'err', bytes: Buffer.from(`err of ${state}\n`) });
  await obliging(delivery);
}

function answering(codes: Readonly<Record<string, number>>): (delivery: Delivery) => Promise<void> {
  return ({ request: { state }, answer }) => {
    const exitCode = codes[state] ?? 0;
    const whole: Answer = {
      exitCode,
      runId: 'run-1',
      notes: [],
      ...(exitCode === 0 ? {} : { message: `${state} says ${exitCode}` }),
    };
    return answer(whole);
  };
}
