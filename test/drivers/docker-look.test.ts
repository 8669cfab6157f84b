import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { View } from '../../src/core/ports.ts';
import type { Target, Workload } from '../../src/core/workload.ts';
import { docker } from '../support/engine.ts';
import { until } from '../support/until.ts';
import { composeLabels, openDockerBench } from './docker-bench.ts';

function find({ workloads }: View, name: string): Workload {
  const found = workloads.filter((one) => one.name === name);
  assert.equal(found.length, 1, `${name} in ${workloads.map((one) => one.name)}`);
  return found[0] as Workload;
}

const names = ({ workloads }: View) => workloads.map(({ name }) => name).toSorted((a, b) => a.localeCompare(b));

describe('which containers a look sees', () => {
  it('those of the projects in scope, stopped ones too, and others only by name or service', async ({ signal }) => {
    await using bench = await openDockerBench();
    const { stack, driver } = bench;
    const web = await bench.add('web', { labels: { 'sidehook.hold': 'stop' } });
    await docker('stop', '--time', '0', web.instance);
    const foreign = { ...composeLabels(`${stack.name}-other`, 'cache'), 'test.role': 'any' };
    await stack.run({ name: 'foreign', labels: foreign });
    await stack.run({ name: 'loose', labels: { 'test.role': 'any', 'sidehook.hold': 'stop' } });

    const ours = [stack.named('db'), stack.named('web')];
    const label: Target = { kind: 'label', label: 'test.role', value: 'any' };
    assert.deepEqual(names(await driver.look([], signal)), ours);
    assert.deepEqual(names(await driver.look([label], signal)), ours);
    const targets: Target[] = [
      { kind: 'service', service: 'cache', project: `${stack.name}-other` },
      { kind: 'container', name: stack.named('loose') },
      { kind: 'container', name: stack.named('loos') },
      { kind: 'container', name: '.*' },
      { kind: 'service', service: 'absent', project: `${stack.name}-other` },
    ];
    const view = await driver.look(targets, signal);
    assert.deepEqual(names(view), ['db', 'foreign', 'loose', 'web'].map(stack.named));
    assert.equal(find(view, stack.named('web')).state, 'exited');
    assert.equal(find(view, stack.named('web')).inScope, true);
    assert.equal(find(view, stack.named('web')).foreign, false);
    assert.equal(find(view, stack.named('foreign')).foreign, true);
    assert.equal(find(view, stack.named('foreign')).inScope, false);
    assert.equal(find(view, stack.named('foreign')).key, `${stack.name}-other/cache/1`);
    assert.equal(find(view, stack.named('loose')).key, `container:${stack.named('loose')}`);

    const byKey: Target = { kind: 'workload', key: `${stack.name}-other/cache/1`, name: 'cache' };
    assert.ok(names(await driver.look([byKey], signal)).includes(stack.named('foreign')));

    await using wide = await bench.open({ scope: 'host' });
    const all = await wide.look([label], signal);
    assert.equal(find(all, stack.named('loose')).inScope, true);
    assert.equal(find(all, stack.named('loose')).labels['test.role'], 'any');
    await using none = await bench.open({ scope: 'project' });
    const nothing = await none.look([], signal);
    assert.deepEqual(nothing.workloads, []);
    assert.match(nothing.notes.join(), /no compose project/);
  });

  it('and inspects only those that somebody asks something of', async ({ signal }) => {
    await using bench = await openDockerBench();
    await Promise.all(Array.from({ length: 6 }, (_, index) => bench.add(`plain${index}`)));
    const labelled = await bench.add('labelled', { labels: { 'sidehook.hold': 'stop' } });
    await bench.driver.look([], signal); // finds out once where we run ourselves
    bench.proxy.requests.length = 0;
    const view = await bench.driver.look([{ kind: 'service', service: 'db', project: bench.stack.name }], signal);
    const asked = bench.proxy.requests.filter((request) => /^GET \/containers\/\w+\/json/.test(request));
    const expected = [bench.workload, labelled].map(({ instance }) => `GET /containers/${instance}/json`);
    assert.deepEqual(new Set(asked), new Set(expected));
    assert.equal(asked.length, expected.length);
    const plain = find(view, bench.stack.named('plain3'));
    assert.equal(plain.state, 'running');
    assert.equal(plain.startedAt, '');
    assert.equal(view.workloads.length, 8);
  });
});

