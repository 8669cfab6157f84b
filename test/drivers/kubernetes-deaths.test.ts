/** The fault laws of holds by scale: the sidecar dies before and after each of its writes, to the journal and the API. */
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { openApiServer } from '../support/api-server.ts';
import { until } from '../support/until.ts';
import { annotations, killAtEach, type World } from './kubernetes-deaths.ts';
import { openNamespace } from './kubernetes-sidehook.ts';

/** All of them take some minutes: DEATHS_EVERY=1. */
const EVERY = Number(process.env.DEATHS_EVERY ?? 8);
const LONG_MS = 20 * 60_000;

async function openWorld(): Promise<World> {
  await using opened = new AsyncDisposableStack();
  const server = opened.use(await openApiServer());
  const namespace = opened.use(await openNamespace(server));
  const diary = join(namespace.dir, 'diary');
  const wanted = annotations(diary);
  server.addController('deployments', 'web', { replicas: 2, annotations: wanted.web });
  server.addController('deployments', 'api', { replicas: 1, annotations: wanted.api });
  server.addController('deployments', 'idle', { replicas: 0, annotations: wanted.idle });
  server.addController('statefulsets', 'db', { replicas: 1, annotations: wanted.db });
  const owned = opened.move();
  return {
    namespace,
    async settle() {
      const ready = (): unknown[] => server.all('pods').filter(({ status }) => status.phase === 'Running');
      await until(() => ready().length === 4, { what: 'the pods to be ready', deadlineMs: 120_000 });
      await rm(diary, { force: true });
    },
    replicas: async () => ['web', 'api', 'idle'].map((name) => server.get('deployments', name)?.spec.replicas).join(),
    leases: async () => server.all('leases').map(({ metadata }) => metadata.name),
    diary: async () => (await readFile(diary, 'utf8').catch(() => '')).split('\n'),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

describe('a sidecar on Kubernetes that dies at any write of a backup', { timeout: LONG_MS }, () => {
  for (const afterwards of ['restarted', 'lost'] as const) {
    it(`has all as it was, when it is ${afterwards}`, { timeout: LONG_MS }, (context) =>
      killAtEach(openWorld, afterwards, { every: EVERY, from: 0, atOnce: 3 }, context),
    );
  }
});
