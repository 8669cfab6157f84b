/** The sidecar dies before and after its writes, to its journal and to a real API server, around real workloads. */
import { describe, it } from 'node:test';
import { annotations, killAtEach, type World } from '../drivers/kubernetes-deaths.ts';
import { openNamespace as openSidehooks } from '../drivers/kubernetes-sidehook.ts';
import { until } from '../support/until.ts';
import { openGate } from './gate.ts';
import { openNamespace, SLOW_MS } from './namespace.ts';
import { aWorkload } from './objects.ts';

/** All of them take half an hour: DEATHS_EVERY=1. Others of the same number: DEATHS_FROM=1. */
const EVERY = Number(process.env.DEATHS_EVERY ?? 16);
const FROM = Number(process.env.DEATHS_FROM ?? 0);
const LONG_MS = 20 * 60_000 * (EVERY < 8 ? 8 : 1);
const DIARY = '/tmp/diary';
/** That of the product would have each lost sidecar waited for a minute. */
const PACE = { durationMs: 3_000, renewMs: 500 };
const REPLICAS = { web: 2, api: 1, idle: 0 };

async function openWorld(): Promise<World> {
  await using opened = new AsyncDisposableStack();
  const space = opened.use(await openNamespace('deaths'));
  const gate = opened.use(await openGate(space.name));
  const namespace = opened.use(await openSidehooks(gate, PACE));
  const wanted = annotations(DIARY);
  await space.apply(
    ...(['web', 'api', 'idle'] as const).map((name) =>
      aWorkload('Deployment', name, { replicas: REPLICAS[name], annotations: wanted[name] }),
    ),
    aWorkload('StatefulSet', 'db', { annotations: wanted.db }),
  );
  const owned = opened.move();
  const inDb = (line: string) => space.kubectl('exec', 'db-0', '--', 'sh', '-c', line);
  return {
    namespace,
    async settle() {
      const isReady = async () =>
        [...(await space.list('deployments')), ...(await space.list('statefulsets'))].every(
          ({ spec, status }) => (status.readyReplicas ?? 0) === spec.replicas,
        );
      await until(isReady, { what: 'all to be ready', deadlineMs: SLOW_MS, everyMs: 250 });
      await inDb(`rm -f ${DIARY}`);
    },
    async replicas() {
      const found = await space.list('deployments');
      const of = (name: string) => found.find(({ metadata }) => metadata.name === name)?.spec.replicas;
      return Object.keys(REPLICAS).map(of).join();
    },
    leases: async () => (await space.list('leases')).map(({ metadata }) => metadata.name),
    diary: async () => (await inDb(`cat ${DIARY} 2>/dev/null || true`)).split('\n'),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

describe('a sidecar that dies at its writes to a cluster', { timeout: LONG_MS, concurrency: 2 }, () => {
  for (const afterwards of ['restarted', 'lost'] as const) {
    it(`has all as it was, when it is ${afterwards}`, { timeout: LONG_MS }, (context) =>
      killAtEach(openWorld, afterwards, { every: EVERY, from: FROM, atOnce: 2 }, context),
    );
  }
});
