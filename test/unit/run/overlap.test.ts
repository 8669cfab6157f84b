import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { OperationalError } from '../../../src/core/errors.ts';
import type { Journal } from '../../../src/core/ports.ts';
import { releaseNow } from '../../../src/run/control.ts';
import { openBench } from '../../support/bench.ts';
import type { Box } from '../../support/fake-engine.ts';

const held = { 'sidehook.hold': 'stop' };
const heldFor = (job: string): Record<string, string> => ({ ...held, 'sidehook.job': job });
const on = (...services: string[]): Box['dependsOn'] =>
  services.map((service) => ({ project: 'app', service, condition: 'service_healthy' }));

/** `web` depends on `db`: jobs a and b both hold `db`, job a alone `web`. */
async function openPair() {
  const bench = await openBench();
  bench.engine.add('db', { labels: { ...held, 'sidehook.job': 'a,b' }, healthyAfterMs: 500 });
  bench.engine.add('web', { labels: heldFor('a'), dependsOn: on('db') });
  return bench;
}

describe('two runs that overlap', () => {
  it('share a database: it starts when the second lets go, and what needs it after that', async () => {
    await using bench = await openPair();
    const a = await bench.signal('pre', { job: 'a' });
    const b = await bench.signal('pre', { job: 'b', ref: 'client-2' });
    const first = await bench.signal('post', { job: 'a', runId: a.runId ?? '' });
    assert.equal(first.exitCode, 0);
    assert.ok(first.notes.some((note) => /release of web: shared: waits for db, still held for run run-2/.test(note)));
    assert.deepEqual(bench.engine.running(), []);
    await bench.signal('post', { job: 'b', runId: b.runId ?? '' });
    await bench.until('both run', () => bench.engine.running().length === 2);
    assert.deepEqual(bench.engine.did('started', 'healthy'), ['started db', 'healthy db', 'started web']);
    assert.deepEqual(bench.bugs, []);
  });

  it('share it across a crash', async () => {
    await using bench = await openPair();
    const a = await bench.signal('pre', { job: 'a' });
    const b = await bench.signal('pre', { job: 'b', ref: 'client-2' });
    await bench.crash();
    await bench.restart();
    await bench.signal('post', { job: 'a', runId: a.runId ?? '' });
    await bench.crash();
    await bench.restart();
    assert.deepEqual(bench.engine.running(), []);
    await bench.signal('post', { job: 'b', runId: b.runId ?? '' });
    await bench.until('both run', () => bench.engine.running().length === 2);
    assert.deepEqual(bench.engine.did('started', 'healthy'), ['started db', 'healthy db', 'started web']);
  });

  it('let go in order what the other one leaves behind in the middle of that', async () => {
    await using bench = await openBench();
    bench.engine.add('db', { labels: held, healthyAfterMs: 2_000 });
    bench.engine.add('mq', { labels: heldFor('a'), dependsOn: on('db'), healthyAfterMs: 300 });
    bench.engine.add('web', { labels: held, dependsOn: on('db', 'mq') });
    bench.addFile('10-slow', 'job=a', async ({ call }, _sink, signal) => {
      if (call.state === 'post') await bench.clock.sleep(1_800, signal);
      return 0;
    });
    await bench.signal('pre', { job: 'a' });
    await bench.signal('pre', { job: 'b', ref: 'client-2' });
    const first = bench.signal('post', { job: 'a' });
    await bench.until('a is at its hook', () => bench.engine.did('host post').length > 0);
    await bench.signal('post', { job: 'b' });
    await first;
    await bench.until('all run', () => bench.engine.running().length === 3);
    assert.deepEqual(bench.engine.did('started', 'healthy'), [
      ...['started db', 'healthy db', 'started mq', 'healthy mq', 'started web'],
    ]);
    assert.deepEqual(bench.bugs, []);
  });

  it('let go in order, too, when the sidecar is told to end', async () => {
    await using bench = await openPair();
    await bench.signal('pre', { job: 'a' });
    await bench.signal('pre', { job: 'b', ref: 'client-2' });
    await bench.shutDown();
    assert.deepEqual(bench.engine.did('started'), ['started db', 'started web']);
  });

  it('let go in order when all are released at once, also what failed restores keep', async () => {
    await using bench = await openBench();
    bench.engine.add('db', { labels: heldFor('a'), healthyAfterMs: 500 });
    bench.engine.add('api', { labels: heldFor('b'), dependsOn: on('db'), healthyAfterMs: 500 });
    bench.engine.add('web', { labels: heldFor('a'), dependsOn: on('api') });
    for (const job of ['b', 'a']) {
      await bench.signal('pre', { operation: 'restore', job });
      await bench.signal('started', { operation: 'restore', job });
    }
    for (const job of ['b', 'a']) await bench.signal('post', { operation: 'restore', job, outcome: 'failure' });
    assert.deepEqual(bench.engine.running(), []);
    assert.equal((await releaseNow({ all: true }, bench.shared())).exitCode, 0);
    assert.deepEqual(bench.engine.did('started', 'healthy'), [
      ...['started db', 'healthy db', 'started api', 'healthy api', 'started web'],
    ]);
    assert.deepEqual(bench.journal().runs('live'), []);
    assert.deepEqual(bench.bugs, []);
  });

  it('keep what the held hooks of the other one still count on', async () => {
    await using bench = await openBench();
    bench.engine.add('db', { labels: held });
    const seen: string[] = [];
    bench.addFile('10-slow', 'while=held', async ({ call, env }, _sink, signal) => {
      if (call.state !== 'post' || env.SIDEHOOK_JOB !== 'a') return 0;
      await bench.clock.sleep(10_000, signal);
      seen.push(bench.engine.running().join());
      return 0;
    });
    await bench.signal('pre', { job: 'a' });
    await bench.signal('pre', { job: 'b', ref: 'client-2' });
    const slow = bench.signal('post', { job: 'a' });
    await bench.signal('post', { job: 'b' });
    assert.deepEqual(bench.engine.running(), []);
    await slow;
    assert.deepEqual(seen, ['']);
    assert.deepEqual(bench.engine.running(), ['db']);
  });

  it('stop again, for the second, what the first has lost, and tell the first', async () => {
    await using bench = await openBench();
    const db = bench.engine.add('db', { labels: held });
    await bench.signal('pre', { job: 'a' });
    bench.engine.start('db');
    assert.equal((await bench.signal('pre', { job: 'b', ref: 'client-2' })).exitCode, 0);
    assert.equal(db.state, 'exited');
    assert.equal((await bench.signal('post', { job: 'a' })).exitCode, 65);
    assert.equal((await bench.signal('post', { job: 'b' })).exitCode, 0);
    assert.deepEqual(bench.engine.running(), ['db']);
  });
});