describe('what a look tells of a container', () => {
  it('tells whose it is, what it depends on, and how long its health check takes', async ({ signal }) => {
    await using bench = await openDockerBench();
    const { stack } = bench;
    await bench.add('web', {
      labels: {
        'com.docker.compose.depends_on':
          'db:service_healthy:false,cache:service_started:true,init:service_completed_successfully:false',
        'com.docker.compose.container-number': '3',
        'sidehook.job': 'a',
        'other.label': 'b',
      },
      flags: [
        '--health-cmd',
        'true',
        '--health-interval',
        '1s',
        '--health-timeout',
        '2s',
        '--health-retries',
        '5',
        '--health-start-period',
        '7s',
      ],
    });
    await bench.add('old', { labels: { 'com.docker.compose.depends_on': 'db,cache:service_healthy' } });
    await bench.add('once', { labels: { 'com.docker.compose.oneoff': 'True', 'sidehook.hold': 'stop' } });
    await until(async () => find(await bench.driver.look([], signal), stack.named('web')).health === 'healthy', {
      what: 'health',
      signal,
    });
    const view = await bench.driver.look([], signal);
    const web = find(view, stack.named('web'));
    assert.equal(web.key, `${stack.name}/web/3`);
    assert.deepEqual([web.project, web.service, web.number, web.oneOff], [stack.name, 'web', 3, false]);
    assert.equal(web.healthTermMs, 22_000);
    assert.deepEqual(web.labels, { 'sidehook.job': 'a' });
    assert.deepEqual(web.dependsOn, [
      { project: stack.name, service: 'db', condition: 'service_healthy' },
      { project: stack.name, service: 'cache', condition: 'service_started' },
      { project: stack.name, service: 'init', condition: 'service_completed_successfully' },
    ]);
    assert.deepEqual(
      find(view, stack.named('old')).dependsOn.map(({ service, condition }) => `${service} ${condition}`),
      ['db service_started', 'cache service_healthy'],
    );
    const once = find(view, stack.named('once'));
    assert.equal(once.oneOff, true);
    assert.equal(once.key, `container:${stack.named('once')}`);
  });

  it('tells an image’s labels from its operator’s', async ({ signal }) => {
    await using bench = await openDockerBench();
    const image = `${bench.stack.name}:labelled`;
    const changes = ['LABEL sidehook.hold=stop sidehook.backup.pre=evil'];
    await docker('commit', ...changes.flatMap((change) => ['--change', change]), bench.workload.instance, image);
    try {
      const labels = { 'sidehook.backup.pre': 'dump', 'sidehook.job': 'a' };
      const app = await bench.add('app', { image, args: ['sleep', '3600'], labels });
      const seen = find(await bench.driver.look([], signal), app.name);
      assert.deepEqual(seen.labels, labels);
      assert.deepEqual(seen.imageLabels, ['sidehook.hold']);
      assert.deepEqual((await bench.driver.inspect(app, signal))?.imageLabels, ['sidehook.hold']);
      await docker('rm', '--force', app.instance);
    } finally {
      await docker('rmi', '--force', image);
    }
  });

  it('has one of two with the same key: the one that runs', async ({ signal }) => {
    await using bench = await openDockerBench();
    await docker('stop', '--time', '0', bench.workload.instance);
    const heir = await bench.stack.run({ name: 'db-anew', labels: composeLabels(bench.stack.name, 'db') });
    const { workloads } = await bench.driver.look([], signal);
    assert.deepEqual(
      workloads.map(({ instance }) => instance),
      [heir],
    );
    await bench.remove();
    assert.equal((await bench.driver.inspect(bench.workload, signal))?.instance, heir);
  });
});

describe('who is never held', () => {
  it('a client, below or above the shared directory; what a client lives in; one made with --rm', async ({
    signal,
  }) => {
    const dir = await mkdtemp(join(tmpdir(), 'shared-'));
    try {
      await using bench = await openDockerBench({ labels: { 'sidehook.hold': 'stop' } });
      await using driver = await bench.open({ runDir: join(dir, 'run/sidehook') });
      const { stack } = bench;
      const labels = { 'sidehook.hold': 'stop' };
      await bench.add('above', { volumes: [`${dir}:/all:ro`] });
      await bench.add('below', { labels, volumes: [`${dir}/run/sidehook/one:/run/sidehook`] });
      await bench.add('beside', { labels, volumes: [`${dir}/run/sidehook-not:/run/sidehook`] });
      const homes = { network: 'network', pid: 'process', ipc: 'IPC' };
      for (const kind of Object.keys(homes)) {
        await bench.add(kind, { labels, flags: kind === 'ipc' ? ['--ipc', 'shareable'] : [] });
        await stack.run({
          name: `client-${kind}`,
          volumes: [`${dir}/run/sidehook:/x`],
          flags: [`--${kind}`, `container:${stack.named(kind)}`],
        });
      }
      await bench.add('fleeting', { labels, flags: ['--rm'] });

      const view = await driver.look([], signal);
      const reason = (name: string) => find(view, stack.named(name)).unholdable;
      assert.equal(view.unholdable, undefined);
      assert.match(reason('above') ?? '', /mounts the shared directory/);
      assert.match(reason('below') ?? '', /mounts the shared directory/);
      assert.equal(reason('beside'), undefined);
      assert.equal(reason('db'), undefined);
      assert.match(reason('fleeting') ?? '', /--rm/);
      for (const [kind, word] of Object.entries(homes)) {
        assert.equal(reason(kind), `the client ${stack.named(`client-${kind}`)} lives in its ${word} namespace`);
      }
    } finally {
      await rm(dir, { recursive: true });
    }
  });
});
