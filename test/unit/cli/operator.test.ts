import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { resolve } from 'node:path';
import { describe, it } from 'node:test';
import type { PlanView, StatusView } from '../../../src/core/views.ts';
import { type Cli, startCli } from '../../support/cli.ts';
import { aRunView, openSidecar } from '../../support/scripted-sidecar.ts';

const MAIN = resolve(import.meta.dirname, '../../../src/main.ts');

const STATUS: StatusView = {
  version: '1.2.3',
  since: '2026-01-01T00:00:00.000Z',
  engine: { kind: 'docker', reachable: false, why: 'connect ENOENT' },
  runs: [aRunView({ outcome: 'abandoned', phase: 'kept', distrust: ['hold of db was lost'] })],
  holds: [
    {
      ...{
        workload: 'db\u001b[31m',
        kind: 'stop',
        status: 'held',
        heldAt: '2026-01-01T00:00:00.000Z',
        runs: ['run-1'],
      },
      why: 'a restore failed',
    },
  ],
};
const PLAN: PlanView = {
  ...{ operation: 'backup', state: 'pre', job: 'nightly', notes: ['app depends on db and is not held'] },
  steps: [
    { do: 'run', what: '10-announce', where: 'host' },
    { do: 'hold', what: 'db', where: 'container:db', why: 'sidehook.hold=stop' },
  ],
};

