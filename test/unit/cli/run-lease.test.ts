import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { startCli, waitingCommand } from '../../support/cli.ts';
import { aRunView, isLost, obliging, openSidecar } from '../../support/scripted-sidecar.ts';
import { until } from '../../support/until.ts';

describe('the lease of sidehook run', () => {
  it('is lost when its client is killed during pre', async ({ signal }) => {
    await using sidecar = await openSidecar({ script: () => undefined });
    await using cli = startCli(['run', 'backup', '--dir', sidecar.dir, '--', 'true']);
    const { sender } = await sidecar.requested('pre');
    assert.equal(await isLost(sender), false);
    cli.child.kill('SIGKILL');
    assert.equal(await cli.ended, 137);
    await sender.lost(signal);
  });

  it('is kept by a command that outlives its killed client, and lost when the command has ended, too', async ({
    signal,
  }) => {
    await using sidecar = await openSidecar({});
    await using cli = startCli(
      ['run', 'backup', '--dir', sidecar.dir, '--', ...waitingCommand(sidecar.dir)],
      {},
      { stdio: 'ignore' },
    );
    await begun(sidecar.dir);
    const { sender } = await sidecar.requested('pre');
    cli.child.kill('SIGKILL');
    assert.equal(await cli.ended, 137);
    // The connection of the client itself is closed by now; a new one proves that the sidecar has seen that.
    await using other = startCli(['signal', 'backup', 'inspect', '--run', 'run-1', '--dir', sidecar.dir]);
    assert.equal(await other.ended, 0);
    assert.equal(await isLost(sender), false);
    await writeFile(join(sidecar.dir, 'go'), '');
    await sender.lost(signal);
  });

  it('is kept by a client that is merely stopped', async () => {
    await using sidecar = await openSidecar({ leaseTtlMs: 50 });
    await using cli = startCli(['run', 'backup', '--dir', sidecar.dir, '--', ...waitingCommand(sidecar.dir)]);
    const pid = Number(await begun(sidecar.dir));
    const { sender } = await sidecar.requested('pre');
    for (const one of [pid, cli.child.pid ?? 0]) process.kill(one, 'SIGSTOP');
    await until(async () => /^State:\s+T/m.test(await readFile(`/proc/${cli.child.pid}/status`, 'utf8')), {
      what: 'the stop',
    });
    // A second client takes many times the lease's term to come and go.
    await using other = startCli(['signal', 'backup', 'inspect', '--run', 'run-1', '--dir', sidecar.dir]);
    assert.equal(await other.ended, 0);
    assert.equal(await isLost(sender), false);
    for (const one of [pid, cli.child.pid ?? 0]) process.kill(one, 'SIGCONT');
    await writeFile(join(sidecar.dir, 'go'), '');
    assert.equal(await cli.ended, 0);
  });

  it('is over with its client', async ({ signal }) => {
    await using sidecar = await openSidecar({});
    await using cli = startCli(['run', 'backup', '--dir', sidecar.dir, '--', 'true']);
    assert.equal(await cli.ended, 0);
    await sidecar.seen[0]?.sender.lost(signal);
  });

  it('is taken up again after a restart of the sidecar, during which the command goes on, and post waits', async () => {
    await using sidecar = await openSidecar({});
    await using cli = startCli(['run', 'backup', '--dir', sidecar.dir, '--', ...waitingCommand(sidecar.dir)]);
    await begun(sidecar.dir);
    const { ref } = (await sidecar.requested('pre')).sender;
    await sidecar.stop();
    await cli.said('the sidecar is away; the command goes on');
    await sidecar.start();
    await cli.said('the sidecar is back');
    const lease = sidecar.intake().lease(ref);
    assert.ok(lease);
    assert.equal(await isLost(lease), false);

    await sidecar.stop();
    await writeFile(join(sidecar.dir, 'go'), '');
    await sidecar.start();
    assert.equal(await cli.ended, 0);
    const post = await sidecar.requested('post');
    assert.equal(post.sender.ref, ref);
  });

  it('asks again with the same id when the sidecar goes away in the middle of a signal', async () => {
    await using sidecar = await openSidecar({ script: () => undefined });
    await using cli = startCli(['run', 'backup', '--dir', sidecar.dir, '--', 'true']);
    const { request } = await sidecar.requested('pre');
    await sidecar.stop();
    sidecar.obey(obliging);
    await sidecar.start();
    assert.equal(await cli.ended, 0);
    const pres = sidecar.seen.filter(({ request: { state } }) => state === 'pre');
    assert.deepEqual(
      pres.map(({ request: { id } }) => id),
      [request.id, request.id],
    );
    assert.match(cli.err(), /sidehook: backup pre: the sidecar is away; asking again/);
  });

  it('believes the answer of a post that a restart came in between, whose run is over by then', async () => {
    for (const operation of ['backup', 'restore']) {
      await using sidecar = await openSidecar({
        script: (delivery) => (delivery.request.state === 'post' ? undefined : obliging(delivery)),
      });
      await using cli = startCli(['run', operation, '--dir', sidecar.dir, '--', 'true']);
      await sidecar.requested('post');
      await sidecar.stop();
      sidecar.obey(obliging);
      sidecar.runs.set('run-1', aRunView({ operation, phase: 'closed', outcome: 'success' }));
      await sidecar.start();
      assert.equal(await cli.ended, 0, cli.err());
      assert.doesNotMatch(cli.err(), /given up|the command goes on/);
    }
  });

  it('learns after a restart that its run was given up meanwhile', async () => {
    await using sidecar = await openSidecar({});
    await using cli = startCli(['run', 'restore', '--dir', sidecar.dir, '--', ...waitingCommand(sidecar.dir)]);
    await begun(sidecar.dir);
    await sidecar.stop();
    sidecar.runs.set('run-1', aRunView({ operation: 'restore', phase: 'kept', outcome: 'abandoned' }));
    await sidecar.start();
    assert.equal(await cli.ended, 65);
    assert.match(cli.err(), /the run was given up: given up while the sidecar was away/);
  });

  it('gives up on post, with 69, when no sidecar comes back within --wait', async () => {
    await using sidecar = await openSidecar({});
    const terms = ['--wait', '300ms', '--connect-timeout', '300ms'];
    await using cli = startCli(['run', 'backup', ...terms, '--dir', sidecar.dir, '--', ...waitingCommand(sidecar.dir)]);
    await begun(sidecar.dir);
    await sidecar.stop();
    await writeFile(join(sidecar.dir, 'go'), '');
    assert.equal(await cli.ended, 69);
    assert.match(cli.err(), /sidehook: backup post: no sidecar at .*: none took it up within 300ms \(ENOENT\)\n$/);
  });
});

function begun(dir: string): Promise<string> {
  return until(() => readFile(join(dir, 'begun'), 'utf8').catch(() => ''), { what: 'the command to begin' });
}
