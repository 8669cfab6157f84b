import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { View } from '../../src/core/ports.ts';
import type { DockerOptions } from '../../src/drivers/docker.ts';
import { type ContainerOptions, docker, engineSocket, openStack, type Stack } from '../support/engine.ts';
import { ensureImage } from '../support/images.ts';
import { composeLabels } from './docker-bench.ts';

const ROOT = join(import.meta.dirname, '../..');
const HOLD = { 'sidehook.hold': 'stop' };

/** Looks from within a container of the engine, as the service `sidehook` of the stack's project. */
async function lookFromWithin(
  stack: Stack,
  { volumes = [], flags = [], ...options }: ContainerOptions = {},
  more: Partial<DockerOptions> = {},
): Promise<View> {
  const told: DockerOptions = {
    ...{
      host: 'unix:///var/run/docker.sock',
      scope: 'project',
      runDir: '/run/sidehook',
      stateDir: '/var/lib/sidehook',
    },
    ...more,
  };
  const id = await stack.run({
    image: await ensureImage('node:26-alpine'),
    args: ['sh', '-c', 'exec node /app/test/drivers/docker-probe.ts "$0" 2>&1', JSON.stringify(told)],
    labels: { ...composeLabels(stack.name, 'sidehook'), ...HOLD },
    volumes: [`${ROOT}:/app:ro`, `${engineSocket()}:/var/run/docker.sock`, ...volumes],
    ...options,
    flags,
  });
  const exitCode = await docker('wait', id);
  const said = await docker('logs', id);
  assert.equal(exitCode, '0', said);
  return JSON.parse(said);
}

const unholdable = ({ workloads }: View, service: string) => {
  const found = workloads.filter((one) => one.service === service);
  assert.equal(found.length, 1, JSON.stringify(workloads));
  return found[0]?.unholdable;
};

describe('the sidecar in a container', () => {
  it('knows itself, its project and its clients by the shared volume, of other projects too', async () => {
    await using stack = await openStack('self');
    const [shared, state] = [await stack.volume('shared'), await stack.volume('state')];
    const client = {
      image: await ensureImage('node:26-alpine'),
      args: ['sleep', '3600'],
      volumes: [`${shared}:/x:ro`],
    };
    const other = `${stack.name}-other`;
    await stack.run({ name: 'db', labels: { ...composeLabels(stack.name, 'db'), ...HOLD } });
    await stack.run({ name: 'home', labels: { ...composeLabels(stack.name, 'home'), ...HOLD } });
    await stack.run({ ...client, name: 'backup', labels: { ...composeLabels(stack.name, 'backup'), ...HOLD } });
    const flags = ['--network', `container:${stack.named('home')}`];
    await stack.run({ ...client, name: 'guest', labels: composeLabels(other, 'guest'), flags });

    const view = await lookFromWithin(stack, {
      volumes: [`${shared}:/run/sidehook`, `${state}:/var/lib/sidehook`],
      flags: ['--restart', 'on-failure:1', '--stop-timeout', '60'],
    });
    assert.equal(view.project, stack.name);
    assert.equal(view.unholdable, undefined);
    assert.deepEqual(view.notes, []);
    assert.deepEqual(view.workloads.map(({ service }) => service).toSorted(), ['backup', 'db', 'home', 'sidehook']);
    assert.ok(view.workloads.every(({ foreign, inScope }) => inScope && !foreign));
    assert.equal(unholdable(view, 'db'), undefined);
    assert.equal(unholdable(view, 'sidehook'), 'it is the sidecar itself');
    assert.match(unholdable(view, 'backup') ?? '', /shared directory/);
    assert.match(unholdable(view, 'home') ?? '', /guest lives in its network namespace/);
  });

  it('holds nothing without a volume for its state, and says what else it lacks', async () => {
    await using stack = await openStack('self');
    const view = await lookFromWithin(stack, { flags: ['--tmpfs', '/var/lib/sidehook'] });
    assert.match(view.unholdable ?? '', /state.dir \/var\/lib\/sidehook is no mount/);
    assert.match(view.notes.join(), /no restart policy/);
    assert.match(view.notes.join(), /told to end, it has 10 s to start what it holds: set stop_grace_period: 1m/);
    assert.equal(unholdable(view, 'sidehook'), 'it is the sidecar itself');
  });

  it('names the client that can write its hooks, its state or its settings, wherever it mounts them', async () => {
    await using stack = await openStack('self');
    const [shared, state, hooks] = [
      await stack.volume('shared'),
      await stack.volume('state'),
      await stack.volume('hooks'),
    ];
    const volumes = [`${shared}:/run/sidehook`, `${state}:/var/lib/sidehook`, `${hooks}:/etc/sidehook:ro`];
    const own = [
      { name: 'hooks.dir', path: '/etc/sidehook/hooks.d' },
      { name: 'state.dir', path: '/var/lib/sidehook' },
    ];
    await stack.run({ name: 'stranger', volumes: [`${hooks}:/hooks`, `${state}:/state`] });
    await stack.run({
      name: 'reader',
      volumes: [`${shared}:/run/sidehook`, `${hooks}:/hooks:ro`, `${state}:/state:ro`],
    });
    assert.equal((await lookFromWithin(stack, { volumes }, { own })).exposed, undefined);
    await stack.run({ name: 'writer', volumes: [`${shared}:/run/sidehook`, `${hooks}:/mine`] });
    const { exposed = '' } = await lookFromWithin(stack, { volumes }, { own });
    assert.match(exposed, /^hooks.dir: \/etc\/sidehook\/hooks.d lies where client .*-writer can write/);
  });

  it('is not mistaken for the container whose network it shares, nor may that one be held', async () => {
    await using stack = await openStack('self');
    const state = await stack.volume('state');
    const labels = { ...composeLabels(stack.name, 'home'), ...HOLD };
    await stack.run({ name: 'home', labels, volumes: [`${state}:/var/lib/sidehook`] });
    const view = await lookFromWithin(stack, {
      volumes: [`${state}:/var/lib/sidehook`],
      network: `container:${stack.named('home')}`,
      flags: ['--cgroupns', 'private'], // then every id that can be found in there is the other's
    });
    assert.equal(view.unholdable, undefined);
    assert.equal(unholdable(view, 'sidehook'), 'it is the sidecar itself');
    assert.equal(unholdable(view, 'home'), 'the sidecar lives in its network namespace');
  });

  it('may not hold the container that its engine is reached through', async () => {
    await using stack = await openStack('self');
    const network = await stack.network('net');
    const relay =
      "require('net').createServer((near) => { const far = require('net').connect('/var/run/docker.sock'); near.pipe(far).pipe(near); }).listen(2375)";
    await stack.run({
      name: 'relay',
      image: await ensureImage('node:26-alpine'),
      args: ['node', '-e', relay],
      labels: { ...composeLabels(stack.name, 'socket-proxy'), ...HOLD },
      volumes: [`${engineSocket()}:/var/run/docker.sock`],
      flags: ['--network', network, '--network-alias', 'engine'],
    });
    for (const name of ['engine', stack.named('relay')]) {
      const view = await lookFromWithin(stack, { network }, { host: `tcp://${name}:2375` });
      assert.match(unholdable(view, 'socket-proxy') ?? '', /the engine is reached through it/);
    }
  });
});