describe('the verbs that ask the daemon', () => {
  it('show the status in a table that cannot paint the screen, and whole as JSON', async () => {
    await using sidecar = await openSidecar({ views: { status: async () => STATUS } });
    await using cli = startCli(['status', '--state-dir', sidecar.dir]);
    assert.equal(await cli.ended, 0);
    assert.equal(
      cli.out(),
      [
        'sidehook 1.2.3  up since 2026-01-01T00:00:00.000Z  engine: docker, does not answer: connect ENOENT',
        '',
        'RUN    JOB      OPERATION  PHASE  OUTCOME    OPENED                    NOT TRUSTED',
        'run-1  default  backup     kept   abandoned  2026-01-01T00:00:00.000Z  hold of db was lost',
        '',
        'WORKLOAD  HOLD  STATUS  SINCE                     RUNS   WHY NOT RELEASED',
        'db [31m   stop  held    2026-01-01T00:00:00.000Z  run-1  a restore failed',
        '',
      ].join('\n'),
    );
    await using json = startCli(['status', '--json'], { SIDEHOOK_STATE_DIR: sidecar.dir });
    assert.equal(await json.ended, 0);
    const [{ leaseRef: _, ...run }] = STATUS.runs as [StatusView['runs'][number]];
    assert.deepEqual(JSON.parse(json.out()), { ...STATUS, runs: [run] });
  });

  it('show a plan, of pre where nothing else is said', async () => {
    const asked: unknown[] = [];
    await using sidecar = await openSidecar({
      views: {
        async plan({ operation, state, job }) {
          asked.push([operation, state, job]);
          return PLAN;
        },
      },
    });
    await using cli = startCli(['plan', 'backup', '--job', 'nightly', '--state-dir', sidecar.dir]);
    assert.equal(await cli.ended, 0);
    assert.equal(
      cli.out(),
      [
        'backup pre, job nightly',
        '  1  run   10-announce  host',
        '  2  hold  db           container:db  sidehook.hold=stop',
        'note: app depends on db and is not held',
        '',
      ].join('\n'),
    );
    await using json = startCli(['plan', 'restore', 'post', '--json', '--state-dir', sidecar.dir]);
    assert.equal(await json.ended, 0);
    assert.deepEqual(JSON.parse(json.out()), PLAN);
    assert.deepEqual(asked, [
      ['backup', 'pre', 'nightly'],
      ['restore', 'post', 'default'],
    ]);
    await using refused = startCli(['plan', 'format', '--state-dir', sidecar.dir]);
    assert.equal(await refused.ended, 77);
  });

  it('release one run, or all, and say what could not be', async () => {
    const released: unknown[] = [];
    await using sidecar = await openSidecar({
      views: {
        async release(which) {
          released.push(which);
          const isAll = 'all' in which;
          return isAll
            ? { exitCode: 74, message: 'db is not healthy', notes: ['released app'] }
            : { exitCode: 0, notes: [] };
        },
      },
    });
    await using one = startCli(['release', '--run', 'run-1', '--state-dir', sidecar.dir]);
    assert.equal(await one.ended, 0);
    await using all = startCli(['release', '--all', '--state-dir', sidecar.dir]);
    assert.equal(await all.ended, 74);
    assert.equal(all.err(), 'sidehook: released app\nsidehook: db is not healthy\n');
    await using json = startCli(['release', '--all', '--json', '--state-dir', sidecar.dir]);
    assert.equal(await json.ended, 74);
    assert.deepEqual(JSON.parse(json.out()), { exitCode: 74, message: 'db is not healthy', notes: ['released app'] });
    assert.deepEqual(released, [{ runId: 'run-1' }, { all: true }, { all: true }]);
    for (const wrong of [[], ['--run', 'x', '--all'], ['--run', '../x']]) {
      await using cli = startCli(['release', ...wrong, '--state-dir', sidecar.dir]);
      assert.equal(await cli.ended, 64);
    }
    assert.equal(released.length, 3);
  });

  it('tell the health by exit code, and 1 where nobody answers', async () => {
    let why: string[] = [];
    await using sidecar = await openSidecar({ views: { health: async () => ({ ok: why.length === 0, why }) } });
    await using good = startCli(['health', '--state-dir', sidecar.dir]);
    assert.equal(await good.ended, 0);
    assert.equal(good.out(), 'healthy\n');
    why = ['the engine does not answer'];
    await using bad = startCli(['health', '--state-dir', sidecar.dir]);
    assert.equal(await bad.ended, 1);
    assert.equal(bad.out(), 'not healthy\n  the engine does not answer\n');
    await using none = startCli(['health', '--state-dir', `${sidecar.dir}/none`]);
    assert.equal(await none.ended, 1);
    assert.match(none.out(), /^not healthy\n {2}no sidecar at .*control\.sock: it does not answer \(ENOENT\)\n$/);
    await using json = startCli(['health', '--json', '--state-dir', `${sidecar.dir}/none`]);
    assert.equal(await json.ended, 1);
    assert.match(JSON.stringify(JSON.parse(json.out())), /^{"ok":false,"why":\["no sidecar at /);
  });

  it('print the settings and where each came from, with secrets masked', async () => {
    const env = { SIDEHOOK_STATE_DIR: '/srv/hunter22', DB_PASSWORD: 'hunter22' };
    await using cli = startCli(['config', '--json', '--lease-ttl', '90s'], env);
    assert.equal(await cli.ended, 0);
    const settings = JSON.parse(cli.out()) as Record<string, { value: string; origin: string }>;
    assert.deepEqual(settings['state.dir'], { value: '/srv/***', origin: 'SIDEHOOK_STATE_DIR' });
    assert.deepEqual(settings['lease.ttl'], { value: '90s', origin: '--lease-ttl' });
    await using table = startCli(['config'], env);
    assert.equal(await table.ended, 0);
    assert.match(table.out(), /^state\.dir +\/srv\/\*\*\* +SIDEHOOK_STATE_DIR$/m);
    await using strict = startCli(['config'], { SIDEHOOK_STATE_DIRR: '/srv' });
    assert.equal(await strict.ended, 78);
    assert.match(strict.err(), /SIDEHOOK_STATE_DIRR.*SIDEHOOK_STATE_DIR/);
  });
});

describe('the command line', () => {
  const wrong: readonly (readonly [args: readonly string[], exit: number, says: string])[] = [
    [[], 64, 'sidehook: which verb?\nTry: sidehook help\n'],
    [['stauts'], 64, 'sidehook: stauts: no such verb; the nearest known one is status\nTry: sidehook help\n'],
    [['__proto__'], 64, 'sidehook: __proto__: no such verb; the nearest known one is doctor\nTry: sidehook help\n'],
    [['run'], 64, 'sidehook: OPERATION: missing\nTry: sidehook help run\n'],
    [['run', 'backup'], 64, 'sidehook: -- COMMAND: missing\nTry: sidehook help run\n'],
    [['run', 'backup', '--'], 64, 'sidehook: -- COMMAND: missing\nTry: sidehook help run\n'],
    [['run', 'backup', 'now', '--', 'true'], 64, 'sidehook: now: not expected\nTry: sidehook help run\n'],
    [
      ['run', 'backup', '--jbo', 'x', '--', 'true'],
      64,
      "sidehook: unknown option '--jbo'; the nearest known one is --job\nTry: sidehook help run\n",
    ],
    [['status', '-x'], 64, "sidehook: unknown option '-x'\nTry: sidehook help status\n"],
    [
      ['run', 'backup', '--timeout', '5', '--', 'true'],
      64,
      'sidehook: --timeout: expected a duration such as 30s, 10m or 2h, got 5\nTry: sidehook help run\n',
    ],
    [
      ['run', 'backup', '--param', 'x', '--', 'true'],
      64,
      'sidehook: --param: expected NAME=VALUE, got x\nTry: sidehook help run\n',
    ],
    [['signal', 'backup'], 64, 'sidehook: STATE: missing\nTry: sidehook help signal\n'],
    [
      ['signal', 'backup', 'before'],
      64,
      'sidehook: STATE: expected pre, inspect, captured, post, got before\nTry: sidehook help signal\n',
    ],
    [['status', 'please'], 64, 'sidehook: please: not expected\nTry: sidehook help status\n'],
    [['help', 'me'], 64, 'sidehook: me: no such verb; the nearest known one is run\nTry: sidehook help\n'],
    [['rehearse', 'backup'], 78, 'sidehook: rehearse: not in this version\n'],
    [['history'], 78, 'sidehook: history: not in this version\n'],
  ];
  for (const [args, exit, says] of wrong) {
    it(`answers \`sidehook ${args.join(' ')}\` with ${exit} and why`, async () => {
      await using cli = startCli(args);
      assert.equal(await cli.ended, exit);
      assert.equal(cli.err(), says);
      assert.equal(cli.out(), '');
    });
  }

  it('says nothing about a reader that has gone', async () => {
    for (const verb of ['config --json', 'help']) {
      await using shell = startShell(`{ "$0" "$1" ${verb}; echo "code $?" >&2; } | :`);
      assert.equal(await shell.ended, 0);
      assert.equal(shell.err(), 'code 0\n');
    }
  });

  it('helps with every verb that it names, and with no file nor daemon there', async () => {
    const { out } = await ended(startCli(['help']));
    const verbs = [...out.matchAll(/^ {2}(\w+) {2}/gm)].map(([, verb = '']) => verb);
    const operators = ['plan', 'status', 'recover', 'release', 'doctor', 'config', 'health'];
    assert.deepEqual(verbs, ['run', 'signal', ...operators, 'serve']);
    for (const verb of verbs) {
      const help = await ended(startCli(['help', verb]));
      assert.match(help.out, new RegExp(`^sidehook ${verb}\\b`));
      assert.deepEqual(await ended(startCli([verb, '--help'])), help);
    }
    assert.equal((await ended(startCli(['--help']))).out, out);
    assert.match((await ended(startCli(['version']))).out, /^\d+\.\d+\.\d+\n$/);
  });

  it('leaves --help to the command that it runs', async () => {
    await using sidecar = await openSidecar({});
    const { out } = await ended(
      startCli(['run', 'backup', '--dir', sidecar.dir, '--', 'sh', '-c', 'echo $1', 'sh', '--help']),
    );
    assert.equal(out, '--help\n');
  });
});

async function ended(cli: Cli): Promise<{ readonly out: string }> {
  await using running = cli;
  assert.equal(await running.ended, 0, running.err());
  return { out: running.out() };
}

/** A shell line whose $0 and $1 are how the CLI is started. */
function startShell(line: string) {
  const child = spawn('sh', ['-c', line, process.execPath, MAIN], { stdio: ['ignore', 'ignore', 'pipe'] });
  let text = '';
  child.stderr.on('data', (chunk) => {
    text += String(chunk);
  });
  const ended = once(child, 'close').then(([code]) => code as number);
  return { ended, err: () => text, [Symbol.asyncDispose]: () => ended.then(() => undefined) };
}
