import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtempDisposable, readdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { Finding } from '../../../src/core/finding.ts';
import type { HoldRecord, RunRecord } from '../../../src/core/record.ts';
import { openJournal } from '../../../src/journal.ts';
import { startCli } from '../../support/cli.ts';
import { aRunView, openSidecar } from '../../support/scripted-sidecar.ts';

/** Directories of a sidecar that needs no engine. */
async function openPlace() {
  await using stack = new AsyncDisposableStack();
  const { path } = stack.use(await mkdtempDisposable(join(tmpdir(), 'doctor-')));
  const [runDir, stateDir, hooksDir] = [join(path, 'run'), join(path, 'state'), join(path, 'hooks.d')];
  await Promise.all([runDir, stateDir, hooksDir].map((dir) => mkdir(dir)));
  const env = {
    ...{
      SIDEHOOK_ENGINE: 'none',
      SIDEHOOK_RUN_DIR: runDir,
      SIDEHOOK_STATE_DIR: stateDir,
      SIDEHOOK_HOOKS_DIR: hooksDir,
    },
  };
  const owned = stack.move();
  return {
    ...{ path, runDir, stateDir, hooksDir, env },
    async addHook(name: string, text: string, mode = 0o755): Promise<void> {
      await writeFile(join(hooksDir, name), text);
      await chmod(join(hooksDir, name), mode);
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

async function examine(env: Readonly<Record<string, string>>, ...args: readonly string[]) {
  await using cli = startCli(['doctor', '--json', ...args], env);
  const exitCode = await cli.ended;
  const { ok, findings } = JSON.parse(cli.out() || '{}') as { ok: boolean; findings: readonly Finding[] };
  const of = (what: string, level: Finding['level']) =>
    findings.filter((one) => one.what === what && one.level === level).map(({ says }) => says);
  return { exitCode, ok, findings, of, err: cli.err() };
}

describe('sidehook doctor', () => {
  it('finds nothing to mend where all is well, and leaves nothing behind', async () => {
    await using place = await openPlace();
    await place.addHook('10-dump', '#!/bin/sh\n');
    const { exitCode, ok, findings, of } = await examine(place.env);
    assert.equal(exitCode, 0, JSON.stringify(findings));
    assert.equal(ok, true);
    assert.deepEqual(
      findings.filter(({ level }) => level !== 'ok').map(({ what }) => what),
      ['daemon'],
    );
    assert.deepEqual(of('plan backup', 'ok'), ['hooks: 1, holds: 0']);
    assert.deepEqual(await readdir(place.stateDir), []);
    assert.deepEqual(await readdir(place.runDir), []);

    await using people = startCli(['doctor'], place.env);
    assert.equal(await people.ended, 0);
    assert.match(people.out(), /^ok {4}hooks\.d +.*10-dump$/m);
    assert.match(people.out(), /\n0 to mend, 1 to think about\n$/);
  });

  it('names each hook that would fail, and goes on to the next', async () => {
    await using place = await openPlace();
    await place.addHook('10-colour', '#!/bin/sh\n# sidehook: colour=red\n');
    await place.addHook('20-snake', '#!/usr/bin/env no-such-python\n');
    await place.addHook('30-nowhere', '#!/no/such/shell\n');
    await place.addHook('40-text', '#!/bin/sh\n', 0o644);
    await place.addHook('50-fine', '#!/bin/sh\n');
    const { exitCode, of } = await examine(place.env);
    assert.equal(exitCode, 78);
    const failed = of('hooks.d', 'fail');
    assert.equal(failed.length, 3);
    assert.match(failed[0] ?? '', /10-colour, line 2, colour: no such key/);
    assert.match(failed[1] ?? '', /20-snake.*"no-such-python" was not found/);
    assert.match(failed[2] ?? '', /30-nowhere.*"\/no\/such\/shell" was not found/);
    assert.deepEqual(of('hooks.d', 'warn'), ['40-text: passed over: not executable']);

    await place.addHook('60-open', '#!/bin/sh\n', 0o777);
    assert.match((await examine(place.env)).of('hooks.d', 'fail').join(), /60-open: writable by others/);
  });

  it('tells what is unknown in the settings, and examines the rest all the same', async () => {
    await using place = await openPlace();
    const { exitCode, of } = await examine({ ...place.env, SIDEHOOK_SCOP: 'host' });
    assert.equal(exitCode, 78);
    assert.match(of('configuration', 'fail').join(), /SIDEHOOK_SCOP.*nearest known one is SIDEHOOK_SCOPE/);
    assert.equal(of('plan backup', 'ok').length, 1);
    const wrong = await examine({ ...place.env, SIDEHOOK_HOLD_MAX: 'soon' });
    assert.equal(wrong.exitCode, 78);
    assert.match(wrong.of('configuration', 'fail').join(), /hold\.max.*expected a duration/);
  });

  it('fails for a directory that cannot be one, and for one that lies in memory', async () => {
    await using place = await openPlace();
    await writeFile(join(place.path, 'file'), '');
    const file = await examine({ ...place.env, SIDEHOOK_STATE_DIR: join(place.path, 'file') });
    assert.equal(file.exitCode, 78);
    assert.match(file.of('state.dir', 'fail').join(), /is no directory/);
    await using memory = await mkdtempDisposable('/dev/shm/doctor-');
    const lost = await examine({ ...place.env, SIDEHOOK_STATE_DIR: memory.path });
    assert.match(lost.of('state.dir disk', 'fail').join(), /lies in memory/);
    const closed = await examine({ ...place.env, SIDEHOOK_RUN_DIR: join(place.path, 'file', 'run') });
    assert.match(closed.of('run.dir', 'fail').join(), /cannot be written/);
  });

  it('says where hooks ask for an engine that is not there', async () => {
    await using place = await openPlace();
    await place.addHook('10-db', '#!/bin/sh\n# sidehook: target=service:db\n');
    const { exitCode, of } = await examine(place.env);
    assert.equal(exitCode, 78);
    assert.match(of('plan', 'fail').join(), /target service:db: there is no engine/);
  });

  it('asks the daemon where it is up, and tells what it holds against its will', async () => {
    const holds = [
      { workload: 'db', kind: 'stop', status: 'releasing', heldAt: 'then', runs: ['run-1'], why: 'no such network' },
    ] as const;
    await using sidecar = await openSidecar({
      views: {
        status: async () => ({
          ...{ version: '0.0.1-other', since: '2026-01-01T00:00:00.000Z', engine: { kind: 'none', reachable: true } },
          runs: [aRunView({ phase: 'kept', operation: 'restore', job: 'nightly' })],
          holds,
        }),
      },
    });
    await using place = await openPlace();
    const { exitCode, of } = await examine({ ...place.env, SIDEHOOK_STATE_DIR: sidecar.dir });
    assert.equal(exitCode, 78);
    assert.deepEqual(of('daemon', 'ok'), ['up since 2026-01-01T00:00:00.000Z']);
    assert.deepEqual(of('daemon', 'fail'), ['db is not released yet: no such network']);
    assert.match(of('daemon', 'warn').join(), /0\.0\.1-other.*restore of job nightly failed.*release --run run-1/);
  });

  it('tells what is held with the daemon down, and leaves a journal alone that is in use', async () => {
    await using place = await openPlace();
    {
      using journal = openJournal(place.stateDir);
      journal.openRun(A_RUN, [], []);
      journal.addHold(A_HOLD, A_RUN.id);
      const { exitCode, of } = await examine(place.env);
      assert.equal(exitCode, 0);
      assert.match(of('daemon', 'warn').join(), /another sidehook uses this state directory/);
      assert.equal(journal.holds().length, 1); // ours still
    }
    const { exitCode, of } = await examine(place.env);
    assert.equal(exitCode, 78);
    assert.match(of('daemon', 'fail').join(), /^db is held since 2026.*nobody is there to release it/);
  });
});

const A_RUN: RunRecord = {
  ...{ id: 'run-1', job: 'default', client: 'default', operation: 'backup', params: {}, phase: 'open', lease: 'held' },
  ...{ openedAt: '2026-01-01T00:00:00Z', requestId: 'x', leaseRef: 'x', commandStarted: false, distrust: [] },
};
const A_HOLD: HoldRecord = {
  ...{ key: 'app/db/1', instance: 'i', name: 'db', kind: 'stop', startedAt: '1', awaitHealth: false, healthTermMs: 0 },
  ...{ after: [], status: 'held', heldAt: '2026-01-01T00:00:00Z', runs: [] },
};
