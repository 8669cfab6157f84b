/** The drivers' contract, on a real cluster. */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openKubernetes } from '../../src/drivers/kubernetes.ts';
import { type Bench, type Conduct, driverContract } from '../drivers/contract.ts';
import { until } from '../support/until.ts';
import { type Namespace, openNamespace, SLOW_MS } from './namespace.ts';
import { aWorkload } from './objects.ts';

driverContract('kubernetes, real', openBench, { kinds: ['scale'], termMs: SLOW_MS });

/** The workload is the Deployment `db`, of one pod; hooks run in that. */
async function openBench(): Promise<Bench> {
  await using opened = new AsyncDisposableStack();
  const space = opened.use(await openNamespace('contract'));
  const dir = await mkdtemp(join(tmpdir(), 'sidehook-contract-'));
  opened.defer(() => rm(dir, { recursive: true, force: true }));
  const kubeconfig = join(dir, 'kubeconfig');
  const config = JSON.parse(await readFile(process.env.KUBECONFIG ?? '', 'utf8'));
  config.contexts[0].context.namespace = space.name;
  const way = opened.use(await openWay(new URL(config.clusters[0].cluster.server)));
  config.clusters[0].cluster.server = way.url;
  await writeFile(kubeconfig, JSON.stringify(config));
  await space.apply(aWorkload('Deployment', 'db'));
  await space.kubectl('rollout', 'status', 'deployment/db', `--timeout=${SLOW_MS}ms`);
  const { metadata } = await space.get('deployment', 'db');
  const driver = opened.use(
    openKubernetes({ env: { KUBECONFIG: kubeconfig }, stateDir: join(dir, randomBytes(3).toString('hex')) }),
  );
  const owned = opened.move();
  return {
    driver,
    workload: { key: 'deployment/db', instance: metadata.uid, name: 'deployment/db' },
    impossible: { kind: 'script', name: '20-dump', interpreter: ['/opt/absent-interpreter'], text: 'true' },
    program: (conduct) => ({ kind: 'shell', line: lineOf(conduct) }),
    async state() {
      const found = await space.get('deployment', 'db');
      return found === undefined ? 'gone' : found.spec.replicas === 0 ? 'exited' : 'running';
    },
    countMarked: (prefix) => countMarked(space, prefix),
    async stop() {
      await space.kubectl('scale', 'deployment/db', '--replicas=0');
      await podsAreGone(space);
    },
    async remove() {
      await space.kubectl('delete', 'deployment', 'db');
      await podsAreGone(space);
    },
    cutOff: async () => way[Symbol.asyncDispose](),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** A way to the API server over loopback, whose certificate is for that, too. Disposing closes it, and cuts off who uses it. */
async function openWay({ hostname, port }: URL): Promise<AsyncDisposable & { readonly url: string }> {
  const sockets = new Set<Socket>();
  const server = createServer((near) => {
    const far = connect(Number(port) || 443, hostname);
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(one);
      one.on('error', () => other.destroy());
      one.on('close', () => {
        sockets.delete(one);
        other.destroy();
      });
      one.pipe(other);
    }
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  return {
    url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      if (!server.listening) return;
      const closed = once(server, 'close');
      server.close();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

function podsAreGone(space: Namespace): Promise<boolean> {
  const areGone = async () => (await space.list('pods')).length === 0;
  return until(areGone, { what: 'pods to be gone', deadlineMs: SLOW_MS, everyMs: 250 });
}

function lineOf({ out = '', err = '', waits = false, exitCode = 0 }: Conduct): string {
  const waiting = waits ? 'sh -c "sleep 3600 & wait" & wait;' : '';
  return `printf %s '${out}'; printf %s '${err}' >&2; ${waiting} exit ${exitCode}`;
}

/** Looked for in the pod itself; 0 where there is none. */
async function countMarked(space: Namespace, prefix: string): Promise<number> {
  const line = `grep -lz '^SIDEHOOK_STEP=${prefix}' /proc/[0-9]*/environ 2>/dev/null | wc -l`;
  const { exitCode, out } = await space.tryKubectl('exec', 'deployment/db', '--', 'sh', '-c', line);
  return exitCode === 0 ? Number(out) : 0;
}
