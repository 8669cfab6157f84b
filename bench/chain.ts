/** How long applications are down that wait for one another. */

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { openStack } from '../test/support/engine.ts';
import { BUSYBOX, ensureImage } from '../test/support/images.ts';
import { ensureDockerCli } from '../test/support/install.ts';
import { type Extent, inTurn, type Row, timed } from './measure.ts';
import { checkRunning, openSidecar, type Stage } from './stage.ts';

/** `pre` and `post` for a chain of services, each healthy before the next, against compose's own stop and start. */
export async function measureChain(stage: Stage, { longRepetitions, isQuick }: Extent): Promise<readonly Row[]> {
  const count = isQuick ? 2 : 5;
  await using stack = await openStack('measure-chain');
  const file = join(await stage.folder(), 'compose.yaml');
  await writeFile(file, JSON.stringify({ services: servicesOf(count, await ensureImage(BUSYBOX)) }));
  const env = await ensureDockerCli(['compose']);
  const compose = (...args: readonly string[]) =>
    execa('docker', ['compose', '--file', file, '--project-name', stack.name, ...args], { env, stdin: 'ignore' });
  await compose('up', '--detach', '--wait');
  const label = `com.docker.compose.project=${stack.name}`;
  await using sidecar = await openSidecar(stage, { project: stack.name });
  await sidecar.signal('pre');
  await checkRunning(label, 0);
  await sidecar.signal('post');
  await checkRunning(label, count);
  const samples = await inTurn(
    longRepetitions,
    () => timed(() => sidecar.signal('pre').then(() => sidecar.signal('post'))),
    () => timed(() => compose('stop').then(() => compose('start'))),
  );
  const work = `socket: pre and post, a chain of ${count} with health checks`;
  return [{ goal: { id: 'G3', most: 0.8 }, work, against: 'docker compose stop, start', unit: 'ms', ...samples }];
}

function servicesOf(count: number, image: string): Readonly<Record<string, object>> {
  const services = Array.from({ length: count }, (_, index) => [
    `link${index}`,
    {
      image,
      command: ['sh', '-c', 'trap "exit 0" TERM; while :; do sleep 3600 & wait $$!; done'],
      labels: { 'sidehook.hold': 'stop' },
      healthcheck: { test: ['CMD', 'true'], interval: '1s' },
      ...(index === 0 ? {} : { depends_on: { [`link${index - 1}`]: { condition: 'service_healthy' } } }),
    },
  ]);
  return Object.fromEntries(services);
}
