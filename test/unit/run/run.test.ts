import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { OperationalError } from '../../../src/core/errors.ts';
import { releaseNow } from '../../../src/run/control.ts';
import { openBench } from '../../support/bench.ts';
import type { Box } from '../../support/fake-engine.ts';

const held = { 'sidehook.hold': 'stop' };
const on = (...services: string[]): Box['dependsOn'] =>
  services.map((service) => ({ project: 'app', service, condition: 'service_healthy' }));

/** `web` depends on `api` depends on `db`; all are held. */
async function openChain(settings: Parameters<typeof openBench>[0] = {}) {
  const bench = await openBench(settings);
  bench.engine.add('db', { labels: held, healthyAfterMs: 500 });
  bench.engine.add('api', { labels: held, dependsOn: on('db'), healthyAfterMs: 300 });
  bench.engine.add('web', { labels: held, dependsOn: on('api') });
  return bench;
}

describe('a run', () => {
  it('stops dependents first, and starts dependencies first, each after the health of the one before', async () => {
    await using bench = await openChain();
    assert.equal((await bench.signal('pre')).exitCode, 0);
    assert.deepEqual(bench.engine.running(), []);
    const { exitCode, notes } = await bench.signal('post');
    assert.deepEqual([exitCode, notes], [0, ['held: web 1.3s, api 1.1s, db 0.7s']]);
    assert.deepEqual(bench.engine.did('stopping', 'stopped', 'started', 'healthy'), [
      ...['stopping web', 'stopped web', 'stopping api', 'stopped api', 'stopping db', 'stopped db'],
      ...['started db', 'healthy db', 'started api', 'healthy api', 'started web'],
    ]);
    assert.deepEqual(bench.bugs, []);
  });

  it('stops and starts two independent chains side by side', async () => {
    await using bench = await openChain();
    bench.engine.add('cache', { labels: held });
    bench.engine.add('worker', { labels: held, dependsOn: on('cache') });
    await bench.signal('pre');
    const at = (did: string, name: string) =>
      bench.engine.diary.find((one) => one.did === did && one.name === name)?.at;
    assert.equal(at('stopping', 'web'), at('stopping', 'worker'));
    await bench.signal('post');
    assert.equal(at('started', 'db'), at('started', 'cache'));
  });

  it('leaves stopped what it found stopped', async () => {
    await using bench = await openChain();
    bench.engine.add('old', { labels: held, state: 'exited' });
    const { notes } = await bench.signal('pre');
    assert.ok(notes.some((note) => /old: found exited, left so/.test(note)));
    await bench.signal('post');
    assert.deepEqual(bench.engine.running(), ['db', 'api', 'web']);
  });

  it('runs hooks, holds, held hooks; and at post the mirror image', async () => {
    await using bench = await openChain();
    bench.engine.add('other', { labels: { 'sidehook.backup.pre': 'lock', 'sidehook.backup.post': 'unlock' } });
    bench.addFile('10-first');
    bench.addFile('20-second');
    bench.addFile('30-dump', 'while=held');
    await bench.signal('pre');
    await bench.signal('post');
    assert.deepEqual(bench.engine.did('host pre', 'hook lock', 'stopped', 'host post', 'hook unlock', 'started'), [
      ...['host pre 10-first', 'host pre 20-second', 'hook lock other', 'stopped web', 'stopped api', 'stopped db'],
      ...['host pre 30-dump', 'host post 30-dump', 'started db', 'started api', 'started web'],
      ...['hook unlock other', 'host post 20-second', 'host post 10-first'],
    ]);
  });

  it('gives a failing pre hook’s code back, undoes what was started, and not what was not', async () => {
    await using bench = await openChain();
    bench.addFile('10-ok');
    bench.addFile('20-fails', 'while=held', async ({ call }) => (call.state === 'pre' ? 3 : 0));
    bench.addFile('30-never', 'while=held');
    const answer = await bench.signal('pre');
    assert.equal(answer.exitCode, 3);
    assert.equal(answer.message, 'backup pre: hook 20-fails (host) exited 3');
    assert.deepEqual(bench.engine.running(), ['db', 'api', 'web']);
    assert.deepEqual(bench.engine.did('host post'), ['host post 20-fails', 'host post 10-ok']);
    assert.equal(bench.journal().runs('all')[0]?.outcome, 'aborted');
  });

  it('calls a pre hook that exits 75 a skip', async () => {
    await using bench = await openBench();
    bench.addFile('10-not-now', '', async ({ call }) => (call.state === 'pre' ? 75 : 0));
    assert.equal((await bench.signal('pre')).exitCode, 75);
    assert.equal(bench.journal().runs('all')[0]?.outcome, 'skipped');
  });

  it('goes on after a hook that may fail, and says so', async () => {
    await using bench = await openBench();
    bench.addFile('10-may-fail', 'on-error=continue', async () => 9);
    const answer = await bench.signal('pre');
    assert.equal(answer.exitCode, 0);
    assert.ok(answer.notes.some((note) => /10-may-fail \(host\) exited 9: on-error=continue/.test(note)));
  });

  it('gives every post hook its turn and every hold its release, and the first code back', async () => {
    await using bench = await openChain();
    for (const [name, code] of [
      ['10-a', 4],
      ['20-b', 5],
    ] as const) {
      bench.addFile(name, '', async ({ call }) => (call.state === 'post' ? code : 0));
    }
    bench.addFile('30-held', 'while=held', async ({ call }) => (call.state === 'post' ? 6 : 0));
    await bench.signal('pre');
    const answer = await bench.signal('post');
    assert.equal(answer.exitCode, 6);
    assert.deepEqual(bench.engine.running(), ['db', 'api', 'web']);
    assert.deepEqual(bench.engine.did('host post'), ['host post 30-held', 'host post 20-b', 'host post 10-a']);
  });

  it('answers the same request twice and carries it out once', async () => {
    await using bench = await openBench();
    bench.addFile('10-once');
    const first = await bench.signal('pre', { id: 'same' });
    const second = await bench.signal('pre', { id: 'same' });
    assert.deepEqual(second, { ...first, output: '' });
    assert.deepEqual(bench.engine.did('host pre'), ['host pre 10-once']);
  });

  it('refuses a second pre of a job while its run is open, and lets it in when it waits', async () => {
    await using bench = await openChain();
    await bench.signal('pre');
    const refused = await bench.signal('pre', { ref: 'client-2' });
    assert.equal(refused.exitCode, 75);
    assert.match(refused.message ?? '', /job default has run run-1 open/);
    const waiting = bench.signal('pre', { ref: 'client-2', waitMs: 60_000 });
    await bench.signal('post');
    assert.equal((await waiting).exitCode, 0);
  });

  it('shares a hold between two jobs: it starts when the second lets go, and only then', async () => {
    await using bench = await openChain();
    const a = await bench.signal('pre', { job: 'a' });
    const b = await bench.signal('pre', { job: 'b', ref: 'client-2' });
    assert.equal(b.exitCode, 0);
    await bench.signal('post', { job: 'a', ...(a.runId ? { runId: a.runId } : {}) });
    assert.deepEqual(bench.engine.running(), []);
    await bench.signal('post', { job: 'b' });
    assert.deepEqual(bench.engine.running(), ['db', 'api', 'web']);
  });

  it('abandons the run of a client that dies, and starts everything again', async () => {
    await using bench = await openChain();
    bench.addFile('10-hook');
    const { runId = '' } = await bench.signal('pre');
    bench.dieClient();
    await bench.until('all run', () => bench.engine.running().length === 3);
    await bench.until('closed', () => bench.journal().run(runId)?.phase === 'closed');
    assert.equal(bench.journal().run(runId)?.outcome, 'abandoned');
    assert.deepEqual(bench.engine.did('host post'), ['host post 10-hook']);
    const late = await bench.signal('post', { runId });
    assert.equal(late.exitCode, 65);
  });

  it('undoes a pre whose client dies in the middle of it', async () => {
    await using bench = await openChain();
    bench.addFile('10-slow', 'while=held', async ({ call }, _sink, signal) => {
      if (call.state === 'pre') {
        bench.dieClient();
        await bench.clock.sleep(60_000, signal).catch(() => undefined);
      }
      return call.state === 'pre' ? { status: 'canceled', reason: 'client gone' } : 0;
    });
    await bench.signal('pre');
    assert.deepEqual(bench.engine.running(), ['db', 'api', 'web']);
  });

  it('abandons a bare signal’s run when no word comes for its lease', async () => {
    await using bench = await openChain();
    await bench.signal('pre', { lease: 3_600_000 });
    await bench.until('all run', () => bench.engine.running().length === 3);
    assert.ok(bench.clock.monotonicMs() >= 3_600_000);
  });

  it('ends a hold that lasts longer than hold.max, and tells the client', async () => {
    await using bench = await openChain({ holdMaxMs: 60_000 });
    const { runId = '' } = await bench.signal('pre');
    await bench.until('all run', () => bench.engine.running().length === 3);
    const answer = await bench.signal('post', { runId });
    assert.equal(answer.exitCode, 65);
    assert.match(answer.message ?? '', /hold\.max/);
  });

  it('answers 65 when a held workload was started by someone meanwhile', async () => {
    await using bench = await openChain();
    await bench.signal('pre');
    bench.engine.start('db');
    await bench.until('told', () => bench.lines.some(({ message }) => message === 'hold lost'));
    const answer = await bench.signal('post');
    assert.equal(answer.exitCode, 65);
    assert.match(answer.message ?? '', /db was held and runs again/);
    assert.deepEqual(bench.engine.running(), ['db', 'api', 'web']);
  });

  it('finds again what was made anew while it was held', async () => {
    await using bench = await openChain();
    await bench.signal('pre');
    bench.engine.recreate('web');
    const answer = await bench.signal('post');
    assert.equal(answer.exitCode, 65); // it ran while the command read
    assert.deepEqual(bench.engine.running(), ['db', 'api', 'web']);
  });

  it('holds, and releases, what was made anew between the plan and its hold', async () => {
    await using bench = await openChain();
    bench.addFile('10-recreates', 'on=backup.pre', async () => {
      bench.engine.recreate('web');
      return 0;
    });
    assert.equal((await bench.signal('pre')).exitCode, 0);
    assert.deepEqual(bench.engine.running(), []);
    assert.equal((await bench.signal('post')).exitCode, 0);
    assert.deepEqual(bench.engine.running(), ['db', 'api', 'web']);
  });

  it('names what cannot be started, starts what depends on it, and goes on trying', async () => {
    await using bench = await openChain();
    await bench.signal('pre');
    const db = bench.engine.boxes.get('db') as Box;
    db.stuck = 'port is already allocated';
    const answer = await bench.signal('post');
    assert.equal(answer.exitCode, 74);
    assert.match(answer.message ?? '', /release of db: start container db: port is already allocated/);
    assert.deepEqual(bench.engine.running(), ['api', 'web']);
    delete db.stuck;
    await bench.until('db runs', () => bench.engine.running().length === 3);
  });

  it('waits for the health of what was only starting when it was stopped', async () => {
    await using bench = await openChain();
    const db = bench.engine.boxes.get('db') as Box;
    db.health = 'starting';
    await bench.signal('pre');
    await bench.signal('post');
    const begun = bench.engine.did('started', 'healthy');
    assert.deepEqual(begun.slice(0, 3), ['started db', 'healthy db', 'started api']);
  });

  it('names what does not become healthy, and still starts what depends on it', async () => {
    await using bench = await openChain();
    await bench.signal('pre');
    (bench.engine.boxes.get('db') as Box).healthyAfterMs = 10_000_000;
    const answer = await bench.signal('post');
    assert.equal(answer.exitCode, 74);
    assert.match(answer.message ?? '', /release of db: it runs, but is starting after 120s/);
    assert.deepEqual(bench.engine.running(), ['db', 'api', 'web']);
  });

  it('releases when the engine comes back, and does not let the client wait for it', async () => {
    await using bench = await openChain();
    bench.addFile('10-hook');
    const { runId = '' } = await bench.signal('pre');
    bench.engine.setAway('no answer');
    const answer = await bench.signal('post');
    assert.equal(answer.exitCode, 69);
    bench.engine.setAway(undefined);
    await bench.until('closed', () => bench.journal().run(runId)?.phase === 'closed');
    assert.deepEqual(bench.engine.running(), ['db', 'api', 'web']);
    assert.deepEqual(bench.engine.did('host post'), ['host post 10-hook']);
  });

  it('refuses a pre when the engine is away', async () => {
    await using bench = await openChain();
    bench.engine.setAway('no answer');
    assert.equal((await bench.signal('pre')).exitCode, 69);
  });

  it('fails when one cannot be stopped, and starts the others again', async () => {
    await using bench = await openChain({ unclean: 'abort' });
    (bench.engine.boxes.get('db') as Box).stopMs = 60_000;
    const answer = await bench.signal('pre');
    assert.equal(answer.exitCode, 74);
    assert.match(answer.message ?? '', /db: it did not stop in its time and was killed/);
    assert.deepEqual(bench.engine.running(), ['db', 'api', 'web']);
  });

  it('starts what it had paused and what died with the engine', async () => {
    await using bench = await openBench();
    const box = bench.engine.add('db', { labels: { 'sidehook.hold': 'pause' } });
    await bench.signal('pre');
    Object.assign(box, { state: 'exited', finishedAt: '2026-01-02T00:00:00.000000000Z' });
    const answer = await bench.signal('post');
    assert.deepEqual([answer.exitCode, bench.engine.running()], [0, ['db']], answer.message);
  });

  it('pauses and unpauses', async () => {
    await using bench = await openBench();
    bench.engine.add('db', { labels: { 'sidehook.hold': 'pause' } });
    await bench.signal('pre');
    assert.deepEqual(bench.engine.did('paused', 'stopping'), ['paused db']);
    await bench.signal('post');
    assert.deepEqual(bench.engine.did('unpaused', 'started'), ['unpaused db']);
  });

  it('answers 65 to a post with no run', async () => {
    await using bench = await openBench();
    const answer = await bench.signal('post');
    assert.equal(answer.exitCode, 65);
    assert.match(answer.message ?? '', /job default has no run open/);
  });
});

