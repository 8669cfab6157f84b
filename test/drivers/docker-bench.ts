/** What the tests of the Docker driver stand on: one container, and a connection that can be cut. */
import { mkdtemp, rm } from 'node:fs/promises';
import { createConnection, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Program } from '../../src/core/hook.ts';
import type { Driver, Log } from '../../src/core/ports.ts';
import type { WorkloadRef, WorkloadState } from '../../src/core/workload.ts';
import { type DockerOptions, openDocker } from '../../src/drivers/docker.ts';
import { type ContainerOptions, docker, engineSocket, openStack, type Stack } from '../support/engine.ts';
import type { Bench, Conduct } from './contract.ts';

/** A way to the engine that can be cut, in the middle of an answer too, and mended. */
export type Proxy = AsyncDisposable & {
  readonly host: string;
  /** What was asked: `GET /containers/json?all=true`. */
  readonly requests: string[];
  cut(): Promise<void>;
  mend(): Promise<void>;
};

/** Opens a proxy on a socket of its own in front of the engine. */
export async function openProxy(): Promise<Proxy> {
  const dir = await mkdtemp(join(tmpdir(), 'proxy-'));
  const path = join(dir, 'docker.sock');
  const sockets = new Set<Socket>();
  const requests: string[] = [];
  const server = createServer((near) => {
    const far = createConnection(engineSocket());
    near.once('data', (bytes: Buffer) => void requests.push(bytes.toString().split(' ', 2).join(' ')));
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(one);
      one.on('error', () => other.destroy()).on('close', () => sockets.delete(one));
      one.pipe(other);
    }
  });
  const mend = () => new Promise<void>((resolve) => server.listen(path, resolve));
  const cut = async (): Promise<void> => {
    const closed = new Promise((resolve) => server.close(resolve));
    for (const socket of sockets) socket.destroy();
    await closed;
  };
  await mend();
  return {
    host: `unix://${path}`,
    requests,
    cut,
    mend,
    async [Symbol.asyncDispose]() {
      if (server.listening) await cut();
      await rm(dir, { recursive: true });
    },
  };
}

export type DockerBench = Bench & {
  readonly stack: Stack;
  readonly proxy: Proxy;
  /** What the driver had to say. */
  readonly said: readonly string[];
  /** A second container of the same compose project. */
  add(service: string, options?: ContainerOptions): Promise<WorkloadRef>;
  /** Another driver over the same engine. */
  open(options?: Partial<DockerOptions>): Promise<Driver & AsyncDisposable>;
};

/** Compose's labels for one container of a service. */
export function composeLabels(project: string, service: string, number = 1): Record<string, string> {
  return {
    'com.docker.compose.project': project,
    'com.docker.compose.service': service,
    'com.docker.compose.container-number': String(number),
    'com.docker.compose.oneoff': 'False',
  };
}

/** Opens a bench whose workload is the service `db` of a compose project of its own. */
export async function openDockerBench(options: ContainerOptions = {}): Promise<DockerBench> {
  await using opened = new AsyncDisposableStack();
  const stack = opened.use(await openStack('docker'));
  const proxy = opened.use(await openProxy());
  const said: string[] = [];
  const open = (more: Partial<DockerOptions> = {}) =>
    openDocker({
      ...{ host: proxy.host, scope: [stack.name], runDir: '/nowhere/run', stateDir: '/nowhere/state' },
      ...{ log: aLog(said), ...more },
    });
  const driver = opened.use(await open());
  const add = async (service: string, { labels = {}, ...rest }: ContainerOptions = {}): Promise<WorkloadRef> => {
    const instance = await stack.run({
      name: service,
      labels: { ...composeLabels(stack.name, service), ...labels },
      ...rest,
    });
    return { key: `${stack.name}/${service}/1`, instance, name: stack.named(service) };
  };
  const workload = await add('db', options);
  const owned = opened.move();
  return {
    ...{ driver, workload, stack, proxy, said, add, open },
    impossible: { kind: 'script', name: '20-dump', interpreter: ['/opt/absent-interpreter'], text: 'true' },
    program: (conduct) => ({ kind: 'shell', line: lineOf(conduct) }),
    async state() {
      const state = await docker('inspect', '--format', '{{.State.Status}}', workload.instance).catch(() => 'gone');
      return state as WorkloadState | 'gone';
    },
    countMarked: (prefix) => countMarked(workload.instance, prefix),
    stop: async () => void (await docker('stop', '--time', '0', workload.instance)),
    remove: async () => void (await docker('rm', '--force', workload.instance)),
    cutOff: proxy.cut,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

function lineOf({ out = '', err = '', waits = false, exitCode = 0 }: Conduct): string {
  const waiting = waits ? 'sh -c "sleep 3600 & wait" & wait;' : '';
  return `printf %s '${out}'; printf %s '${err}' >&2; ${waiting} exit ${exitCode}`;
}

/** With the image's own tools; the marks of root's processes. */
async function countMarked(container: string, prefix: string): Promise<number> {
  const script = `cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -c '^SIDEHOOK_STEP=${prefix}'; true`;
  return Number(await docker('exec', container, 'sh', '-c', script));
}

/** A script of this text. */
export function aScript(interpreter: readonly string[], text: string): Program {
  return { kind: 'script', name: '20-dump', interpreter, text };
}

function aLog(said: string[]): Log {
  const note = (message: string, fields?: Record<string, unknown>) =>
    void said.push(`${message} ${JSON.stringify(fields)}`);
  const log: Log = { debug: note, info: note, warn: note, error: note, hookOutput: () => undefined, child: () => log };
  return log;
}
