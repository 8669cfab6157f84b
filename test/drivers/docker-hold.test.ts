import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { docker } from '../support/engine.ts';
import { until } from '../support/until.ts';
import { openDockerBench } from './docker-bench.ts';

const STUBBORN = ['sh', '-c', 'trap "" TERM; echo ready; while :; do sleep 1; done'];

describe('holds on Docker', () => {
  it('kill what does not stop in its time, and tell by the exit code', async ({ signal }) => {
    await using bench = await openDockerBench({ args: STUBBORN });
    await until(() => docker('logs', bench.workload.instance), { what: 'the container', signal });
    await bench.driver.hold(bench.workload, 'stop', 300, signal);
    const held = await bench.driver.inspect(bench.workload, signal);
    assert.deepEqual([held?.state, held?.exitCode], ['exited', 137]);
  });

  it('go on when their caller no longer waits', async ({ signal }) => {
    await using bench = await openDockerBench({ args: STUBBORN });
    await until(() => docker('logs', bench.workload.instance), { what: 'the container', signal });
    const cancel = new AbortController();
    const held = bench.driver.hold(bench.workload, 'stop', 2_000, cancel.signal);
    const isAsked = () => bench.proxy.requests.some((request) => request.includes('/stop?t=2'));
    await until(isAsked, { what: 'the stop to be asked', signal });
    const reason = new Error('enough');
    setImmediate(() => cancel.abort(reason));
    await assert.rejects(held, reason);
    const again = await bench.driver.hold(bench.workload, 'stop', 2_000, signal); // waits for the end of the first
    assert.equal(again.state, 'exited');
    await bench.driver.release(bench.workload, 'stop', signal);
    assert.equal(await bench.state(), 'running');
  });

  it('leave a container alone that someone else has paused', async ({ signal }) => {
    await using bench = await openDockerBench();
    await docker('pause', bench.workload.instance);
    await bench.driver.release(bench.workload, 'stop', signal);
    assert.equal(await bench.state(), 'paused');
    await docker('unpause', bench.workload.instance);
  });

  it('stop what is paused', async ({ signal }) => {
    await using bench = await openDockerBench();
    await docker('pause', bench.workload.instance);
    await bench.driver.hold(bench.workload, 'stop', 1_000, signal);
    assert.equal(await bench.state(), 'exited');
  });

  it('are not released when what is started ends at once, or cannot be started', async ({ signal }) => {
    await using bench = await openDockerBench({
      args: ['sh', '-c', 'test ! -e /tmp/again || exit 3; touch /tmp/again; exec sleep 3600'],
    });
    await until(() => docker('exec', bench.workload.instance, 'ls', '/tmp/again').catch(() => ''), {
      what: 'it',
      signal,
    });
    await bench.driver.hold(bench.workload, 'stop', 0, signal);
    await bench.driver.release(bench.workload, 'stop', signal).then(
      () => undefined, // it was seen running: what becomes of it is for the waiter for health
      (error: unknown) => assert.match(String(error), /ended at once, exit code 3/),
    );
    const network = await bench.stack.network('gone');
    const app = await bench.add('app', { network });
    await bench.driver.hold(app, 'stop', 0, signal);
    await docker('network', 'rm', network);
    await assert.rejects(bench.driver.release(app, 'stop', signal), /start container .*: .*network/);
  });

  it('are seen to change, again after the engine was away', async ({ signal }) => {
    await using bench = await openDockerBench();
    const ending = new AbortController();
    let beats = 0;
    const following = (async () => {
      for await (const _ of bench.driver.changes(ending.signal)) beats += 1;
    })();
    await until(() => beats === 1, { what: 'the first beat', signal });
    for (const change of ['pause', 'unpause', 'stop'] as const) {
      const before = beats;
      await docker(change, bench.workload.instance);
      await until(() => beats > before, { what: `a beat after ${change}`, signal });
    }
    await bench.proxy.cut();
    await until(() => bench.said.join().includes('cut off'), { what: 'the warning', signal });
    await bench.proxy.mend();
    await until(() => bench.said.join().includes('back'), { what: 'the engine to be back', signal });
    const before = beats;
    await docker('start', bench.workload.instance);
    await until(() => beats > before, { what: 'a beat after the start', signal });
    ending.abort();
    await following;
  });
});