describe('a restore', () => {
  it('that failed after its command began keeps its holds, until told to release', async () => {
    await using bench = await openChain();
    bench.addFile('10-import', 'on=restore.pre,restore.post');
    const { runId = '' } = await bench.signal('pre', { operation: 'restore' });
    await bench.signal('started', { operation: 'restore', runId });
    const answer = await bench.signal('post', { operation: 'restore', runId, outcome: 'failure', status: 1 });
    assert.equal(answer.exitCode, 74);
    assert.match(answer.message ?? '', /stay held until sidehook release/);
    assert.deepEqual(bench.engine.running(), []);
    assert.deepEqual(bench.engine.did('host post'), []);

    assert.equal((await releaseNow({ all: true }, bench.shared())).exitCode, 0);
    assert.deepEqual(bench.engine.running(), ['db', 'api', 'web']);
    assert.equal(bench.journal().run(runId)?.phase, 'closed');
  });

  it('that failed is over with the next release, where one was killed after it had let go of all', async () => {
    await using bench = await openChain();
    const { runId = '' } = await bench.signal('pre', { operation: 'restore' });
    await bench.signal('started', { operation: 'restore', runId });
    await bench.signal('post', { operation: 'restore', runId, outcome: 'failure', status: 1 });
    for (const { key } of bench.journal().holds()) bench.journal().changeHold(key, { status: 'released' });
    const { exitCode, notes } = await releaseNow({ all: true }, bench.shared());
    assert.deepEqual([exitCode, notes], [0, ['nothing is held']]);
    assert.equal(bench.journal().run(runId)?.phase, 'closed');
  });

  it('that failed is released also if the engine refuses the first look', async () => {
    await using bench = await openChain();
    const { runId = '' } = await bench.signal('pre', { operation: 'restore' });
    await bench.signal('started', { operation: 'restore', runId });
    await bench.signal('post', { operation: 'restore', runId, outcome: 'failure', status: 1 });
    const { tools, ...shared } = bench.shared();
    let refusals = 1;
    const inspect: typeof tools.driver.inspect = async (...args) => {
      refusals -= 1;
      if (refusals >= 0) throw new OperationalError('workload-failed', 'inspect db: it answered 500');
      return tools.driver.inspect(...args);
    };
    const refused = { ...shared, tools: { ...tools, driver: { ...tools.driver, inspect } } };
    assert.equal((await releaseNow({ all: true }, refused)).exitCode, 0);
    assert.deepEqual(bench.engine.running(), ['db', 'api', 'web']);
  });

  it('that succeeds releases what failed ones of its job kept', async () => {
    await using bench = await openChain();
    const first = await bench.signal('pre', { operation: 'restore' });
    await bench.signal('started', { operation: 'restore', runId: first.runId ?? '' });
    await bench.signal('post', { operation: 'restore', outcome: 'failure' });
    const backup = await bench.signal('pre');
    assert.equal(backup.exitCode, 75);
    assert.match(backup.message ?? '', /failed and keeps what it held/);
    assert.equal((await bench.signal('pre', { operation: 'restore' })).exitCode, 0);
    assert.equal((await bench.signal('post', { operation: 'restore' })).exitCode, 0);
    assert.deepEqual(bench.engine.running(), ['db', 'api', 'web']);
    assert.deepEqual(bench.journal().runs('live'), []);
  });

  it('whose command had not begun releases', async () => {
    await using bench = await openChain();
    await bench.signal('pre', { operation: 'restore' });
    bench.dieClient();
    await bench.until('all run', () => bench.engine.running().length === 3);
  });

  it('stops again what somebody started', async () => {
    await using bench = await openChain();
    await bench.signal('pre', { operation: 'restore' });
    bench.engine.start('db');
    await bench.until('stopped again', () => bench.engine.running().length === 0);
    await bench.signal('post', { operation: 'restore' });
    assert.deepEqual(bench.engine.running(), ['db', 'api', 'web']);
  });
});

