import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { docker, engineHost } from '../support/engine.ts';
import { openPodman, type Podman } from '../support/engine-podman.ts';
import { driverContract } from './contract.ts';
import { openDockerBench } from './docker-bench.ts';

const others = engineHost();
let podman: Podman | undefined;
before(
  async () => {
    podman = await openPodman();
    process.env.DOCKER_HOST = podman.host; // this file is a process of its own
  },
  { timeout: 10 * 60_000 },
);
after(async () => {
  process.env.DOCKER_HOST = others;
  await podman?.[Symbol.asyncDispose]();
});

driverContract('podman', async () => {
  const bench = await openDockerBench();
  const stop = async (): Promise<void> => {
    if ((await bench.state()) === 'paused') await docker('unpause', bench.workload.instance); // it stops nothing paused
    await bench.stop();
  };
  return { ...bench, stop };
});

describe('holds on Podman', () => {
  it('stop what is paused, though Podman refuses that', async ({ signal }) => {
    await using bench = await openDockerBench();
    await docker('pause', bench.workload.instance);
    const held = await bench.driver.hold(bench.workload, 'stop', 1_000, signal);
    assert.equal(held.state, 'exited');
    assert.equal(await bench.state(), 'exited');
    await bench.driver.release(bench.workload, 'stop', signal);
    assert.equal(await bench.state(), 'running');
  });
});
