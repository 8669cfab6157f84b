/** A real daemon, as a process of its own on this machine, over the engine of the test run; it can die and come back. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, chown, mkdir, mkdtempDisposable, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { type ContainerOptions, docker, engineHost, type Stack } from './engine.ts';
import { type Client, startClient } from './spool.ts';
import { until } from './until.ts';

const MAIN = resolve(import.meta.dirname, '../../src/main.ts');
const READY_MS = 60_000;

export type SidecarOptions = {
  /** `SIDEHOOK_SCOPE`: projects. Never `host`: other tests have their containers on the same engine. */
  readonly scope: string;
  /** `DOCKER_HOST`; by default the engine of the test run. */
  readonly host?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Who it runs as; by default who the tests run as. */
  readonly user?: { readonly uid: number; readonly gid: number };
  /** What is started; by default the sources. */
  readonly program?: readonly string[];
  /** Not started yet: `start` does that. */
  readonly down?: true;
};

export type Sidecar = AsyncDisposable & {
  readonly runDir: string;
  readonly stateDir: string;
  readonly hooksDir: string;
  /** A folder for what the hooks leave. */
  readonly workDir: string;
  /** The operator's environment: for `cli`, and for whatever else is to find the daemon. */
  readonly env: Readonly<Record<string, string>>;
  /** Process id of the daemon that is up. */
  pid(): number;
  /** All that every daemon so far has said. */
  log(): string;
  /** Resolves once it takes requests. Rejects with its log when it ends before. */
  start(): Promise<void>;
  /** SIGKILL, and waits for its end. */
  kill(): Promise<void>;
  /** SIGTERM, and its exit code. */
  end(): Promise<number | null>;
  /** Puts an executable into hooks.d. */
  addHook(name: string, text: string): Promise<void>;
  /** The published client, from this machine. */
  client(...args: readonly string[]): Client;
  /** Any verb of the full command line. */
  cli(...args: readonly string[]): Client;
  /** Starts the published client in a container that shares the run directory and nothing else. */
  clientIn(stack: Stack, args: readonly string[], options?: ContainerOptions): Promise<ClientContainer>;
  /** The same for any command. */
  runIn(stack: Stack, argv: readonly string[], options?: ContainerOptions): Promise<ClientContainer>;
  /** Resident memory of the daemon, in KiB. */
  residentKib(): Promise<number>;
};

/** A client in a container of its own. */
export type ClientContainer = {
  readonly id: string;
  /** Both outputs so far. */
  log(): Promise<string>;
  /** Its exit code, once it has ended. */
  ended(): Promise<number>;
  /** `docker kill`: every process in it is gone at once. */
  kill(): Promise<void>;
};

/** Opens a sidecar over directories of its own, and starts it. */
export async function openSidecar(options: SidecarOptions): Promise<Sidecar> {
  await using stack = new AsyncDisposableStack();
  const { path: dir } = stack.use(await mkdtempDisposable(join(tmpdir(), 'sidehook-system-')));
  const [runDir, stateDir, hooksDir, workDir] = ['run', 'state', 'hooks.d', 'work'].map((name) => join(dir, name)) as [
    string,
    string,
    string,
    string,
  ];
  const { user } = options;
  if (user !== undefined) await chmod(dir, 0o755);
  for (const one of [runDir, stateDir, hooksDir, workDir]) {
    await mkdir(one, { mode: 0o755 });
    if (user !== undefined && one !== hooksDir) await chown(one, user.uid, user.gid);
  }
  const becoming = user === undefined ? [] : ['--reuid', `${user.uid}`, '--regid', `${user.gid}`, '--clear-groups'];
  const env = {
    PATH: process.env.PATH ?? '',
    DOCKER_HOST: options.host ?? engineHost(),
    SIDEHOOK_RUN_DIR: runDir,
    SIDEHOOK_STATE_DIR: stateDir,
    SIDEHOOK_HOOKS_DIR: hooksDir,
    SIDEHOOK_SCOPE: options.scope,
    SIDEHOOK_LOG_FORMAT: 'json',
    ...options.env,
  };

  const said: Buffer[] = [];
  const clients: Client[] = [];
  let daemon: ChildProcess | undefined;

  async function start(): Promise<void> {
    const from = said.length;
    // It becomes the daemon, with its process id, and has the kernel end it when the test's own process ends.
    const argv = [...becoming, '--pdeathsig', 'KILL', ...(options.program ?? [process.execPath, MAIN]), 'serve'];
    const child = spawn('setpriv', argv, { env, cwd: dir, stdio: ['ignore', 'ignore', 'pipe'] });
    daemon = child;
    child.stderr.on('data', (chunk: Buffer) => said.push(chunk));
    const isSettled = () => child.exitCode !== null || child.signalCode !== null || textFrom(from).includes('"ready"');
    await until(isSettled, { what: 'the daemon to be ready', deadlineMs: READY_MS });
    if (!isUp(child)) throw new Error(`the daemon ended at once (${child.exitCode}): ${textFrom(from)}`);
  }
  const textFrom = (index: number) => Buffer.concat(said.slice(index)).toString();
  const isUp = (child: ChildProcess) => child.exitCode === null && child.signalCode === null;

  async function kill(): Promise<void> {
    if (daemon === undefined || !isUp(daemon)) return;
    const gone = once(daemon, 'exit');
    daemon.kill('SIGKILL');
    await gone;
  }

  async function end(): Promise<number | null> {
    if (daemon === undefined || !isUp(daemon)) throw new Error('end the daemon: none is up');
    const gone = once(daemon, 'exit');
    daemon.kill('SIGTERM');
    const [exitCode] = await gone;
    return exitCode;
  }

  async function runIn(docked: Stack, args: readonly string[], more: ContainerOptions = {}): Promise<ClientContainer> {
    const volumes = [...(more.volumes ?? []), `${runDir}:/run/sidehook`];
    const id = await docked.run({ ...more, args, volumes });
    return {
      id,
      log: () => logsOf(id),
      ended: async () => Number(await docker('wait', id)),
      kill: async () => void (await docker('kill', '--signal', 'KILL', id)),
    };
  }

  function launch(argv: readonly string[]): Client {
    const client = startClient(argv, { env, cwd: dir });
    clients.push(client);
    return client;
  }

  const sidecar: Sidecar = {
    ...{ runDir, stateDir, hooksDir, workDir, env, start, kill, end, runIn },
    clientIn: (docked, args, more) => runIn(docked, ['/run/sidehook/sidehook', ...args], more),
    pid: () => daemon?.pid ?? 0,
    log: () => textFrom(0),
    async addHook(name, text) {
      await writeFile(join(hooksDir, name), text);
      await chmod(join(hooksDir, name), 0o755);
    },
    client: (...args) => launch([join(runDir, 'sidehook'), ...args]),
    cli: (...args) => launch([process.execPath, MAIN, ...args]),
    async residentKib() {
      const status = await readFile(`/proc/${daemon?.pid}/status`, 'utf8');
      return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]);
    },
    async [Symbol.asyncDispose]() {
      for (const client of clients) client.endAll();
      await kill();
      await owned.disposeAsync();
    },
  };
  const owned = stack.move();
  if (options.down !== undefined) return sidecar;
  try {
    await start();
  } catch (error) {
    await sidecar[Symbol.asyncDispose]();
    throw error;
  }
  return sidecar;
}

/** Both outputs of a container, first the one, then the other. */
export async function logsOf(id: string): Promise<string> {
  const client = startClient(['docker', 'logs', id], { env: { DOCKER_HOST: engineHost() } });
  await client.ended;
  return `${client.out()}${client.err()}`;
}