describe('a sidecar that dies', () => {
  it('goes on with a run whose client lives', async () => {
    await using bench = await openChain();
    const { runId = '' } = await bench.signal('pre');
    await bench.crash();
    await bench.restart();
    assert.deepEqual(bench.engine.running(), []);
    const answer = await bench.signal('post', { runId });
    assert.equal(answer.exitCode, 0);
    assert.deepEqual(bench.engine.running(), ['db', 'api', 'web']);
  });

  it('releases at its next start what a dead client’s run held', async () => {
    await using bench = await openChain();
    await bench.signal('pre');
    await bench.crash();
    bench.dieClient();
    await bench.restart();
    await bench.until('all run', () => bench.engine.running().length === 3);
  });

  it('unwinds an interrupted pre and answers it 75', async () => {
    await using bench = await openChain();
    bench.addFile('10-hook');
    const cut = bench.signal('pre', { id: 'cut' }).catch(() => undefined);
    await bench.until('api stopping', () => bench.engine.did('stopping').includes('stopping api'));
    await bench.crash();
    await cut;
    await bench.restart();
    await bench.until('all run', () => bench.engine.running().length === 3);
    await bench.until('answered', () => bench.answers.get('cut') !== undefined);
    assert.equal(bench.answers.get('cut')?.[0]?.exitCode, 75);
    assert.deepEqual(bench.engine.did('host post'), ['host post 10-hook']);
  });

  it('goes on with an interrupted post where it was', async () => {
    await using bench = await openChain();
    bench.addFile('10-after');
    bench.addFile('20-held', 'while=held');
    await bench.signal('pre');
    const cut = bench.signal('post', { id: 'cut' }).catch(() => undefined);
    await bench.until('db started', () => bench.engine.did('started').length === 1);
    await bench.crash();
    await cut;
    await bench.restart();
    await bench.until('answered', () => bench.answers.get('cut') !== undefined);
    assert.equal(bench.answers.get('cut')?.[0]?.exitCode, 0);
    assert.deepEqual(bench.engine.running(), ['db', 'api', 'web']);
    assert.deepEqual(bench.engine.did('host post'), ['host post 20-held', 'host post 10-after']);
    assert.deepEqual(bench.engine.did('started'), ['started db', 'started api', 'started web']);
  });

  it('between the end of a run and its answer leaves neither of both behind', async () => {
    await using bench = await openChain();
    await bench.signal('pre');
    Object.assign(bench.journal(), {
      answered() {
        throw new Error('killed here');
      },
    });
    await bench.signal('post', { id: 'cut' }).catch(() => undefined);
    await bench.crash();
    await bench.restart();
    await bench.until('answered', () => bench.answers.get('cut') !== undefined);
    assert.equal(bench.answers.get('cut')?.[0]?.exitCode, 0);
    assert.deepEqual(bench.engine.running(), ['db', 'api', 'web']);
  });

  it('in the undoing of a pre that failed does not carry it out once more', async () => {
    await using bench = await openChain();
    bench.addFile('10-fails', 'while=held', async ({ call }) => (call.state === 'pre' ? 3 : 0));
    const cut = bench.signal('pre', { id: 'cut' }).catch(() => undefined);
    await bench.until('db started', () => bench.engine.did('started').length === 1);
    await bench.crash();
    await cut;
    await bench.restart();
    await bench.until('answered', () => bench.answers.get('cut') !== undefined);
    assert.equal(bench.answers.get('cut')?.[0]?.exitCode, 75);
    assert.equal(bench.journal().runs('all').length, 1);
    assert.deepEqual(bench.engine.did('host pre'), ['host pre 10-fails']);
    assert.deepEqual(bench.engine.running(), ['db', 'api', 'web']);
  });

  it('releases on TERM what it holds for a living client, which is told 65', async () => {
    await using bench = await openChain();
    const { runId = '' } = await bench.signal('pre');
    await bench.shutDown();
    assert.deepEqual(bench.engine.running(), ['db', 'api', 'web']);
    await bench.crash();
    await bench.restart();
    assert.equal((await bench.signal('post', { runId })).exitCode, 65);
  });

  it('keeps the holds on TERM when told so', async () => {
    await using bench = await openChain({ shutdownHolds: 'keep' });
    const { runId = '' } = await bench.signal('pre');
    await bench.shutDown();
    assert.deepEqual(bench.engine.running(), []);
    await bench.crash();
    await bench.restart();
    assert.equal((await bench.signal('post', { runId })).exitCode, 0);
    assert.deepEqual(bench.engine.running(), ['db', 'api', 'web']);
  });
});

describe('without its engine', () => {
  it('forgets nothing that another engine’s run stopped', async () => {
    const { openNone } = await import('../../../src/drivers/none.ts');
    const ref = { key: 'app/db/1', instance: 'i1', name: 'db' };
    await assert.rejects(openNone().inspect(ref, new AbortController().signal), { code: 'engine-unavailable' });
  });
});