describe('a look at the engine that fails', () => {
  it('keeps no post hook from its turn, and nothing from being released', async () => {
    let fails = 0;
    await using bench = await openBench();
    bench.engine.add('other', { labels: { 'sidehook.backup.pre': 'lock', 'sidehook.backup.post': 'unlock' } });
    bench.engine.add('db', { labels: held, healthyAfterMs: 500 });
    bench.engine.add('web', { labels: held, dependsOn: on('db') });
    await bench.signal('pre');
    const { driver } = bench.shared().tools;
    const { inspect } = driver;
    driver.inspect = async (ref, signal) => {
      fails += 1;
      if (fails % 2 === 0) return inspect(ref, signal);
      throw new OperationalError('workload-failed', `inspect ${ref.name}: it answered 500`);
    };
    await bench.signal('post');
    driver.inspect = inspect;
    assert.deepEqual(bench.engine.did('started', 'healthy', 'hook unlock'), [
      ...['started db', 'healthy db', 'started web', 'hook unlock other'],
    ]);
    assert.deepEqual(bench.bugs, []);
  });
});

describe('a crash between the end of a run and its answer', () => {
  it('has the post answered as it was going to be', async () => {
    await using bench = await openBench();
    bench.engine.add('db', { labels: held });
    bench.addFile('10-fails', '', async ({ call }) => (call.state === 'post' ? 4 : 0));
    await bench.signal('pre');
    const { journal } = bench.shared().tools;
    const { changeRun } = journal;
    journal.changeRun = (id, change) => {
      changeRun(id, change);
      if (change.phase === 'closed') void bench.crash();
    };
    const cut = bench.signal('post', { id: 'cut' }).catch(() => undefined);
    await bench.until('dead', () => bench.shared().ending.signal.aborted);
    await cut;
    await bench.restart();
    await bench.until('answered', () => bench.answers.get('cut') !== undefined);
    assert.equal(bench.answers.get('cut')?.[0]?.exitCode, 4);
  });

  it('does not carry a pre out a second time', async () => {
    await using bench = await openBench();
    bench.addFile('10-fails', '', async ({ call }) => (call.state === 'pre' ? 4 : 0));
    const { journal } = bench.shared().tools;
    const { changeRun } = journal;
    journal.changeRun = (id, change) => {
      changeRun(id, change);
      if (change.phase === 'closed') void bench.crash();
    };
    const cut = bench.signal('pre', { id: 'cut' }).catch(() => undefined);
    await bench.until('dead', () => bench.shared().ending.signal.aborted);
    await cut;
    await bench.restart();
    await bench.until('answered', () => bench.answers.get('cut') !== undefined);
    assert.equal(bench.answers.get('cut')?.[0]?.exitCode, 75);
    assert.deepEqual(bench.engine.did('host pre'), ['host pre 10-fails']);
  });
});

