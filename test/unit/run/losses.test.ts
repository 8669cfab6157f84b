import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { OperationalError } from '../../../src/core/errors.ts';
import type { Journal } from '../../../src/core/ports.ts';
import { type Outcome, outcomeOfAbort } from '../../../src/core/result.ts';
import { releaseNow } from '../../../src/run/control.ts';
import { openBench } from '../../support/bench.ts';

const held = { 'sidehook.hold': 'stop' };
const HOUR_MS = 3_600_000;

type Bench = Awaited<ReturnType<typeof openBench>>;

/** Ways to lose data, or to be told that nothing was lost, of which each was one once. */
describe('what a backup must not lose', () => {
  it('is told when a held workload was made anew, ran, and stopped again, all between two looks', async () => {
    await using bench = await openBench();
    bench.engine.add('db', { labels: held });
    await bench.signal('pre');
    bench.engine.recreate('db');
    bench.engine.kill('db');
    const { exitCode, message } = await bench.signal('post');
    assert.equal(exitCode, 65, message);
    assert.match(message ?? '', /db was held and has run again/);
  });

  it('is held no longer than hold.max by a client that goes on asking', async () => {
    await using bench = await openBench({ holdMaxMs: 12 * HOUR_MS });
    bench.engine.add('db', { labels: held });
    const { runId = '' } = await bench.signal('pre', { lease: 6 * HOUR_MS });
    for (let hours = 0; hours < 12; hours += 3) {
      await bench.clock.sleep(3 * HOUR_MS - 1000, new AbortController().signal);
      assert.equal((await bench.signal('inspect', { lease: 6 * HOUR_MS })).exitCode, 0);
    }
    await bench.clock.sleep(5000, new AbortController().signal);
    await bench.until('db runs again', () => bench.engine.running().includes('db'));
    assert.ok(bench.clock.monotonicMs() < 12.1 * HOUR_MS);
    assert.match((await bench.signal('post', { runId })).message ?? '', /hold\.max/);
  });

  it('is held no longer than hold.max, however often the sidecar starts anew', async () => {
    await using bench = await openBench({ holdMaxMs: 12 * HOUR_MS });
    bench.engine.add('db', { labels: held });
    await bench.signal('pre');
    for (let hours = 0; hours < 10; hours += 5) {
      await bench.clock.sleep(5 * HOUR_MS, new AbortController().signal);
      assert.deepEqual(bench.engine.running(), []);
      await bench.crash();
      await bench.restart();
    }
    await bench.clock.sleep(1.9 * HOUR_MS, new AbortController().signal);
    assert.deepEqual(bench.engine.running(), []);
    await bench.until('db runs again', () => bench.engine.running().includes('db'));
    assert.equal(Math.round(bench.clock.monotonicMs() / HOUR_MS), 12);
    assert.match((await bench.signal('post', { runId: 'run-1' })).message ?? '', /longer than 12h \(hold\.max\)/);
  });

  it('is answered as it ended, to a post that names its run alone, when a crash cut it off', async () => {
    await using bench = await openBench();
    bench.engine.add('db', { labels: held });
    bench.addFile('10-slow', '', ({ call }, _sink, signal) =>
      call.state === 'post' ? cutShort(signal) : Promise.resolve(0),
    );
    const { runId = '' } = await bench.signal('pre', { job: 'nightly' });
    const cut = bench.signal('post', { runId, id: 'the-post' });
    await bench.until('its hook runs', () => bench.engine.did('host post').length > 0);
    await bench.crash();
    await cut.catch(() => undefined);
    bench.hostHooks.clear();
    await bench.restart();
    await bench.until('it is answered', () => bench.answers.has('the-post'));
    assert.deepEqual(
      bench.answers.get('the-post')?.map(({ exitCode }) => exitCode),
      [0],
    );
  });

  it('is refused when what was stopped first runs again before the last has stopped', async () => {
    await using bench = await openBench();
    bench.engine.add('db', { labels: held, stopMs: 9_000 });
    const dependsOn = [{ project: 'app', service: 'db', condition: 'service_started' } as const];
    const web = bench.engine.add('web', { labels: held, dependsOn });
    const first = bench.signal('pre');
    await bench.until('web is stopped', () => web.state === 'exited');
    bench.engine.start('web');
    const { exitCode, message } = await first;
    assert.equal(exitCode, 74);
    assert.match(message ?? '', /backup pre: web was held and runs again/);
    assert.deepEqual(bench.engine.running(), ['db', 'web']);
    assert.deepEqual(bench.bugs, []);
  });

  it('stays held after a restore that failed, also when it was started while that ended', async () => {
    await using bench = await openBench();
    bench.engine.add('db', { labels: held });
    bench.addFile('10-slow', 'while=held outcome=failure', async ({ call }, _sink, signal) => {
      if (call.state === 'post') await bench.clock.sleep(60_000, signal);
      return 0;
    });
    for (const state of ['pre', 'started'] as const) await bench.signal(state, { operation: 'restore' });
    const post = bench.signal('post', { operation: 'restore', outcome: 'failure' });
    await bench.until('its hook runs', () => bench.engine.did('host post').length > 0);
    bench.engine.start('db');
    assert.equal((await post).exitCode, 74);
    await bench.until('it is stopped again', () => bench.engine.running().length === 0);
    assert.match(bench.journal().run('run-1')?.distrust.join() ?? '', /db was held and runs again/);
    assert.deepEqual(bench.bugs, []);
  });

  it('stays held in a restore also when the engine had no answer at the moment of its loss', async () => {
    await using bench = await openBench();
    bench.engine.add('db', { labels: held });
    await bench.signal('pre', { operation: 'restore' });
    failLooks(bench, 3);
    bench.engine.start('db');
    await bench.until('it is stopped again', () => bench.engine.running().length === 0);
    const makeRoom = fillDisk(bench);
    bench.engine.start('db');
    await bench.clock.sleep(20_000, new AbortController().signal);
    assert.deepEqual(bench.engine.running(), ['db'], 'nothing is done that cannot be written down');
    makeRoom();
    await bench.until('it is stopped once more', () => bench.engine.running().length === 0);
    assert.equal((await bench.signal('started', { operation: 'restore' })).exitCode, 65);
    assert.deepEqual(bench.bugs, []);
  });

  it('is told when what was found stopped runs while its data are read, or has run', async () => {
    for (const isOver of [false, true]) {
      await using bench = await openBench();
      bench.engine.add('db', { labels: held });
      bench.engine.add('api', { labels: held, state: 'exited' });
      assert.deepEqual((await bench.signal('pre')).notes, ['hold of api: found exited, left so']);
      bench.engine.start('api');
      if (isOver) bench.engine.kill('api');
      const { exitCode, message } = await bench.signal('post');
      assert.equal(exitCode, 65, message);
      assert.match(message ?? '', isOver ? /api was found exited and has run since/ : /found exited and runs since/);
      assert.deepEqual(bench.engine.running(), isOver ? ['db'] : ['db', 'api'], 'it is left to whoever started it');
    }
  });

  it('is told when it was started while the engine was away, also by the sidecar that comes after', async () => {
    for (const dies of [false, true]) {
      await using bench = await openBench();
      bench.engine.add('db', { labels: held });
      const { runId = '' } = await bench.signal('pre');
      bench.engine.setAway('no answer');
      bench.engine.start('db');
      const post = bench.signal('post', { runId, id: 'the-post' });
      await bench.until('its end is written down', () => bench.journal().run(runId)?.phase === 'post');
      if (dies) {
        await bench.crash();
        await post.catch(() => undefined);
      }
      bench.engine.setAway(undefined);
      if (dies) await bench.restart();
      await bench.until('it is answered', () => bench.answers.has('the-post'));
      assert.deepEqual(
        bench.answers.get('the-post')?.map(({ exitCode }) => exitCode),
        [65],
      );
    }
  });

  it('is told when nobody could say at its end whether all was still', async () => {
    await using bench = await openBench();
    bench.engine.add('db', { labels: held });
    bench.engine.add('api', { labels: held, state: 'exited' });
    await bench.signal('pre');
    const { driver } = bench.shared().tools;
    const { inspect } = driver;
    driver.inspect = async (ref, signal) => {
      if (ref.name !== 'api') return inspect(ref, signal);
      throw new OperationalError('workload-failed', 'inspect api: it answered 500');
    };
    const { exitCode, message } = await bench.signal('post');
    assert.equal(exitCode, 65);
    assert.match(message ?? '', /whether api was still to the end cannot be told: inspect api: it answered 500/);
    assert.deepEqual(bench.engine.running(), ['db']);
  });

  it('is told, too, of one that stopped by itself between the plan and its turn, and was started later', async () => {
    await using bench = await openBench();
    bench.engine.add('db', { labels: held });
    const dependsOn = [{ project: 'app', service: 'db', condition: 'service_started' } as const];
    bench.engine.add('web', { labels: held, stopMs: 9_000, dependsOn });
    const first = bench.signal('pre');
    await bench.until('web is being stopped', () => bench.engine.did('stopping').length > 0);
    bench.engine.kill('db');
    const { exitCode, notes } = await first;
    assert.deepEqual([exitCode, notes], [0, ['hold of db: found exited, left so']]);
    bench.engine.start('db');
    assert.match((await bench.signal('post')).message ?? '', /db was found exited and runs since/);
  });

  it('is refused when what was found stopped is started before all the others are still', async () => {
    await using bench = await openBench();
    bench.engine.add('db', { labels: held, stopMs: 9_000 });
    bench.engine.add('api', { labels: held, state: 'exited' });
    const first = bench.signal('pre');
    await bench.until('db is being stopped', () => bench.engine.did('stopping').length > 0);
    bench.engine.start('api');
    const { exitCode, message } = await first;
    assert.equal(exitCode, 74, message);
    assert.match(message ?? '', /api was found exited and runs since/);
    assert.deepEqual(bench.engine.running(), ['db', 'api']);
  });

  it('is not told of what stays as it was found: stopped, paused, or made anew and not started', async () => {
    await using bench = await openBench();
    bench.engine.add('db', { labels: held });
    bench.engine.add('api', { labels: held, state: 'exited' });
    bench.engine.add('web', { labels: held, state: 'paused' });
    await bench.signal('pre');
    bench.engine.recreate('api').state = 'created';
    assert.deepEqual((await bench.signal('post')).exitCode, 0);
  });

  it('is told when the good end of a restore could not be written down, since a new start would hold again', async () => {
    await using bench = await openBench();
    bench.engine.add('db', { labels: held });
    for (const state of ['pre', 'started'] as const) await bench.signal(state, { operation: 'restore' });
    fillDisk(bench);
    const { exitCode, message } = await bench.signal('post', { operation: 'restore' });
    assert.equal(exitCode, 70);
    assert.match(message ?? '', /restore post: the restore went well, and that could not be written to the journal/);
    assert.deepEqual(bench.engine.running(), ['db']);
  });

  it('is looked at again where one look failed, with no pause in which it might stop again unseen', async () => {
    await using bench = await openBench();
    bench.engine.add('db', { labels: held });
    await bench.signal('pre');
    failLooks(bench, 1);
    bench.engine.start('db');
    await bench.until('it is told', () => (bench.journal().run('run-1')?.distrust.length ?? 0) > 0);
    assert.ok(bench.clock.monotonicMs() < 2_000, `after ${bench.clock.monotonicMs()} ms`);
  });

  it('is looked at again with the next event of the engine where all looks failed', async () => {
    await using bench = await openBench();
    bench.engine.add('db', { labels: held });
    bench.engine.add('other', {});
    await bench.signal('pre');
    const looks = failLooks(bench, 3);
    bench.engine.start('db');
    await bench.until('all looks have failed', () => looks.left === 0);
    await bench.clock.sleep(2_000, new AbortController().signal);
    bench.engine.kill('other');
    await bench.until('it is told', () => (bench.journal().run('run-1')?.distrust.length ?? 0) > 0);
    assert.ok(bench.clock.monotonicMs() < 5_000, `after ${bench.clock.monotonicMs()} ms`);
  });

  it('stays held after a restore that failed, also what runs while the journal has no room', async () => {
    await using bench = await openBench();
    bench.engine.add('db', { labels: held });
    bench.addFile('10-slow', 'while=held outcome=failure', async ({ call }, _sink, signal) => {
      if (call.state === 'post') await bench.clock.sleep(4_000, signal);
      return 0;
    });
    for (const state of ['pre', 'started'] as const) await bench.signal(state, { operation: 'restore' });
    const makeRoom = fillDisk(bench);
    const post = bench.signal('post', { operation: 'restore', outcome: 'failure' });
    await bench.until('its hook runs', () => bench.engine.did('host post').length > 0);
    bench.engine.start('db');
    assert.equal((await post).exitCode, 74);
    makeRoom();
    await bench.until('it is stopped again', () => bench.engine.running().length === 0);
    assert.deepEqual(bench.bugs, []);
  });

  it('starts again what was stopped a second time, for another run, after the engine had started it', async () => {
    await using bench = await openBench();
    const db = bench.engine.add('db', { labels: held, stopMs: 9_000 });
    const first = bench.signal('pre', { job: 'a' });
    await bench.until('it is being stopped', () => bench.engine.did('stopping').length > 0);
    const second = bench.signal('pre', { job: 'b', ref: 'client-2' });
    await bench.until('the second has its turn', () => bench.journal().run('run-2') !== undefined);
    bench.engine.kill('db');
    bench.engine.start('db');
    await bench.until('it is being stopped again', () => bench.engine.did('stopping').length > 1);
    await bench.shutDown();
    assert.match((await first).message ?? '', /stop db: it is running again/);
    assert.equal((await second).exitCode, 75);
    await bench.clock.sleep(20_000, new AbortController().signal);
    assert.equal(db.state, 'running');
  });

  it('is not begun by a restore whose holds were let go of while its client slept', async () => {
    await using bench = await openBench();
    bench.engine.add('db', { labels: held });
    await bench.signal('pre', { operation: 'restore' });
    await bench.shutDown();
    bench.journal()[Symbol.dispose]();
    await bench.restart();
    assert.deepEqual(bench.engine.running(), ['db']);
    const { exitCode, message } = await bench.signal('started', { operation: 'restore' });
    assert.equal(exitCode, 65);
    assert.match(message ?? '', /do not begin: its holds were released, since the sidecar was stopped: db/);
    assert.equal((await bench.signal('post', { operation: 'restore', outcome: 'failure' })).exitCode, 65);
    assert.deepEqual(bench.journal().runs('live'), []);
    assert.deepEqual(bench.engine.running(), ['db']);
  });

  it('is released at once by the operator, also while its pre goes on for hours', async () => {
    await using bench = await openBench();
    bench.engine.add('db', { labels: held });
    bench.addFile('10-dump', 'while=held', ({ call }, _sink, signal) =>
      call.state === 'pre' ? cutShort(signal) : Promise.resolve(0),
    );
    const answer = bench.signal('pre');
    await bench.until('its hook runs', () => bench.engine.did('host pre').length > 0);
    const beganMs = bench.clock.monotonicMs();
    const { exitCode, notes } = await releaseNow({ all: true }, bench.shared());
    assert.deepEqual([exitCode, notes], [0, ['db: running']]);
    assert.deepEqual(bench.engine.running(), ['db']);
    assert.ok(bench.clock.monotonicMs() - beganMs < HOUR_MS / 2);
    assert.equal((await answer).exitCode, 75);
    assert.match((await answer).message ?? '', /cut short: it was released by sidehook release/);
  });

  it('is released at the next start also by a journal that cannot be written', async () => {
    await using bench = await openBench();
    bench.engine.add('db', { labels: held });
    bench.addFile('10-dump', 'while=held', (_call, _sink, signal) => cutShort(signal));
    void bench.signal('pre').catch(() => undefined);
    await bench.until('db is held', () => bench.journal().holds()[0]?.status === 'held');
    await bench.crash();
    bench.hostHooks.clear();
    await bench.restart(fullDisk);
    await bench.until('db runs again', () => bench.engine.running().includes('db'));
    assert.deepEqual(bench.bugs, []);
  });
});

