import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { openBench } from '../../support/bench.ts';
import type { Box } from '../../support/fake-engine.ts';

const LEASE_MS = 3_600_000;

/** One that is held, and containers that share the directory. */
async function openShared(...clients: string[]) {
  const bench = await openBench();
  bench.engine.add('db', { labels: { 'sidehook.hold': 'stop' } });
  for (const name of clients) bench.engine.add(name, { isClient: true });
  return bench;
}

const isAbandoned = (bench: Awaited<ReturnType<typeof openShared>>) =>
  bench.lines.some(({ message }) => message === 'run abandoned');

describe('a run of bare signals', () => {
  it('is abandoned once none of the containers runs that shared the directory at its pre', async () => {
    await using bench = await openShared('backup', 'cron');
    bench.addFile('10-hook');
    const { runId = '' } = await bench.signal('pre', { lease: LEASE_MS });
    bench.engine.kill('backup');
    await bench.clock.sleep(60_000, new AbortController().signal);
    assert.equal(isAbandoned(bench), false, 'the other may be the client');
    bench.engine.add('late', { isClient: true });
    bench.engine.kill('cron');
    await bench.until('db runs', () => bench.engine.running().includes('db'));
    assert.ok(bench.clock.monotonicMs() < LEASE_MS);
    assert.deepEqual(bench.engine.did('host post'), ['host post 10-hook']);
    const late = await bench.signal('post', { runId });
    assert.equal(late.exitCode, 65);
    assert.match(late.message ?? '', /no container that shared its directory runs any more \(backup, cron\)/);
    assert.deepEqual(bench.bugs, []);
  });

  it('is abandoned when its container was started anew: the name is there, and the client is not', async () => {
    await using bench = await openShared('backup');
    await bench.signal('pre', { lease: LEASE_MS });
    bench.engine.kill('backup');
    bench.engine.start('backup');
    await bench.until('db runs', () => bench.engine.running().includes('db'));
    assert.ok(bench.clock.monotonicMs() < LEASE_MS);
  });

  it('goes on with a container that the engine took for created at its pre, and is abandoned with that one', async () => {
    await using bench = await openShared();
    bench.engine.add('idle', { isClient: true });
    const backup = bench.engine.add('backup', { isClient: true, state: 'created' });
    await bench.signal('pre', { lease: LEASE_MS });
    bench.engine.kill('idle');
    await bench.clock.sleep(500, new AbortController().signal);
    bench.engine.start('backup'); // what has spoken runs, and the engine knows it at the second look
    await bench.clock.sleep(60_000, new AbortController().signal);
    assert.equal(isAbandoned(bench), false);
    backup.state = 'paused';
    bench.engine.kill('idle');
    await bench.clock.sleep(60_000, new AbortController().signal);
    assert.equal(isAbandoned(bench), false, 'paused is alive');
    bench.engine.kill('backup');
    await bench.until('db runs', () => bench.engine.running().includes('db'));
  });

  it('is not given up while the engine is away', async () => {
    await using bench = await openShared('backup');
    await bench.signal('pre', { lease: LEASE_MS });
    bench.engine.setAway('no answer');
    bench.engine.add('other'); // wakes who waits
    bench.engine.kill('other');
    await bench.clock.sleep(60_000, new AbortController().signal);
    assert.equal(isAbandoned(bench), false);
    bench.engine.setAway(undefined);
    (bench.engine.boxes.get('backup') as Box).state = 'running';
    bench.engine.kill('backup');
    await bench.until('db runs', () => bench.engine.running().includes('db'));
  });

  it('is watched again after a restart of the sidecar', async () => {
    await using bench = await openShared('backup');
    await bench.signal('pre', { lease: LEASE_MS });
    await bench.crash();
    bench.engine.kill('backup');
    await bench.restart();
    await bench.until('db runs', () => bench.engine.running().includes('db'));
    assert.ok(bench.clock.monotonicMs() < LEASE_MS);
  });

  it('ends by time alone where no container shares the directory', async () => {
    await using bench = await openShared();
    await bench.signal('pre', { lease: LEASE_MS });
    bench.engine.add('other');
    bench.engine.kill('other');
    await bench.until('db runs', () => bench.engine.running().includes('db'));
    assert.ok(bench.clock.monotonicMs() >= LEASE_MS);
  });
});

describe('a run whose lease is held', () => {
  it('goes on, whatever the engine shows, for as long as the kernel says so', async () => {
    await using bench = await openShared('backup');
    await bench.signal('pre');
    bench.engine.kill('backup');
    await bench.clock.sleep(60_000, new AbortController().signal);
    assert.equal(isAbandoned(bench), false);
    assert.equal((await bench.signal('post')).exitCode, 0);
  });

  it('is abandoned by the engine’s word where the kernel has none', async () => {
    await using bench = await openShared('backup');
    await bench.signal('pre');
    bench.forgetLease();
    bench.engine.kill('backup');
    await bench.until('db runs', () => bench.engine.running().includes('db'));
    assert.equal(bench.journal().runs('all')[0]?.outcome, 'abandoned');
  });
});
