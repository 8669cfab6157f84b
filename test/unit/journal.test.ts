import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempDisposable, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { describe, it } from 'node:test';
import { OperationalError } from '../../src/core/errors.ts';
import type { Hold } from '../../src/core/hold.ts';
import type { RunRecord } from '../../src/core/record.ts';
import type { Request } from '../../src/core/request.ts';
import { openJournal } from '../../src/journal.ts';

const aRun = (id: string, more: Partial<RunRecord> = {}): RunRecord => ({
  ...{
    id,
    job: id,
    client: 'default',
    operation: 'backup',
    params: {},
    phase: 'pre',
    openedAt: '2026-01-01T00:00:00Z',
  },
  ...{ requestId: `request-${id}`, leaseRef: 'x', lease: 'held', commandStarted: false, distrust: [] },
  ...more,
});
const aHold = (key: string): Hold => ({
  ...{ key, instance: 'i', name: key, kind: 'stop', startedAt: '1', awaitHealth: false, healthTermMs: 0, after: [] },
  ...{ status: 'asked', heldAt: '2026-01-01T00:00:00Z' },
});
const aTemporary = () => mkdtempDisposable(join(tmpdir(), 'sidehook-journal-'));

describe('the journal', () => {
  it('has after a kill what was in it before', async () => {
    await using dir = await aTemporary();
    const write = `
      const { openJournal } = await import(${JSON.stringify(new URL('../../src/journal.ts', import.meta.url).href)});
      const journal = openJournal(${JSON.stringify(dir.path)});
      journal.openRun(${JSON.stringify(aRun('a'))}, [], []);
      journal.addHold(${JSON.stringify(aHold('db'))}, 'a');
      process.kill(process.pid, 'SIGKILL');`;
    const { signal } = spawnSync(process.execPath, ['--input-type=module', '-e', write]);
    assert.equal(signal, 'SIGKILL');
    using journal = openJournal(dir.path);
    assert.deepEqual(
      journal.runs('live').map(({ id }) => id),
      ['a'],
    );
    assert.deepEqual(journal.holds(), [{ ...aHold('db'), runs: ['a'] }]);
  });

  it('lets one sidecar in at a time', async () => {
    await using dir = await aTemporary();
    using _journal = openJournal(dir.path);
    assert.throws(
      () => openJournal(dir.path),
      (error) => error instanceof OperationalError && /another sidehook uses/.test(error.message),
    );
  });

  it('refuses a newer format, and what is no journal, with a clear line', async () => {
    await using dir = await aTemporary();
    openJournal(dir.path)[Symbol.dispose]();
    const database = new DatabaseSync(join(dir.path, 'journal.db'));
    database.exec('PRAGMA user_version = 99');
    database.close();
    assert.throws(() => openJournal(dir.path), /a newer sidehook wrote it \(format 99, this one knows 1\)/);
    await writeFile(
      join(dir.path, 'journal.db'),
      'this is no database at all, and longer than a header of one hundred bytes would be, to be sure of it',
    );
    assert.throws(
      () => openJournal(dir.path),
      (error) => error instanceof OperationalError && /not a database/.test(error.message),
    );
  });

  it('answers a request for ever with what it was answered first', async () => {
    await using dir = await aTemporary();
    using journal = openJournal(dir.path);
    const request = {
      id: 'r',
      client: 'default',
      operation: 'backup',
      state: 'pre',
      job: 'default',
      params: {},
      waitMs: 0,
      lease: 'held',
      outcome: 'success',
    } as const;
    journal.takeRequest(request, 'lease');
    journal.takeRequest(request, 'other');
    assert.deepEqual(journal.unanswered(), [{ request, leaseRef: 'lease' }]);
    journal.answered(request, 'lease', { exitCode: 3, notes: ['n'] });
    assert.deepEqual(journal.unanswered(), []);
    assert.deepEqual(journal.answerOf('r'), { exitCode: 3, notes: ['n'] });
  });

  it('refuses a second run of a job, and a claim that another run excludes', async () => {
    await using dir = await aTemporary();
    using journal = openJournal(dir.path);
    const claim = (use: 'hold' | 'exec') => ({ key: 'db', name: 'db', use });
    journal.openRun(aRun('a'), [], [claim('hold')]);
    assert.throws(() => journal.openRun(aRun('b', { job: 'a' }), [], []), /not now: job a has run a open/);
    assert.throws(
      () => journal.openRun(aRun('c'), [], [claim('exec')]),
      /not now: db is in use by run a \(backup of job a\)/,
    );
    assert.deepEqual(journal.runs('all').length, 1);
    journal.changeRun('a', { phase: 'closed' });
    journal.openRun(aRun('c'), [], [claim('exec')]);
  });

  it('makes whoever wants what is being released wait', async () => {
    await using dir = await aTemporary();
    using journal = openJournal(dir.path);
    journal.openRun(aRun('a'), [], []);
    journal.addHold(aHold('db'), 'a');
    journal.changeHold('db', { status: 'releasing', trouble: 'port taken' });
    assert.throws(
      () => journal.openRun(aRun('b'), [], [{ key: 'db', name: 'db', use: 'hold' }]),
      /not now: db is being released: port taken/,
    );
  });

  it('takes back all of a write that fails half-way', async () => {
    await using dir = await aTemporary();
    using journal = openJournal(dir.path);
    journal.openRun(aRun('a'), [], []);
    assert.throws(() =>
      journal.atomically(() => {
        journal.changeRun('a', { phase: 'open' });
        throw new Error('half-way');
      }),
    );
    assert.equal(journal.run('a')?.phase, 'pre');
  });

  it('stays bounded over many runs, and forgets none that still holds', async () => {
    await using dir = await aTemporary();
    using journal = openJournal(dir.path);
    journal.openRun(aRun('holder'), [], []);
    journal.addHold(aHold('db'), 'holder');
    journal.atomically(() => {
      journal.changeRun('holder', { phase: 'closed' });
      for (let index = 0; index < 1200; index += 1) {
        journal.openRun(aRun(`run-${index}`), [], []);
        journal.changeRun(`run-${index}`, { phase: 'closed' });
      }
    });
    assert.ok(journal.runs('all').length <= 1001);
    assert.equal(journal.run('holder')?.id, 'holder');
    assert.equal(journal.holds().length, 1);
  });

  it('stays bounded by requests that open no run, and keeps of each its answer alone', async () => {
    await using dir = await aTemporary();
    using journal = openJournal(dir.path);
    const answer = { exitCode: 65, notes: [] };
    journal.atomically(() => {
      for (let index = 0; index < 10_600; index += 1) {
        const params = { SECRET: `param-${index}` };
        const request = { ...A_REQUEST, id: `r-${index}`, params };
        journal.takeRequest(request, 'x');
        if (index !== 1) journal.answered(request, 'x', answer);
      }
    });
    assert.equal(journal.answerOf('r-0'), undefined);
    assert.deepEqual(journal.answerOf('r-10599'), answer);
    assert.deepEqual(
      journal.unanswered().map(({ request }) => request.params),
      [{ SECRET: 'param-1' }],
    );
  });
});

const A_REQUEST: Request = {
  ...{ id: 'r', client: 'default', operation: 'backup', state: 'post', job: 'default', params: {} },
  ...{ waitMs: 0, lease: 'held', outcome: 'success' },
};
