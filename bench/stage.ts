/** Where it is measured: the bundle as the image has it, in folders of its own, and a bare server to hold it against. */
import { randomUUID } from 'node:crypto';
import { chmod, mkdir, mkdtempDisposable, readFile, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as pause } from 'node:timers/promises';
import { execa } from 'execa';
import { sendSignal } from '../src/cli/send.ts';
import { docker } from '../test/support/engine.ts';

const BUILD = resolve(import.meta.dirname, '../docker/build.ts');
const START_MS = 30_000;
const LOOK_MS = 2;

/** A POST runs the program that it was given, and says its exit code: the least that anything of our kind does. */
const BARE_SERVER = `
import { execFile } from 'node:child_process';
import { createServer } from 'node:http';
const [path, hook] = process.argv.slice(2);
createServer((request, response) => {
  execFile(hook, ['backup', 'pre'], (error) => response.end(String(error?.code ?? 0)));
}).listen(path);
`;

export type Stage = AsyncDisposable & {
  /** Makes a folder of its own for one measurement. */
  folder(): Promise<string>;
  /** The bundle's entry, with its compile cache warm. */
  readonly bundle: string;
  readonly bareServer: string;
};

/** Something that listens on a unix socket, as a process of its own. */
export type Server = AsyncDisposable & { readonly pid: number; readonly socketPath: string };

/** A sidecar that takes signals. */
export type Sidecar = Server & {
  readonly runDir: string;
  /** Sends one through the socket. @throws if it is not answered 0 */
  signal(state: 'pre' | 'post', job?: string): Promise<void>;
  /** Asks what a backup would do. */
  plan(): Promise<{ readonly steps: readonly unknown[] }>;
};

/** What a sidecar is started with, beside folders of its own. */
export type SidecarOptions = {
  /** File names and texts in hooks.d. */
  readonly hooks?: Readonly<Record<string, string>>;
  /** The compose project whose containers it is to see; none: it has no engine. */
  readonly project?: string;
};