describe('a journal that cannot be written for a while', () => {
  it('keeps nothing held, says afterwards what came of it, and answers the same again', async () => {
    await using bench = await openBench();
    bench.engine.add('db', { labels: held });
    await bench.signal('pre');
    const { journal } = bench.shared().tools;
    const whole = { ...journal };
    fill(journal);
    const answer = await bench.signal('post', { id: 'same' });
    assert.equal(answer.exitCode, 0);
    assert.deepEqual(bench.engine.running(), ['db']);
    assert.deepEqual(await bench.signal('post', { id: 'same' }), answer);
    Object.assign(journal, whole);
    await bench.until('written', () => journal.runs('live').length === 0 && journal.answerOf('same') !== undefined);
    assert.deepEqual(journal.holds(), []);
    assert.deepEqual(await bench.signal('post', { id: 'same' }), answer);
    assert.equal((await bench.signal('pre')).exitCode, 0);
    assert.deepEqual(bench.bugs, []);
  });

  it('is made up for before anything is held anew', async () => {
    await using bench = await openBench();
    bench.engine.add('db', { labels: held });
    await bench.signal('pre', { job: 'a' });
    const { journal } = bench.shared().tools;
    const whole = { ...journal };
    fill(journal);
    assert.equal((await bench.signal('post', { job: 'a' })).exitCode, 0);
    assert.deepEqual(bench.engine.running(), ['db']);
    Object.assign(journal, whole);
    assert.equal((await bench.signal('pre', { job: 'b' })).exitCode, 0);
    assert.deepEqual(bench.engine.running(), []);
    assert.deepEqual(
      journal.holds().map(({ status, runs }) => [status, runs]),
      [['held', ['run-2']]],
    );
    assert.equal((await bench.signal('post', { job: 'b' })).exitCode, 0);
    assert.deepEqual(bench.engine.running(), ['db']);
    assert.deepEqual(bench.bugs, []);
  });

  it('has a client told all the same that its holds were lost', async () => {
    await using bench = await openBench();
    for (const name of ['db', 'web']) bench.engine.add(name, { labels: held });
    await bench.signal('pre');
    const { journal } = bench.shared().tools;
    const whole = { ...journal };
    fill(journal);
    for (const name of ['db', 'web']) bench.engine.start(name);
    const answer = await bench.signal('post');
    assert.equal(answer.exitCode, 65);
    for (const name of ['db', 'web'])
      assert.match([answer.message, ...answer.notes].join(), new RegExp(`${name} was held and runs again`));
    Object.assign(journal, whole);
    await bench.until('written', () => journal.runs('live').length === 0);
    assert.equal(journal.run('run-1')?.distrust.length, 2);
    assert.deepEqual(bench.bugs, []);
  });
});

describe('a journal that cannot be written while a restore ends', () => {
  it('does not call kept what was released meanwhile', async () => {
    await using bench = await openBench();
    bench.engine.add('db', { labels: held });
    for (const state of ['pre', 'started'] as const) await bench.signal(state, { operation: 'restore' });
    const { journal } = bench.shared().tools;
    const whole = { ...journal };
    fill(journal);
    await releaseNow({ all: true }, bench.shared());
    assert.equal((await bench.signal('post', { operation: 'restore', outcome: 'failure' })).exitCode, 65);
    Object.assign(journal, whole);
    await bench.until('written', () => journal.runs('live').length === 0);
    assert.deepEqual(bench.engine.running(), ['db']);
    assert.deepEqual(bench.bugs, []);
  });

  it('has the next start end the hook of a post that nobody wrote down', async () => {
    await using bench = await openBench();
    bench.engine.add('db', { labels: { 'sidehook.backup.pre': 'lock', 'sidehook.backup.post': 'unlock' } });
    bench.engine.hooks.set('unlock', (_call, _sink, signal) => bench.clock.sleep(60_000, signal).then(() => 0));
    await bench.signal('pre');
    fill(bench.shared().tools.journal);
    const cut = bench.signal('post').catch(() => undefined);
    await bench.until('its hook runs', () => bench.engine.did('hook unlock').length > 0);
    await bench.crash();
    await cut;
    bench.dieClient();
    await bench.restart();
    await bench.until('it is repeated', () => bench.engine.did('hook unlock').length > 1);
    const dids = bench.engine.diary.map(({ did }) => did.replace(/ run-1.*/, ''));
    assert.deepEqual(
      dids.filter((did) => ['leftovers', 'hook unlock'].includes(did)),
      ['hook unlock', 'leftovers', 'hook unlock'],
    );
  });
});

/** As on a full disk. */
function fill(journal: Journal): void {
  const full = (): never => {
    throw new OperationalError('internal', 'write journal: database or disk is full');
  };
  const writes = ['takeRequest', 'answered', 'changeRun', 'changeHold', 'stepStarted', 'stepEnded'] as const;
  for (const write of writes) journal[write] = full;
}
