import assert from 'node:assert/strict';
import { cp, mkdtempDisposable, readFile, writeFile } from 'node:fs/promises';
import { request as openRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { execa } from 'execa';
import { docker, engineHost, openStack, type Stack } from '../support/engine.ts';
import { openSidecar, type Sidecar } from '../support/sidecar.ts';
import { type Client, startClient } from '../support/spool.ts';
import { until } from '../support/until.ts';
import { type Event, openServices } from './stack-of-three.ts';

const FIXTURES = resolve(import.meta.dirname, '../fixtures/hooks.d');
const CLIENT = '/run/sidehook/sidehook';
const MANY_MS = 20 * 60_000;
/** Pairs of signals: as many as are measured, and before them as many until the memory has its size. */
const PAIRS = 500;
const AT_ONCE = 50;
const MOST_GROWTH_KIB = 10 * 1024;

describe('a client that shares the run directory, and nothing else', () => {
  let stack: Stack;
  let sidecar: Sidecar;
  let client: string;
  let target: string;
  const clients: Client[] = [];
  before(async () => {
    stack = await openStack('client');
    sidecar = await openSidecar({ scope: stack.name });
    client = await stack.run({ name: 'client', volumes: [`${sidecar.runDir}:/run/sidehook`], network: 'none' });
    target = await stack.run({ name: 'target' });
  });
  after(async () => {
    for (const one of clients) one.endAll();
    await sidecar[Symbol.asyncDispose]();
    await stack[Symbol.asyncDispose]();
  });

  function runBackup(command: string): Client {
    const argv = ['docker', 'exec', client, CLIENT, 'run', 'backup', '--', 'sh', '-c', command];
    const started = startClient(argv, { env: { DOCKER_HOST: engineHost() } });
    clients.push(started);
    return started;
  }

  const codes: readonly {
    readonly what: string;
    readonly code: number;
    readonly text?: string;
    readonly why: RegExp;
  }[] = [
    ...[1, 3, 42, 126, 127, 137].map((code) => ({
      what: `exits ${code}`,
      code,
      why: /10-hook.*(?:exited \d+|ended by signal 9)$/,
    })),
    { what: 'exits 75', code: 75, why: /10-hook.*(?:75|skip)/ },
    { what: 'exits 124', code: 124, why: /10-hook.*exited 124$/ },
    { what: 'kills itself', code: 137, text: 'kill -9 $$', why: /10-hook.*(?:signal|KILL|137)/ },
    {
      what: 'runs out of time',
      code: 124,
      text: '# sidehook: timeout=1s\nsleep 1000',
      why: /10-hook.*ran out of time$/,
    },
  ];
  for (const place of ['host', 'container'] as const) {
    const headerOf = () => (place === 'host' ? '' : `# sidehook: target=container:${stack.named('target')}\n`);
    const hookOf = (text: string, interpreter = '/bin/sh') =>
      sidecar.addHook('10-hook', `#!${interpreter}\n${headerOf()}[ "$2" = pre ] || exit 0\n${text}\n`);

    it(`runs its command when a hook on the ${place} exits 0, and gets the command's own code`, async () => {
      await hookOf('exit 0');
      const well = runBackup('echo "run $SIDEHOOK_OPERATION"');
      assert.equal(await well.ended, 0, well.err());
      assert.equal(well.out(), 'run backup\n');
      const failed = runBackup('exit 9');
      assert.equal(await failed.ended, 9, failed.err());
    });

    for (const { what, code, text, why } of codes) {
      it(`ends ${code}, and runs nothing, when a hook on the ${place} ${what}`, async () => {
        await hookOf(text ?? `exit ${code}`);
        const ended = runBackup('echo ran');
        assert.equal(await ended.ended, code, ended.err());
        assert.equal(ended.out(), '');
        assert.match(lastLineOf(ended.err()), why);
      });
    }

    it(`ends 127 when the interpreter of a hook on the ${place} is not there`, async () => {
      await hookOf('exit 0', '/opt/absent-interpreter');
      const ended = runBackup('echo ran');
      assert.equal(await ended.ended, 127, ended.err());
      assert.match(lastLineOf(ended.err()), /absent-interpreter/);
      assert.equal(ended.out(), '');
    });

    it(`sees what a hook on the ${place} prints while it runs`, async () => {
      const flag = place === 'host' ? join(sidecar.workDir, 'go') : '/tmp/go';
      await hookOf(`echo first; until [ -e '${flag}' ]; do sleep 0.05; done; echo second`);
      const watching = runBackup('echo ran');
      await until(() => watching.err().includes('first\n'), { what: 'the first line' });
      assert.doesNotMatch(watching.err(), /second/);
      if (place === 'host') await writeFile(flag, '');
      else await docker('exec', target, 'sh', '-c', `mkdir -p /tmp && : >${flag}`);
      assert.equal(await watching.ended, 0, watching.err());
      assert.match(watching.err(), /first\n(?:.*\n)*second\n/);
      assert.equal(watching.out(), 'ran\n');
    });
  }
});

describe('services that depend on one another', () => {
  it('stop and start in order, each after the health of the one before, and independent ones at once', async () => {
    await using project = await openServices([
      { name: 'db' },
      { name: 'api', after: 'db' },
      { name: 'web', after: 'api', endSeconds: 1 },
      { name: 'cache' },
      { name: 'site', after: 'cache', endSeconds: 1 },
      { name: 'idle' },
    ]);
    await docker('stop', project.stack.named('idle'));
    const idle = await project.lifeOf('idle');
    await using sidecar = await openSidecar({ scope: project.stack.name });
    const eventsNow = project.events();
    const client = await sidecar.clientIn(project.stack, ['run', 'backup', '--', 'true']);
    assert.equal(await client.ended(), 0, await client.log());
    const isLast = ({ service, what }: Event) => service === 'web' && what === 'health_status: healthy';
    await until(() => eventsNow().some(isLast), { what: 'the last event' });
    const events = eventsNow();

    const at = (service: string, what: string): bigint => momentOf(events, service, what);
    const chains = [
      ['db', 'api', 'web'],
      ['cache', 'site'],
    ];
    for (const [below, above] of chains.flatMap((chain) => chain.slice(1).map((name, index) => [chain[index], name]))) {
      assert.ok(below && above);
      assert.ok(at(above, 'die') < at(below, 'kill'), `${above} is stopped before ${below} is asked to`);
      assert.ok(at(below, 'health_status: healthy') < at(above, 'start'), `${below} is healthy before ${above} starts`);
      const [low, high] = [await project.lifeOf(below), await project.lifeOf(above)];
      assert.ok(high.FinishedAt < low.FinishedAt && low.StartedAt < high.StartedAt, `${below} and ${above}`);
    }
    assert.ok(at('site', 'kill') < at('web', 'die') && at('web', 'kill') < at('site', 'die'), 'both stop at once');
    assert.ok(at('cache', 'start') < at('db', 'health_status: healthy'), 'both start at once');
    assert.ok(at('db', 'start') < at('cache', 'health_status: healthy'), 'both start at once');
    assert.deepEqual(await project.lifeOf('idle'), idle, 'what was stopped stays so');
    assert.deepEqual(
      events.filter(({ service }) => service === 'idle'),
      [],
    );
  });
});

describe('many signals', () => {
  it('are each carried out once: a thousand in a row, then fifty at once; and the daemon does not grow', {
    timeout: MANY_MS,
  }, async () => {
    await using dist = await mkdtempDisposable(join(tmpdir(), 'sidehook-many-'));
    await execa(process.execPath, [resolve(import.meta.dirname, '../../docker/build.ts'), dist.path]);
    const env = { SIDEHOOK_ENGINE: 'none', PATH: `${dirname(process.execPath)}:${process.env.PATH}` };
    await using sidecar = await openSidecar({ scope: 'nothing', env, program: [join(dist.path, 'sidehook.js')] });
    await sidecar.addHook('10-count', `#!/bin/sh\necho "$2 $SIDEHOOK_PARAM_N" >>'${sidecar.workDir}/calls'\n`);
    let sent = 0;
    const pair = async (job: string, n: number): Promise<void> => {
      for (const state of ['pre', 'post']) {
        assert.equal(await signal(sidecar, { id: `${job}-${n}-${state}`, state, job, params: { N: `${n}` } }), 0);
        sent += 1;
      }
    };
    const inRow = async (from: number): Promise<void> => {
      for (let n = from; n < from + PAIRS; n += 1) await pair('row', n);
    };
    /** Half of them through the socket, half through the spool. */
    const atOnce = async (from: number): Promise<void> => {
      const numbers = Array.from({ length: AT_ONCE }, (_, index) => from + index);
      const ways = numbers.map(async (n, index) => {
        if (index % 2 === 0) return pair(`job-${n}`, n);
        const client = sidecar.client('run', 'backup', '--job', `job-${n}`, '--param', `N=${n}`, '--', 'true');
        assert.equal(await client.ended, 0, client.err());
        sent += 2;
      });
      await Promise.all(ways);
    };
    await atOnce(0);
    await inRow(AT_ONCE);
    const before = await sidecar.residentKib();
    await inRow(AT_ONCE + PAIRS);
    await atOnce(AT_ONCE + 2 * PAIRS);
    const growth = async () => (await sidecar.residentKib()) - before;
    await until(async () => (await growth()) < MOST_GROWTH_KIB, {
      what: `the memory to be as before, ${before} KiB`,
    }).catch(async (cause) => {
      throw new Error(`it grew by ${await growth()} KiB`, { cause });
    });

    const total = 2 * (AT_ONCE + PAIRS);
    assert.equal(sent, 2 * total);
    const calls = (await readFile(join(sidecar.workDir, 'calls'), 'utf8')).trimEnd().split('\n');
    const expected = Array.from({ length: total }, (_, n) => [`pre ${n}`, `post ${n}`]).flat();
    assert.deepEqual(calls.toSorted(), expected.toSorted());
  });
});

describe('hooks as TKLBAM has them', () => {
  const recorders = {
    '10-shell': '#!/bin/sh\necho "shell $# $1 $2" >>"$CALLS"\n',
    '20-python':
      '#!/usr/bin/env python3\nimport os, sys\nopen(os.environ["CALLS"], "a").write("python %d %s\\n" % (len(sys.argv) - 1, " ".join(sys.argv[1:])))\n',
    '30-perl':
      '#!/usr/bin/perl -w\nuse strict;\nopen(my $file, ">>", $ENV{CALLS}) or die;\nprint $file "perl ", scalar(@ARGV), " @ARGV\\n";\n',
  };

  it('are called with an operation and a state, whatever language they are in', async () => {
    await using stack = await openStack('tklbam');
    await using sidecar = await openSidecar({ scope: stack.name });
    for (const [name, text] of Object.entries(recorders)) {
      await sidecar.addHook(
        name,
        text.replace(/\$CALLS|os.environ\["CALLS"\]|\$ENV\{CALLS\}/, (found) =>
          found === '$CALLS' ? `${sidecar.workDir}/calls` : `"${sidecar.workDir}/calls"`,
        ),
      );
    }
    const expected: string[] = [];
    for (const operation of ['backup', 'restore']) {
      for (const state of ['pre', 'inspect', 'post']) {
        const client = sidecar.client('signal', operation, state);
        assert.equal(await client.ended, 0, client.err());
        const languages = ['shell', 'python', 'perl'];
        if (state === 'post') languages.reverse();
        expected.push(...languages.map((language) => `${language} 2 ${operation} ${state}`));
      }
    }
    const calls = (await readFile(join(sidecar.workDir, 'calls'), 'utf8')).trimEnd().split('\n');
    assert.deepEqual(calls, expected);
  });

  it('print to the client, and abort the operation by their exit code', async () => {
    await using sidecar = await openSidecar({ scope: 'nothing', env: { SIDEHOOK_ENGINE: 'none' } });
    for (const name of ['tklbam-shell', 'tklbam-python', 'tklbam-perl']) {
      await cp(join(FIXTURES, name), join(sidecar.hooksDir, name));
    }
    const backup = sidecar.client('run', 'backup', '--', 'echo', 'ran');
    assert.equal(await backup.ended, 0, backup.err());
    assert.equal(backup.out(), 'ran\n');
    assert.equal(backup.err(), `${'before backup\n'.repeat(3)}after backup\n`);
    const restore = sidecar.client('run', 'restore', '--', 'echo', 'ran');
    assert.equal(await restore.ended, 3, restore.err());
    assert.equal(restore.out(), '');
    assert.match(lastLineOf(restore.err()), /restore pre: hook tklbam-perl \(host\) exited 3$/);
  });
});

/** Sends one signal through the socket, and resolves to the exit code of its answer. */
function signal({ runDir }: Sidecar, fields: { readonly id: string } & Record<string, unknown>): Promise<number> {
  const body = JSON.stringify({ version: '1', operation: 'backup', ...fields });
  return new Promise((answered, reject) => {
    const request = openRequest(
      {
        ...{ socketPath: join(runDir, 'sidehook.sock'), method: 'POST', path: '/v1/signals', agent: false },
        headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
      },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk)).on('error', reject);
        response.on('end', () => {
          const last = JSON.parse(lastLineOf(Buffer.concat(chunks).toString()));
          if (last.type === 'answer') answered(last.answer?.exitCode ?? last.exitCode);
          else reject(new Error(`answer to ${fields.id}: ${JSON.stringify(last)}`));
        });
      },
    );
    request.on('error', reject);
    request.end(body);
  });
}

/** The first such event. */
function momentOf(events: readonly Event[], service: string, what: string): bigint {
  const event = events.find((one) => one.service === service && one.what === what);
  assert.ok(event, `${service}: ${what}, in ${events.map((one) => `${one.service} ${one.what}`).join(', ')}`);
  return event.at;
}

function lastLineOf(text: string): string {
  return text.trimEnd().split('\n').at(-1) ?? '';
}
