import assert from 'node:assert/strict';
import { once } from 'node:events';
import { chmod, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer as createHttpServer } from 'node:http';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { getuid } from 'node:process';
import { describe, it } from 'node:test';
import { lastLine, startCli } from '../../support/cli.ts';
import { obliging, openSidecar } from '../../support/scripted-sidecar.ts';

describe('sidehook signal', () => {
  it('prints what hooks print where it came from, byte for byte, and exits with the answer', async () => {
    const bytes = Buffer.from([0x00, 0xff, 0xfe, 0x0a, 0xc3]);
    await using sidecar = await openSidecar({
      async script({ output, answer }) {
        await output({ stream: 'out', bytes });
        await output({ stream: 'err', bytes: Buffer.from('oh') });
        await answer({ exitCode: 42, message: 'backup pre: hook 20-dump (service:db) exited 42', notes: ['odd'] });
      },
    });
    await using cli = startCli(['signal', 'backup', 'pre', '--dir', sidecar.dir]);
    const chunks: Buffer[] = [];
    cli.child.stdout?.on('data', (chunk) => chunks.push(chunk as Buffer));
    assert.equal(await cli.ended, 42);
    assert.deepEqual(Buffer.concat(chunks), bytes);
    assert.equal(cli.err(), 'oh\nsidehook: odd\nsidehook: backup pre: hook 20-dump (service:db) exited 42\n');
  });

  it('sends what it is told, and takes the run and the job from within a run', async () => {
    await using sidecar = await openSidecar({});
    const env = { SIDEHOOK_DIR: sidecar.dir, SIDEHOOK_RUN_ID: 'run-9', SIDEHOOK_JOB: 'nightly' };
    await using cli = startCli(['signal', 'backup', 'post', '--outcome', 'failure', '--status', '3'], env);
    assert.equal(await cli.ended, 0);
    const { request } = sidecar.seen[0] ?? assert.fail('no request');
    assert.deepEqual([request.runId, request.job, request.outcome, request.status], ['run-9', 'nightly', 'failure', 3]);
    assert.deepEqual([request.waitMs, request.lease], [0, 3_600_000]);

    await using other = startCli(['signal', 'backup', 'pre', '--lease', '2h', '--job', 'mine', '--wait', '5m'], env);
    assert.equal(await other.ended, 0);
    const pre = sidecar.seen[1]?.request;
    assert.deepEqual([pre?.runId, pre?.job, pre?.lease, pre?.waitMs], [undefined, 'mine', 7_200_000, 300_000]);
  });

  it('leaves the id of its run in a file, which later signals read, until post', async () => {
    await using sidecar = await openSidecar({});
    const file = join(sidecar.dir, 'run-id');
    const send = async (state: string): Promise<number> => {
      await using cli = startCli(['signal', 'backup', state, '--run-file', file, '--dir', sidecar.dir]);
      return await cli.ended;
    };
    assert.equal(await send('pre'), 0);
    assert.equal(await readFile(file, 'utf8'), 'run-1\n');
    assert.equal(await send('inspect'), 0);
    assert.equal(await send('post'), 0);
    assert.deepEqual(
      sidecar.seen.map(({ request: { runId } }) => runId),
      [undefined, 'run-1', 'run-1'],
    );
    await writeFile(file, '');
    assert.equal(await send('inspect'), 64);
    await rm(file);
    assert.equal(await send('inspect'), 64);
    await mkdir(file);
    assert.equal(await send('pre'), 64);
    assert.equal(sidecar.seen.length, 3);
  });

  it('ends a run again that it cannot write down, and says 70', async () => {
    await using sidecar = await openSidecar({
      async script(delivery) {
        if (delivery.request.state === 'pre') await rm(file).then(() => mkdir(file));
        await obliging(delivery);
      },
    });
    const file = join(sidecar.dir, 'run-id');
    await using cli = startCli(['signal', 'backup', 'pre', '--run-file', file, '--lease', '1m', '--dir', sidecar.dir]);
    assert.equal(await cli.ended, 70, cli.err());
    assert.match(lastLine(cli.err()), /^sidehook: backup pre: cannot write to .*run-id: .*; so the run was ended/);
    const { state, runId, outcome } = sidecar.seen.at(-1)?.request ?? assert.fail();
    assert.deepEqual({ state, runId, outcome }, { state: 'post', runId: 'run-1', outcome: 'failure' });
  });

  it('leaves no run in its file when none was opened', async () => {
    await using sidecar = await openSidecar({
      script: ({ answer }) => answer({ exitCode: 75, message: 'busy', notes: [] }),
    });
    await using cli = startCli([
      'signal',
      'backup',
      'pre',
      '--run-file',
      join(sidecar.dir, 'run-id'),
      '--dir',
      sidecar.dir,
    ]);
    assert.equal(await cli.ended, 75);
    assert.equal(await readFile(join(sidecar.dir, 'run-id'), 'utf8'), '');
  });

  it('ends with the signal that ends it, and its sender is gone', async ({ signal }) => {
    await using sidecar = await openSidecar({ script: () => undefined });
    await using cli = startCli(['signal', 'backup', 'pre', '--dir', sidecar.dir]);
    const { sender } = await sidecar.requested('pre');
    cli.child.kill('SIGINT');
    assert.equal(await cli.ended, 130);
    assert.equal(lastLine(cli.err()), 'sidehook: backup pre: ended by SIGINT before there was an answer');
    await sender.lost(signal);
  });

  it('says 70 where something else answers', async () => {
    await using sidecar = await openSidecar({});
    await sidecar.stop();
    const speaks = [
      createHttpServer((_, response) => response.end('hello')),
      createServer((connection) => connection.resume().end('SSH-2.0-OpenSSH_9.2\r\n')),
    ];
    for (const server of speaks) {
      await using other = server;
      await once(other.listen(sidecar.socketPath), 'listening');
      await using cli = startCli(['signal', 'backup', 'pre', '--dir', sidecar.dir]);
      assert.equal(await cli.ended, 70);
      assert.match(lastLine(cli.err()), /^sidehook: answer from .*sidehook\.sock: not understood/);
    }
  });

  it('says 77 where the socket is closed to us', {
    skip: getuid?.() !== 0 && 'root alone can be somebody else',
  }, async () => {
    await using sidecar = await openSidecar({});
    await chmod(sidecar.dir, 0o755);
    await using cli = startCli(['signal', 'backup', 'pre', '--dir', sidecar.dir], {}, { uid: 65_534, gid: 65_534 });
    assert.equal(await cli.ended, 77);
    assert.match(lastLine(cli.err()), /^sidehook: connect to .*: its owner and mode do not let us in/);
  });

  it('goes on when nobody reads what it prints', async () => {
    await using sidecar = await openSidecar({
      async script(delivery) {
        for (let turn = 0; turn < 20; turn += 1)
          await delivery.output({ stream: 'out', bytes: Buffer.alloc(65_536, 'x') });
        await obliging(delivery);
      },
    });
    await using cli = startCli(['signal', 'backup', 'post', '--dir', sidecar.dir]);
    cli.child.stdout?.destroy();
    assert.equal(await cli.ended, 0);
  });
});