/** As an engine that answers 500 to the next looks. */
function failLooks(bench: Bench, count: number): { left: number } {
  const { driver } = bench.shared().tools;
  const { inspect } = driver;
  const looks = { left: count };
  driver.inspect = async (ref, signal) => {
    if (looks.left === 0) return inspect(ref, signal);
    looks.left -= 1;
    throw new OperationalError('workload-failed', `inspect ${ref.name}: it answered 500`);
  };
  return looks;
}

/** No change of a run can be written any more; the result makes room. */
function fillDisk(bench: Bench): () => void {
  const { journal } = bench.shared().tools;
  const { changeRun } = journal;
  journal.changeRun = () => {
    throw new OperationalError('internal', 'write journal: database or disk is full');
  };
  return () => {
    journal.changeRun = changeRun;
  };
}

/** A hook that takes until it is told to end. */
function cutShort(signal: AbortSignal): Promise<Outcome> {
  const { promise, resolve } = Promise.withResolvers<Outcome>();
  signal.addEventListener('abort', () => resolve(outcomeOfAbort(signal)), { once: true });
  return promise;
}

/** As on a full disk: what is there can be read, and nothing be written. */
function fullDisk(journal: Journal): Journal {
  const refuse = (): never => {
    throw new OperationalError('internal', 'write journal: database or disk is full');
  };
  const writes = ['takeRequest', 'answered', 'openRun', 'changeRun', 'stepStarted', 'stepEnded'] as const;
  const holds = ['addHold', 'joinHold', 'leaveHold', 'changeHold', 'atomically'] as const;
  return { ...journal, ...Object.fromEntries([...writes, ...holds].map((name) => [name, refuse])) };
}
