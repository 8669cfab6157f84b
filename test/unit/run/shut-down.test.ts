import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { openBench } from '../../support/bench.ts';
import type { Box } from '../../support/fake-engine.ts';

const on = (service: string): Box['dependsOn'] => [{ project: 'app', service, condition: 'service_healthy' }];

/** `app` depends on `db`, both held; `other` is not; `backup` is the client. */
async function openProject(settings: Parameters<typeof openBench>[0] = {}) {
  const bench = await openBench(settings);
  const held = { 'sidehook.hold': 'stop' };
  bench.engine.add('db', { labels: held, healthyAfterMs: 100_000 });
  bench.engine.add('app', { labels: held, dependsOn: on('db') });
  bench.engine.add('other');
  bench.engine.add('backup', { isClient: true });
  return bench;
}

type Bench = Awaited<ReturnType<typeof openProject>>;
const phaseOf = (bench: Bench, id = 'run-1') => bench.journal().run(id)?.phase;
const said = (bench: Bench, message: string) => bench.lines.some((line) => line.message === message);
const pause = (bench: Bench, ms: number) => bench.clock.sleep(ms, new AbortController().signal);

describe('a sidecar that is told to end', () => {
  it('starts what it holds for a living client, in order, and waits for nobody’s health', async () => {
    await using bench = await openProject();
    await bench.signal('pre');
    await bench.shutDown();
    assert.deepEqual(bench.engine.did('started'), ['started db', 'started app']);
    assert.ok(bench.clock.monotonicMs() < 60_000);
    assert.equal(phaseOf(bench), 'open', 'its post is still to come');
    assert.deepEqual(bench.bugs, []);
  });

  it('has its next start wait for the health that it had no time for, when it dies over that', async () => {
    await using bench = await openProject();
    bench.addFile('10-waits', 'while=held', async ({ call }, _sink, signal) => {
      if (call.state === 'pre') await bench.clock.sleep(3_600_000, signal);
      return 0;
    });
    const cut = bench.signal('pre', { id: 'cut' }).catch(() => undefined);
    await bench.until('both are held', () => bench.engine.did('host pre').length > 0);
    const { journal } = bench.shared().tools;
    const { changeHold } = journal;
    journal.changeHold = (key, change) => {
      changeHold(key, change);
      if (change.releasedAt !== undefined) void bench.crash();
    };
    bench.shutDown().catch(() => undefined); // its journal is closed under it
    await cut;
    assert.deepEqual(bench.engine.did('started'), ['started db']);
    const settled = bench.restart();
    await bench.until('app runs', () => bench.engine.running().includes('app'));
    assert.deepEqual(bench.engine.did('started', 'healthy'), ['started db', 'healthy db', 'started app']);
    await settled;
    await bench.until('nothing is held', () => bench.journal().holds().length === 0);
    assert.deepEqual(bench.engine.did('stopping'), ['stopping app', 'stopping db']);
    assert.deepEqual(bench.bugs, []);
  });

  it('leaves nothing for its next start when it has done all of it in haste', async () => {
    await using bench = await openProject();
    bench.engine.add('web', { labels: { 'sidehook.hold': 'stop' }, dependsOn: on('app') });
    const { runId = '' } = await bench.signal('pre');
    await bench.shutDown();
    assert.deepEqual(bench.journal().holds(), []);
    assert.equal(bench.journal().holdsOf(runId).length, 3);
    assert.ok(
      bench
        .journal()
        .holdsOf(runId)
        .every(({ releasedAt }) => releasedAt !== undefined),
    );
  });

  it('starts what it holds when its client alone is stopped, too', async () => {
    await using bench = await openProject();
    await bench.signal('pre');
    bench.engine.stopByCompose('backup');
    await bench.shutDown();
    assert.deepEqual(bench.engine.did('started'), ['started db', 'started app']);
  });

  it('starts nothing while the whole project is being stopped, and all of it at its next start', async () => {
    await using bench = await openProject();
    await bench.signal('pre');
    bench.engine.stopByCompose('app', 'db', 'other');
    await bench.shutDown();
    assert.deepEqual(bench.engine.did('started'), []);
    assert.ok(said(bench, 'kept for the next start: the project is being stopped'));
    await bench.crash();
    bench.dieClient();
    bench.engine.stopByCompose(); // nothing more
    bench.engine.start('other');
    bench.engine.forgetStops();
    await bench.restart();
    await bench.until('all run', () => bench.engine.running().includes('app'));
    assert.deepEqual(bench.engine.did('started'), ['started other', 'started db', 'started app']);
  });

  it('does not fight when its client, which depends on it, was stopped first', async () => {
    await using bench = await openProject();
    bench.addFile('10-hook');
    await bench.signal('pre');
    bench.engine.stopByCompose('other', 'backup');
    bench.dieClient();
    await pause(bench, 1000);
    await bench.shutDown();
    assert.deepEqual(bench.engine.did('started', 'host post'), []);
    await bench.crash();
    bench.engine.forgetStops();
    await bench.restart();
    await bench.until('all run', () => bench.engine.running().includes('app'));
    assert.equal(bench.journal().run('run-1')?.outcome, 'abandoned');
  });

  it('nor when its client, told to end, says so with a post', async () => {
    await using bench = await openProject();
    const { runId = '' } = await bench.signal('pre');
    bench.engine.stopByCompose('other', 'backup');
    const post = bench.signal('post', { id: 'last', runId, outcome: 'failure', status: 143 }).catch(() => undefined);
    await pause(bench, 1000);
    await bench.shutDown();
    await post;
    assert.deepEqual(bench.engine.did('started'), []);
    await bench.crash();
    bench.engine.forgetStops();
    await bench.restart();
    await bench.until('answered', () => bench.answers.get('last') !== undefined);
    assert.equal(bench.journal().run(runId)?.outcome, 'failure');
    assert.ok(bench.engine.running().includes('app'));
  });

  it('lets go after a moment of waiting when others were stopped, and it is not told to end', async () => {
    await using bench = await openProject();
    await bench.signal('pre');
    bench.engine.stopByCompose('other');
    bench.dieClient();
    await bench.until('all run', () => bench.engine.running().includes('app'));
    assert.ok(said(bench, 'others of the project are being stopped: waiting whether the sidecar is'));
  });

  it('gives the run of a dead client its whole post, also where holds are kept', async () => {
    await using bench = await openProject({ shutdownHolds: 'keep' });
    bench.addFile('10-hook');
    await bench.signal('pre');
    bench.dieClient();
    await bench.shutDown();
    assert.deepEqual(bench.engine.did('started', 'host post'), ['started db', 'started app', 'host post 10-hook']);
    assert.equal(bench.journal().run('run-1')?.outcome, 'abandoned');
    assert.equal(phaseOf(bench), 'closed');
  });

  it('gives a post that has begun its rest, without waiting for health', async () => {
    await using bench = await openProject();
    bench.addFile('10-hook');
    const { runId = '' } = await bench.signal('pre');
    const post = bench.signal('post', { runId });
    await bench.until('db started', () => bench.engine.did('started').length === 1);
    await bench.shutDown();
    assert.equal((await post).exitCode, 0);
    assert.deepEqual(bench.engine.did('started', 'host post'), ['started db', 'started app', 'host post 10-hook']);
    assert.ok(bench.clock.monotonicMs() < 60_000);
  });

  it('undoes a pre that has begun, and answers it 75', async () => {
    await using bench = await openProject();
    (bench.engine.boxes.get('db') as Box).stopMs = 5000;
    const pre = bench.signal('pre');
    await bench.until('app stopped', () => bench.engine.did('stopped').length === 1);
    await bench.shutDown();
    assert.equal((await pre).exitCode, 75);
    assert.equal(bench.engine.running().length, 4);
  });

  it('keeps what a restore holds whose client lives', async () => {
    await using bench = await openProject();
    const { runId = '' } = await bench.signal('pre', { operation: 'restore' });
    await bench.signal('started', { operation: 'restore', runId });
    await bench.shutDown();
    assert.deepEqual(bench.engine.did('started'), []);
    assert.equal(phaseOf(bench), 'open');
  });

  it('ends without its engine, soon, and forgets nothing', async () => {
    await using bench = await openProject();
    bench.addFile('10-hook');
    await bench.signal('pre');
    bench.engine.setAway('no answer');
    await bench.shutDown();
    assert.ok(bench.clock.monotonicMs() < 10_000, `${bench.clock.monotonicMs()} ms`);
    assert.ok(said(bench, 'the engine is away: kept for the next start'));
    await bench.crash();
    bench.engine.setAway(undefined);
    await bench.restart();
    assert.deepEqual(bench.engine.did('started'), [], 'its client lives');
    (bench.engine.boxes.get('db') as Box).healthyAfterMs = 100;
    const answer = await bench.signal('post');
    assert.deepEqual([answer.exitCode, answer.message], [0, undefined], 'nothing was let go of');
    assert.deepEqual(bench.engine.did('started'), ['started db', 'started app']);
  });

  it('ends without the engine that the hook of a post that has begun waits for', async () => {
    await using bench = await openBench();
    bench.engine.add('db', { labels: { 'sidehook.backup.pre': 'lock', 'sidehook.backup.post': 'unlock' } });
    const { runId = '' } = await bench.signal('pre');
    bench.engine.setAway('no answer');
    const post = bench.signal('post', { id: 'cut', runId }).catch(() => undefined);
    await bench.until('away', () => said(bench, 'engine away: what is held is not forgotten, trying again'));
    const before = bench.clock.monotonicMs();
    await bench.shutDown();
    await post;
    assert.ok(bench.clock.monotonicMs() - before < 10_000);
    await bench.crash();
    bench.engine.setAway(undefined);
    await bench.restart();
    await bench.until('answered', () => bench.answers.get('cut') !== undefined);
    assert.equal(bench.answers.get('cut')?.[0]?.exitCode, 0);
    assert.deepEqual(bench.engine.did('hook unlock'), ['hook unlock db']);
  });

  it('loses no time when nothing is held and nothing is open', async () => {
    await using bench = await openProject();
    await bench.signal('pre');
    await bench.signal('post');
    const before = bench.clock.monotonicMs();
    await bench.shutDown();
    assert.equal(bench.clock.monotonicMs(), before);
  });
});