/** Builds the bundle and fills its cache. */
export async function openStage(): Promise<Stage> {
  await using stack = new AsyncDisposableStack();
  const dir = stack.use(await mkdtempDisposable(join(tmpdir(), 'sidehook-measure-'))).path;
  await execa(process.execPath, [BUILD, join(dir, 'dist')]);
  await writeFile(join(dir, 'bare.mjs'), BARE_SERVER);
  const owned = stack.move();
  const stage: Stage = {
    bundle: join(dir, 'dist/sidehook.js'),
    bareServer: join(dir, 'bare.mjs'),
    async folder() {
      const path = join(dir, randomUUID().slice(0, 8)); // a socket's path may have no more than 107 bytes
      await mkdir(path);
      return path;
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
  for (const project of [undefined, 'nothing-of-that-name']) {
    await using sidecar = await openSidecar(stage, project === undefined ? {} : { project });
    await sidecar.signal('pre');
    await sidecar.signal('post');
  }
  return stage;
}

/** Writes hooks.d. */
async function writeHooks(dir: string, hooks: Readonly<Record<string, string>>): Promise<void> {
  await mkdir(dir, { recursive: true });
  for (const [name, words] of Object.entries(hooks)) {
    await writeFile(join(dir, name), words);
    await chmod(join(dir, name), 0o755);
  }
}

/** A hook for the host that does next to nothing, and leaves a line in `record`: who measures nothing must not look fast. */
export function hookOf(record: string, header = ''): string {
  return `#!/bin/sh\n${header === '' ? '' : `# sidehook: ${header}\n`}echo ran >>${record}\n`;
}

/** @throws when hooks did not run as often as was measured */
export async function checkRecord(record: string, times: number): Promise<void> {
  checkTimes(await readFile(record, 'utf8'), times);
}

/** @throws as `checkRecord`, of a record that was read already */
export function checkTimes(text: string, times: number): void {
  const ran = text.split('\n').filter((line) => line === 'ran').length;
  if (ran !== times) throw new Error(`check what was measured: hooks ran ${ran} times, not ${times}`);
}

/** @throws when it is not held, or not released, what was to be measured */
export async function checkRunning(label: string, count: number): Promise<void> {
  const running = (await docker('ps', '--quiet', '--filter', `label=${label}`)).split('\n').filter(Boolean).length;
  if (running !== count) throw new Error(`check what is measured: ${running} containers run, not ${count}`);
}

/** Starts a sidecar and waits until something listens at its socket, which it opens only when all else is ready. */
export async function openSidecar(
  stage: Stage,
  { hooks = {}, project }: SidecarOptions,
  dir?: string,
): Promise<Sidecar> {
  const home = dir ?? (await stage.folder());
  const [runDir, hooksDir, stateDir] = [join(home, 'run'), join(home, 'hooks.d'), join(home, 'state')];
  await writeHooks(hooksDir, hooks);
  for (const folder of [runDir, stateDir]) await mkdir(folder, { recursive: true });
  const engine = project === undefined ? ['--engine=none'] : ['--engine=docker', `--scope=${project}`];
  const folders = [`--run-dir=${runDir}`, `--hooks-dir=${hooksDir}`, `--state-dir=${stateDir}`];
  const socketPath = join(runDir, 'sidehook.sock');
  const server = await openServer([stage.bundle, 'serve', ...engine, ...folders], socketPath);
  const runs = new Map<string, string>();
  return {
    ...server,
    runDir,
    async plan() {
      const path = '/v1/plan?operation=backup&state=pre';
      return JSON.parse(await askServer(server, { method: 'GET', path })) as { steps: unknown[] };
    },
    async signal(state, job = 'default') {
      const run = state === 'pre' ? {} : { run: runs.get(job) };
      const answer = await sendSignal({
        socketPath,
        body: { version: 1, id: randomUUID(), operation: 'backup', state, job, ...run },
        patienceMs: START_MS,
        onOutput: async () => undefined,
        onWord: async () => undefined,
        signal: AbortSignal.timeout(10 * START_MS),
      });
      const told = [answer.message, ...answer.notes].join('; ');
      if (answer.exitCode !== 0) throw new Error(`signal backup ${state}, job ${job}: ${told}`);
      if (answer.runId !== undefined) runs.set(job, answer.runId);
    },
  };
}

/** Starts the bare server, which runs `hook` at each request. */
export async function openBareServer(stage: Stage, hook: string): Promise<Server> {
  const socketPath = join(await stage.folder(), 'bare.sock');
  return openServer([process.execPath, stage.bareServer, socketPath, hook], socketPath);
}

/** Asks the bare server once. @throws if the hook fails */
export async function askBareServer(server: Server): Promise<void> {
  const code = await askServer(server, { method: 'POST', body: '{}' });
  if (code !== '0') throw new Error(`the bare server's hook: exit code ${code}`);
}

async function askServer(
  { socketPath }: Server,
  {
    method,
    path = '/',
    body = '',
  }: { readonly method: 'GET' | 'POST'; readonly path?: string; readonly body?: string },
): Promise<string> {
  const { promise, resolve: settle, reject } = Promise.withResolvers<string>();
  request({ socketPath, method, path }, (response) => void text(response).then(settle, reject))
    .on('error', reject)
    .end(body);
  return promise;
}

async function openServer([program = '', ...args]: readonly string[], socketPath: string): Promise<Server> {
  const env = { PATH: `${dirname(process.execPath)}:${process.env.PATH}` }; // the bundle's own launcher looks for Node
  const child = execa(program, args, { reject: false, all: true, stdin: 'ignore', env });
  let isOver = false;
  const ended = child.then(() => {
    isOver = true;
  });
  const close = async (): Promise<void> => {
    child.kill();
    await ended;
  };
  const deadline = performance.now() + START_MS;
  while (!(await isListening(socketPath))) {
    if (isOver || performance.now() > deadline) {
      await close();
      throw new Error(`start ${[program, ...args].join(' ')}: ${(await child).all}`);
    }
    await pause(LOOK_MS);
  }
  return { pid: child.pid ?? 0, socketPath, [Symbol.asyncDispose]: close };
}

function isListening(path: string): Promise<boolean> {
  const { promise, resolve: settle } = Promise.withResolvers<boolean>();
  const socket = connect(path, () => settle(true)).on('error', () => settle(false));
  return promise.finally(() => socket.destroy());
}
